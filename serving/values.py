"""What a feature's value can be where decisions are made."""

Value = float | int | str | None
"""Null as the feature's catalogue entry says."""
