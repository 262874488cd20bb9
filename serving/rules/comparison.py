"""What a new set of rules would change: everybody's life under the rules in force and under the new ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serving.rules.fold import Judge, Row, unjudged
from serving.rules.guard import Figures, add, nobody
from serving.rules.history import lived
from serving.rules.ruleset import Rules

EXAMPLES = 3
Names = tuple[str, ...]


@dataclass
class Moved:
    """People who would be in other segments: how many, and the ids of the first few."""

    people: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """moved: by (segments that would be left, segments that would be entered), where there are any."""

    old: Figures
    new: Figures
    moved: dict[tuple[Names, Names], Moved] = field(default_factory=dict)

    @property
    def movers(self) -> int:
        """How many people would be in other segments."""
        return sum(m.people for m in self.moved.values())


def compare(
    old: Rules, new: Rules, people: Iterable[tuple[str, Sequence[Row]]], at_us: int, judge: Judge = unjudged
) -> Comparison:
    """Everybody up to `at_us` (µs) under both."""
    found = Comparison(nobody(old.segments), nobody(new.segments))
    for user, rows in people:
        before, after = lived(old, user, rows, at_us, judge), lived(new, user, rows, at_us, judge)
        if before is None or after is None:
            continue
        add(found.old, before)
        add(found.new, after)
        leaves, enters = set(before.held) - set(after.held), set(after.held) - set(before.held)
        if leaves or enters:
            moved = found.moved.setdefault((tuple(sorted(leaves)), tuple(sorted(enters))), Moved())
            moved.people += 1
            moved.examples += [user] if len(moved.examples) < EXAMPLES else []
    return found
