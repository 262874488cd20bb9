"""The two compilations of what a domain declares, and how the stream computes by them."""
