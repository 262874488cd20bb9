"""Python's collector of cycles in a process that lasts."""

import gc

THRESHOLDS = (20_000, 10, 10)
"""Python's default is 700 in place of 20,000: under load it looks through everything every second or two."""


def spare_what_is_there() -> None:
    """Never look again through what there is by now.

    Half a million objects of the libraries, of which nothing goes: everything stopped for 0.3 s each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
