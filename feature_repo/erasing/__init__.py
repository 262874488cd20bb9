"""Erasing a person: what goes, in which order, and how their late events are recognised."""
