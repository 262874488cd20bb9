"""`python -m tests.e2e.store_faults_child HOME SAMPLES`, with the library of faults.c: calls fail, one at a time.

A store is used by a forked process while one read, write, fsync, rename or truncation on its files fails, tears or is
the last; another process opens what is left and looks whether everything that was acknowledged is there. SAMPLES: how
many calls of each kind, spread evenly; 0: each of them. Prints how many calls there were.
"""

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.store import ensure_applied, feature_store, read_online
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.log.event_log import Delivered
from feature_repo.settings import Settings
from feature_repo.stream.processor import Processor
from serving import decision_log
from serving.consent import Consent
from serving.decide import Asked, Receipt, Situation, decide, decision_id
from serving.decision_log import DecisionLog
from serving.playbook import for_domain
from serving.segments.journal import Change, Entry, Journal
from tests.feature_repo.faults_child import forked

FAULTS = ctypes.CDLL(None)
HOWS = (0, 1, 2, 3)
SAAS = domains.load("saas")
NOW = 1_700_000_000_000_000
Tell = Callable[[str], None]


def tried(tell: Tell, act: Callable[[], Any], done: str = "", times: int = 1) -> None:
    """Do something, as often as whoever uses the store does; says that it is done, or by what it has failed."""
    for _ in range(times):
        try:
            act()
        except Exception as error:
            tell(f"!{type(error).__name__}")
        else:
            if done:
                tell(done)
            return


# history.db and the online rows


def delivered(n: int) -> list[Delivered]:
    """The n-th three events of the log: two users, and a visitor who becomes known."""
    at, base, ids = NOW + n, 3 * n, [("u1", None), ("u2", None), (None, "d")]
    events = [Event("track", f"m{base + i}", *who, at, at, "Clicked", {}, {}, {}) for i, who in enumerate(ids)]
    if n == 4:
        events[1] = Event("identify", f"m{base + 1}", "u1", "d", at, at, None, {}, {}, {})
    return [Delivered(e, base + i + 1, base + i + 1) for i, e in enumerate(events)]


def stream(settings: Settings) -> Processor:
    return Processor(settings, SqliteHistory(settings.state / "history.db"), lambda: NOW + 100)


def use_stream(settings: Settings, tell: Tell) -> None:
    processor = stream(settings)
    for n in range(6):
        tried(tell, lambda n=n: processor.apply(delivered(n)), f"applied {3 * n + 3}", times=2)
        tried(tell, processor.refresh, times=2)


def check_stream(settings: Settings, told: set[str]) -> None:
    processor = stream(settings)
    reached = processor.history.position()
    assert reached >= max([0, *(int(t.split()[1]) for t in told)]), f"the history forgot that it had reached {told}"
    for n in range(6):
        if reached < 3 * n + 3:
            processor.apply(delivered(n))
    while processor.refresh():
        pass
    assert not processor.aside, processor.aside
    people = ["u1", "u2", "anon:d"]
    found = read_online(feature_store(settings, lineage=False), SAAS, people, ["clicks"])
    assert [f and f["clicks"] for f in found] == [12, 5, None], found


# opted_out.db and erased.db


def use_consents(settings: Settings, tell: Tell) -> None:
    consent, tombstones = Consent(settings.state), Tombstones(settings.state)
    for n in range(4):
        tried(tell, lambda n=n: consent.opt_out([f"out{n}", f"back{n}"], NOW), f"out {n}")
        tried(tell, lambda n=n: consent.opt_in([f"back{n}"]), f"back {n}")
        tried(tell, lambda n=n: tombstones.begin(f"gone{n}", NOW), f"begun {n}")
        tried(tell, lambda n=n: tombstones.planned(f"gone{n}", {"person": f"gone{n}"}, [f"alias{n}"]), f"planned {n}")
        tried(tell, lambda n=n: tombstones.finish(f"gone{n}", NOW), f"finished {n}")


def check_consents(settings: Settings, told: set[str]) -> None:
    consent, tombstones = Consent(settings.state), Tombstones(settings.state)
    unfinished = {plan["person"] for plan in tombstones.unfinished()}
    for n in range(4):
        out, back = consent.opted_out(f"out{n}"), consent.opted_out(f"back{n}")
        assert out or f"out {n}" not in told, f"out{n} has opted out, and is profiled again"
        assert not back or f"back {n}" not in told, f"back{n} has come back, and nothing is taken of them"
        assert out or not back, "half of an opt-out is there"
        begun = tombstones.covers(f"gone{n}")
        assert begun or f"begun {n}" not in told, f"gone{n} is to be erased, and is taken again"
        assert tombstones.covers(f"alias{n}") or f"planned {n}" not in told
        if begun and f"finished {n}" in told:
            assert f"gone{n}" not in unfinished, "it is erased again and again"
        elif begun and not tombstones.erasure(f"gone{n}").finished_us:  # type: ignore[union-attr]
            assert f"gone{n}" in unfinished, f"the erasure of gone{n} is forgotten"
        consent.opt_out([f"out{n}"], NOW)
        tombstones.begin(f"gone{n}", NOW)
        assert consent.opted_out(f"out{n}") and tombstones.covers(f"gone{n}")


# segments.db


def use_journal(settings: Settings, tell: Tell) -> None:
    journal = Journal(settings.state / "segments.db")
    for n in range(8):
        change = Change("u", "rules", f"segment {n}", True, NOW + n, "", "1", NOW)
        tried(tell, lambda n=n, c=change: journal.write({"u": Entry(b"%d" % n, None)}, [c]), f"written {n}")


def check_journal(settings: Settings, told: set[str]) -> None:
    journal = Journal(settings.state / "segments.db")
    there = [int(change.segment.split()[1]) for change in journal.of(["u"])]
    assert there == sorted(set(there)) and {int(t.split()[1]) for t in told} <= set(there), (there, told)
    document = journal.document("u")
    assert document == (b"%d" % there[-1] if there else None), "a document without its change, or the reverse"
    journal.write({"u": Entry(b"9", None)}, [Change("u", "rules", "segment 9", True, NOW, "", "1", NOW)])
    assert journal.last() > 0


# the decision log


def receipts() -> list[Receipt]:
    book = for_domain(SAAS)
    asked = [Asked(f"u{n}", NOW + n, decision_id(NOW + n, n)) for n in range(12)]
    return [decide(a, None, Situation(), None, book)[0] for a in asked]


def use_decisions(settings: Settings, tell: Tell) -> None:
    """A log, and another one that goes on with its file; what waits when one is stopped is written too."""
    every = receipts()
    for begin in (0, 6):
        log = DecisionLog(settings.decisions, interval_s=0.01).start()
        for n in range(begin, begin + 6, 2):
            for receipt in every[n : n + 2]:
                log.put(receipt)
            deadline = time.monotonic() + 20
            while n < begin + 4 and log.waiting and time.monotonic() < deadline:
                time.sleep(0.002)
            if not log.waiting:
                tell(f"logged {n + 2}")
        log.close()
        tell(f"logged {begin + 6}")


def check_decisions(settings: Settings, told: set[str]) -> None:
    log = DecisionLog(settings.decisions, interval_s=0.01).start()
    log.put(receipts()[-1])
    log.close()
    found = decision_log.read(settings.decisions)["decision_id"].to_pylist()
    last = max([0, *(int(t.split()[1]) for t in told)])
    lost = [n for n, r in enumerate(receipts()[:last]) if r.decision_id not in found]
    assert not lost and len(found) - len(set(found)) <= (last == 12), (lost, found, told)


class Store(NamedTuple):
    use: Callable[[Settings, Tell], None]
    check: Callable[[Settings, set[str]], None]


STORES = {
    "stream": Store(use_stream, check_stream),
    "consents": Store(use_consents, check_consents),
    "journal": Store(use_journal, check_journal),
    "decisions": Store(use_decisions, check_decisions),
}


def one(store: Store, template: Path, home: Path, how: int, n: int) -> tuple[int, set[str]]:
    """Let the n-th call fail; how many calls were left until then, and what was acknowledged."""
    shutil.copytree(template, home)
    settings = Settings(home=home, domain="saas")
    report = home / "told"
    handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def failing() -> None:
        FAULTS.fault_arm(str(settings.state).encode(), n, how)
        tell: Tell = lambda words: os.write(handle, f"{words}\n".encode()) and None  # noqa: E731
        tried(tell, lambda: store.use(settings, tell))  # what cannot be opened ends the service
        os.write(handle, f"left {FAULTS.fault_left()}\n".encode())

    status = forked(failing)
    os.close(handle)
    lines = report.read_text().splitlines()
    assert status in (0, 9), f"call {n}, how {how}: the process ended with {status}: {lines}"
    left = [int(line.split()[1]) for line in lines if line.startswith("left ")]
    told = {line for line in lines if not line.startswith(("!", "left "))}
    assert forked(lambda: store.check(settings, told)) == 0, f"call {n}, how {how}: see above; it was told {lines}"
    shutil.rmtree(home)
    return (left[0] if left else 0), told


def main(home: Path, samples: int) -> None:
    template, many = home / "template", 1_000_000
    settings = Settings(home=template, domain="saas")
    settings.state.mkdir(parents=True)
    assert forked(lambda: ensure_applied(settings)) == 0
    for name, store in STORES.items():
        counted = [many - one(store, template, home / "none", how, many)[0] for how in (0, 3)]
        for how in HOWS:
            calls = counted[how == 3]
            step = max(1.0, calls / samples) if samples else 1.0
            chosen = sorted({1 + int((i + how / len(HOWS)) * step) for i in range(int(calls / step))})
            for n in chosen:
                one(store, template, home / f"{how}-{n}", how, n)
            print(f"{name}, how {how}: {len(chosen)} of {calls} calls", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
