"""The limits of the over-segmentation guard, as a rules file declares them."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """What a set of rules may at most be; the figures are guard.Figures'.

    smallest_share: a segment that fewer of the people (0 to 1) have ever been in is too small. most_segments: how many
    may be declared. most_overlap: two segments that share more of their time (0 to 1) are one. most_flips_per_day: in
    and out of one segment, each counted, of those who have been in it.
    """

    smallest_share: float = 0.01
    most_segments: int = 12
    most_overlap: float = 0.9
    most_flips_per_day: float = 2.0
