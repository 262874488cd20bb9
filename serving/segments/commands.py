"""`python -m serving segments`: everybody's segments, and what moved them."""

from typing import TYPE_CHECKING

import click

from feature_repo.command import domain_option
from feature_repo.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from serving.rules.guard import Figures
    from serving.segments.journal import Journal


@click.command()
@domain_option
def segments(domain: str) -> None:
    """Follow everybody who has feature rows by the rules, while no service runs, and show who is where.

    A service does that for people as it meets them; this is for all of a past at once. At the end it says which
    limits of the over-segmentation guard (`limits:` of the rules file) the segments by rule exceed.

    \b
    make backfill && python -m serving segments
    """
    from rich.console import Console

    from feature_repo.settings import now_us
    from feature_repo.storage import BusyError

    try:
        followed(Settings(domain=domain), now_us(), Console())
    except (ValueError, LookupError, BusyError) as e:
        raise click.ClickException(str(e)) from None


def followed(settings: Settings, at_us: int, console: "Console") -> dict[str, int]:
    """Fill the journal as of a time, show it, and return how many people are in each segment.

    Raises:
        ValueError, LookupError, BusyError: see `fill`.
    """
    from feature_repo import domains
    from feature_repo.progress import Bars
    from serving import playbook
    from serving.rules.guard import exceeded
    from serving.segments import figures
    from serving.segments.fill import fill
    from serving.segments.journal import FILE, Journal
    from training import registry

    domain = domains.load(settings.domain)
    book = playbook.for_domain(domain)
    model = registry.load(settings) if registry.champion_version(settings) else None
    with Bars(console=console, transient=True) as progress:
        bar = progress.add_task("following people")
        done = lambda files, of: progress.update(bar, completed=files, total=of)  # noqa: E731
        people = fill(settings, domain, book, model, at_us, done)
    journal = Journal(settings.state / FILE)
    try:
        console.print(table(journal))
        counts, changes = journal.counts()
    finally:
        journal.close()
    console.print(f"{people:,} people followed, {changes:,} changes in the journal")
    found = figures.read(settings.state / FILE, book.rules, at_us)
    console.print(guarded(found))
    for line in exceeded(found, book.rules.limits) or ("no limit is exceeded",):
        console.print(line)
    return {segment: n for (_, segment), n in counts.items()}


def table(journal: "Journal") -> "Table":
    """The segments: source, people in it now, and how the last one came in and left."""
    from rich.table import Table

    found = Table("segment", "by", "people", "last entered", "last left", title="Who is where")
    counts, _ = journal.counts()
    for (source, segment), people in sorted(counts.items(), key=lambda c: (c[0][0], -c[1])):
        last = [journal.last_cause(segment, entered) or "" for entered in (True, False)]
        found.add_row(segment, source, f"{people:,}", *last)
    return found


def guarded(figures: "Figures") -> "Table":
    """What the over-segmentation guard looks at: shares now and ever, moves a day, the segment most alike."""
    from rich.table import Table

    found = Table("segment", "now", "ever", "in or out a person and day", "most like", title="Segments by rule")
    people = figures.people or 1
    for name, of in figures.segments.items():
        alike = next(((share, a if b == name else b) for share, a, b in figures.overlaps if name in (a, b)), None)
        like = f"{alike[1]}: {alike[0]:.0%} of the time in either" if alike else ""
        found.add_row(name, f"{of.now / people:.1%}", f"{of.ever / people:.1%}", f"{of.flips_per_day:.2f}", like)
    return found
