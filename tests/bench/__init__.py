"""`make bench`: the project against what one would do instead, side by side in one run."""
