"""Everybody's past as the stream keeps it, on this machine or on Redis."""
