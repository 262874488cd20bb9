"""A comparison of rules as tables for a terminal."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.rules.comparison import Comparison, Names
from serving.rules.guard import Figures

MOST_MOVES = 20
MOST_PAIRS = 8


def show(found: Comparison, console: Console) -> None:
    """Print it: segments, who would move, overlaps."""
    parts: list[RenderableType] = [_segments(found)]
    parts.append(_moves(found) if found.moved else Text("Nobody would move."))
    if found.new.overlaps:
        parts.append(_overlaps(found.new))
    console.print(Group(*parts))


def _segments(found: Comparison) -> Table:
    table = Table(title=f"Segments of {found.new.people:,} people", title_justify="left")
    for head in ("segment", "now", "would be", "share", "ever", "flips a person and day"):
        table.add_column(head, justify="left" if head == "segment" else "right")
    for name in dict.fromkeys((*found.new.segments, *found.old.segments)):
        table.add_row(name, *_figures(found, name))
    old, new = (f"{f.flips_per_day:.2f}" for f in (found.old, found.new))
    table.add_section()
    table.add_row("all", "", "", "", "", f"{old} -> {new}")
    return table


def _figures(found: Comparison, name: str) -> list[str]:
    old, new = found.old.segments.get(name), found.new.segments.get(name)
    before = f"{old.now:,}" if old else "-"
    if new is None:
        return [before, "-", "-", "-", f"{old.flips_per_day:.2f} -> -" if old else "-"]
    people = found.new.people or 1
    flips = f"{old.flips_per_day:.2f} -> {new.flips_per_day:.2f}" if old else f"{new.flips_per_day:.2f}"
    return [before, f"{new.now:,}", f"{new.now / people:.1%}", f"{new.ever / people:.1%}", flips]


def _moves(found: Comparison) -> Table:
    table = Table(title=f"{found.movers:,} people would move", title_justify="left")
    for head in ("would leave", "would enter", "people", "for example"):
        table.add_column(head, justify="right" if head == "people" else "left")
    ordered = sorted(found.moved.items(), key=lambda m: (-m[1].people, m[0]))
    for (leaves, enters), moved in ordered[:MOST_MOVES]:
        table.add_row(_named(leaves), _named(enters), f"{moved.people:,}", ", ".join(moved.examples))
    if rest := ordered[MOST_MOVES:]:
        table.add_row(f"{len(rest)} other ways", "", f"{sum(m.people for _, m in rest):,}", "")
    return table


def _overlaps(figures: Figures) -> Table:
    table = Table(title="Most alike, by time in both of the time in either", title_justify="left")
    table.add_column("segments")
    table.add_column("overlap", justify="right")
    for share, first, second in figures.overlaps[:MOST_PAIRS]:
        table.add_row(f"{first}, {second}", f"{share:.1%}")
    return table


def _named(names: Names) -> str:
    return ", ".join(names) or "-"
