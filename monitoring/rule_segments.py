"""How people are spread over the segments by rule, from the journal of the service, which may be running."""

import sqlite3
from dataclasses import dataclass

from feature_repo.domain import Domain
from feature_repo.settings import Settings


@dataclass(frozen=True)
class RuleSegments:
    """people: who are followed. shares: of them in each segment now, the largest first. flips_per_day: how often those
    who were ever in it went in or out of each, a person and day. exceeded: limits of the guard, in words. unread: why
    the journal could not be read; null: it was."""

    people: int
    shares: dict[str, float]
    flips_per_day: dict[str, float]
    exceeded: tuple[str, ...] = ()
    unread: str | None = None


def measured(settings: Settings, domain: Domain, at_us: int) -> RuleSegments | None:
    """As of a time, µs, by the rules that the domain's file declares now.

    None: there is no journal yet, or there are no rules.
    """
    from serving import rules
    from serving.rules.guard import exceeded
    from serving.segments import figures
    from serving.segments.journal import FILE

    file, declared = settings.state / FILE, rules.for_domain(domain)
    if not file.exists() or not declared.segments:
        return None
    try:
        found = figures.read(file, declared, at_us)
    except sqlite3.Error as e:
        return RuleSegments(0, {}, {}, unread=f"{file}: {e}")
    by_share = sorted(found.segments.items(), key=lambda s: (-s[1].now, s[0]))
    return RuleSegments(
        found.people,
        {name: of.now / found.people if found.people else 0.0 for name, of in by_share},
        {name: of.flips_per_day for name, of in by_share},
        exceeded(found, declared.limits),
    )
