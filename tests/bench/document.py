"""bench.json, and the same as tables between the markers of BENCHMARKS.md."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.figures import Cell, Check, Result, Table

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
ORDER = ("backfill", "training_set", "decide", "decisions", "live", "lookup")


class Bench(msgspec.Struct):
    """The newest result of each section. `small`: sizes that only show that it runs."""

    sections: dict[str, Result] = {}
    small: bool = False


def read(path: Path) -> Bench:
    """What an earlier run wrote; nothing where there was none."""
    return msgspec.json.decode(path.read_bytes(), type=Bench) if path.exists() else Bench()


def merged(earlier: Bench, found: dict[str, Result], small: bool) -> Bench:
    """The new results over the earlier ones; a section that was skipped keeps its earlier result.

    Small and full-size results do not stand in one file: the newer kind replaces the other.
    """
    kept = earlier.sections if earlier.small == small else {}
    new = {name: r for name, r in found.items() if not r.skipped or name not in kept}
    both = kept | new
    return Bench({name: both[name] for name in ORDER if name in both}, small)


def write(path: Path, bench: Bench) -> None:
    """As JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    plain = msgspec.to_builtins(bench)
    for name, result in bench.sections.items():
        for check, shown in zip(result.checks, plain["sections"][name]["checks"], strict=True):
            shown["met"] = check.met
    part.write_bytes(msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n")
    part.rename(path)


def replaced(text: str, content: str) -> str:
    """The document with new content between the markers, the rest as it was.

    Raises:
        ValueError: not exactly one pair of markers, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and after it one {END}; came {text.count(BEGIN)} and {text.count(END)}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content.strip()}\n\n{END}{rest.split(END)[1]}"


def markdown(bench: Bench) -> str:
    """All sections."""
    return "\n\n".join(_section(result) for result in bench.sections.values())


def _section(result: Result) -> str:
    parts = [f"### {result.title}"]
    if result.skipped:
        return f"{parts[0]}\n\nNot measured: {result.skipped}."
    parts.append(_table(["", "measured", "of the rounds", "target", "met"], [_check(c) for c in result.checks]))
    parts += [f"{t.title}:\n\n{_table(t.columns, t.rows)}" for t in result.tables]
    parts += result.notes
    parts.append(f"Measured {result.at} on: {', '.join(f'{k} {v}' for k, v in result.machine.items())}.")
    return "\n\n".join(parts)


def _check(check: Check) -> list[Cell]:
    spread = "" if check.low is None or check.high is None else f"{number(check.low)} – {number(check.high)}"
    target = (
        "" if check.target is None else f"{'≤' if check.at_most else '≥'} {number(check.target)} {check.unit}".strip()
    )
    met = {None: "", True: "yes", False: "**no**"}[check.met]
    return [check.name, f"{number(check.value)} {check.unit}".strip(), spread, target, met]


def number(value: float) -> str:
    """Three digits that count, and no fewer before the point.

    >>> [number(v) for v in (1234.5, 12.345, 1.2345, 3.0)]
    ['1,234', '12.3', '1.23', '3']
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) else value.replace("|", "\\|")


def tables(result: Result) -> list[Table]:
    """What the terminal shows of a section: the checks, then its own tables."""
    shown = [_check(c) for c in result.checks]
    rows: list[list[Cell]] = [[_plain(c) for c in row] for row in shown]
    return [Table(result.title, ["", "measured", "of the rounds", "target", "met"], rows), *result.tables]


def _plain(cell: Cell) -> Cell:
    return cell.replace("**", "") if isinstance(cell, str) else cell
