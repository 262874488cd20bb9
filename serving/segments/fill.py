"""Everybody's segments at once, out of the offline feature rows and the lake: what a service then only has to follow.

offline rows ─► [rules over each person's change points] ─┐
lake ─► [what became of what was shown] ──────────────────┼─► journal
champion ─► [segment and persona of the row in force] ────┘
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Set

from feature_repo.contract.feedback import EVENTS as FEEDBACK
from feature_repo.domain import Domain
from feature_repo.history.history_store import EDGES, HistoryStore, Row, open_history
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import SENDER
from feature_repo.lake.past import fill as fill_history
from feature_repo.settings import Settings
from feature_repo.stream.personal import NOTHING, Known, owned
from feature_repo.vocabulary import DAY
from serving.decide import Model, Situation, Snapshot, place
from serving.features import with_elapsed
from serving.offline import OfflineRows
from serving.playbook import Playbook
from serving.policy import Seen
from serving.rules import Rules, State
from serving.rules.history import History, Past
from serving.segments import timeline
from serving.segments.journal import FILE, Change, Entry, Journal
from serving.segments.keeper import ENGAGEMENT, PERSONAS, RULES, persona_cause
from serving.segments.person import Document, Person

AT_ONCE = 500
"""People who are written together."""
LAST = 2 * DAY
"""How far back events count for a session, µs; see policy.Seen."""


def fill(
    settings: Settings,
    domain: Domain,
    playbook: Playbook,
    model: Model | None,
    at_us: int,
    done: Callable[[int, int], None] = lambda files, of: None,
) -> int:
    """Follow everybody who has feature rows to `at_us`, and begin a journal with it; returns how many were not in it.

    done: is told how many files of how many are done.

    Raises:
        BusyError: a service runs: it follows people itself. NoHistoryError: there are no feature rows.
    """
    journal, history = Journal(settings.state / FILE), open_history(settings)
    try:
        if settings.history == "sqlite":
            fill_history(history, settings, at_us)
        filling = Filling(settings, domain, playbook, model, at_us, history, journal)
        for past in History(settings.features, filling.needs).pasts(filling.only_rules, done=done):
            if past.there(at_us):
                filling.add(past)
        return filling.finish()
    finally:
        history.close()
        journal.close()


class Filling:
    """People on their way into a journal."""

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        playbook: Playbook,
        model: Model | None,
        at_us: int,
        history: HistoryStore,
        journal: Journal,
    ) -> None:
        self._domain, self._playbook, self._model, self._at_us = domain, playbook, model, at_us
        self._history, self._journal = history, journal
        eras = journal.begin_era(playbook.rules.content, at_us)
        self._eras = [(since, Rules.from_content(content)) for since, content in eras]
        self._offline = OfflineRows(settings.features, list(domain.feature_types))
        self._events, self._later = _events(settings, at_us)
        self._waiting: dict[str, Past] = {}
        self._people = 0

    @property
    def needs(self) -> list[str]:
        """The stored features that the rules of any era read."""
        return sorted({name for _, rules in self._eras for name in rules.needs})

    @property
    def only_rules(self) -> Rules | None:
        """The rules that have always been in force; None where others were before."""
        return self._eras[0][1] if len(self._eras) == 1 else None

    def add(self, past: Past) -> None:
        """Somebody's change points; those after the time of filling are left out."""
        self._waiting[past.person] = past.until(self._at_us)
        if len(self._waiting) >= AT_ONCE:
            self._write()

    def finish(self) -> int:
        """Write those who wait; returns how many have been written in all."""
        self._write()
        return self._people

    def _write(self) -> None:
        in_force = self._offline.in_force(dict.fromkeys(self._waiting, -1), self._at_us)
        senders = {person: self._history.senders_of([person]) for person in in_force}
        known = self._known(senders)
        people, changes = dict[str, Entry](), list[Change]()
        for person, (values, event_us, _) in in_force.items():
            if self._journal.document(person) is None:
                row = Snapshot(values, event_us)
                found, told = self._person(self._waiting[person], row, known[person], senders[person])
                people[person] = found.entry()
                changes += told
        self._journal.write(people, changes)
        self._people += len(people)
        self._waiting.clear()

    def _person(self, past: Past, row: Snapshot, known: Known, senders: Set[str]) -> tuple[Person, list[Change]]:
        person = past.person
        done = timeline.follow(self._eras, past.rows, State(), 0, self._at_us, quiet=past.quiet)
        row = with_elapsed(self._domain, row, self._at_us)
        placed = place(self._at_us, row, Situation(done.state), self._model, self._playbook)
        changes = [
            Change(person, RULES, m.segment, m.entered, m.at_us, m.cause, version, self._at_us)
            for m, version in done.moves
        ]
        why = placed.reasons[0] if placed.reasons else ""
        of_model = f"{self._model.name} {self._model.version}" if self._model else ""
        for source, segment, cause in (
            (ENGAGEMENT, placed.engagement, why), (PERSONAS, placed.persona, persona_cause(placed.persona)),
        ):  # fmt: skip
            if segment is not None:
                changes.append(Change(person, source, segment, True, self._at_us, cause, of_model, self._at_us))
        document = Document(
            known,
            done.state,
            done.stepped_us,
            done.until_us,
            done.due_us,
            placed.engagement,
            placed.persona,
        )
        return Person(document, self._seen(person, senders)), changes

    def _known(self, senders: Mapping[str, Set[str]]) -> dict[str, Known]:
        """What the history knows of the events of each person's senders."""
        everybody, position = set().union(*senders.values()), self._history.position()
        versions = self._history.versions(everybody) | dict.fromkeys(self._history.left(everybody), NOTHING)
        return {
            person: Known(
                {sender: versions[sender] for sender in theirs},
                position,
                min((self._later[sender] for sender in theirs if sender in self._later), default=None),
            )
            for person, theirs in senders.items()
        }

    def _seen(self, person: str, senders: Set[str]) -> Seen:
        seen = Seen(self._playbook.policy.boundaries.session_gap_us)
        rows = [row for sender in senders for row in self._events.get(sender, ())]
        seen.add(owned(rows, person, self._at_us))
        return seen


def _events(settings: Settings, at_us: int) -> tuple[Mapping[str, list[Row]], Mapping[str, int]]:
    """By sender the events of the lake that say what became of what was shown, and when a session may have begun; and
    the time (µs) of the first event after `at_us`."""
    import ibis

    con = ibis.duckdb.connect()
    names = ", ".join(f"'{name}'" for name in FEEDBACK)
    edges = ", ".join(f"'{kind}'" for kind in EDGES)
    columns = ", ".join(Row._fields[1:])
    events: defaultdict[str, list[Row]] = defaultdict(list)
    try:
        lake = ibis.to_sql(Lake(settings.lake).events(con), dialect="duckdb")
        ahead = con.con.execute(f"select {SENDER}, min(ts_us) from ({lake}) where ts_us > {at_us} group by 1")
        later = dict(ahead.fetchall())
        found = con.con.execute(
            f"""select {SENDER}, {columns} from ({lake}) where ts_us <= {at_us}
                and ((type = 'track' and name in ({names})) or type in ({edges}) or ts_us > {at_us - LAST})"""
        )
        while some := found.fetchmany(10_000):
            for values in some:
                events[values[0]].append(Row(*values))
    finally:
        con.disconnect()
    return events, later
