"""Time lines in which one shortcut of the keeper, taken where it may not be, would remember or tell something else.

An event a line, and when somebody asks; whatever comes of each has to be that of the definition over all events.
"""

import itertools
from pathlib import Path

import pytest

from feature_repo.feature_store.store import apply
from feature_repo.history.history_store import row_of
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, HOUR
from serving import rules
from tests.feature_repo import histories
from tests.feature_repo.compute import Computer
from tests.feature_repo.test_stream import event
from tests.serving.segments.test_keeper import SAAS, World, told, wanted

RULES = """
domain: saas
segments:
  paused: {why: had a pause, enter: interactions_1h == 0, exit: never}
  quiet: {why: two days without an event, when: since_last_event > 2 days}
  gone: {why: ten days without an event, when: since_last_event > 10 days}
  pair: {why: has clicked twice, enter: interactions == 2, exit: never}
"""
BEGIN = histories.BASE
CLICK = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
         "properties": "{}", "traits": "{}", "context": "{}", "content_hash": ""}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    found = Settings(home=tmp_path_factory.mktemp("home"), domain="saas")
    apply(found)
    return found


@pytest.fixture(scope="module")
def compute() -> Computer:
    return Computer(SAAS)


@pytest.fixture
def eras(tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(RULES)
    return [(0, rules.load(tmp_path / "rules.yaml", SAAS))]


LINES = {
    "a late event, before the last thing that happened": [
        ("click", 2 * HOUR), ("ask", 2 * HOUR), ("ask", 4 * HOUR), ("click", 0), ("ask", 5 * HOUR),
    ],
    "a late event, after the row began and before a rule was due": [
        ("click", 0), ("ask", 1), ("ask", 3 * DAY), ("click", 36 * HOUR), ("ask", 3 * DAY + HOUR),
    ],
    "two windows end, and nobody has asked between": [("click", 0), ("ask", 1), ("ask", 25 * HOUR)],
    "a window ends, then an event comes, and nobody has asked between": [
        ("click", 0), ("ask", 1), ("click", 2 * HOUR), ("ask", 2 * HOUR),
    ],
    "a rule is due, then an event comes, and nobody has asked between": [
        ("click", 0), ("ask", 8 * DAY), ("click", 11 * DAY), ("ask", 11 * DAY),
    ],
    "a rule is due, and the row is the same": [("click", 0), ("ask", 8 * DAY), ("ask", 10 * DAY + 1)],
    "two events before anybody asks": [("click", 0), ("ask", 1), ("click", 2), ("click", 3), ("ask", 4)],
    "two events of one moment, one after the other": [
        ("click", 0), ("click", 1), ("ask", 2), ("click", 1), ("ask", 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_what_is_remembered_and_told_is_that_of_the_definition(settings, compute, eras, tmp_path, line) -> None:
    world, events, numbers = World(settings, tmp_path, eras), [], itertools.count(1)
    for what, after_us in line:
        if what == "click":
            number = next(numbers)
            events.append(CLICK | {"position": number, "message_id": f"m{number}", "ts_us": BEGIN + after_us})
            world.history.add([row_of(number, event(events[-1]))])
            continue
        found = world.follow("u1", BEGIN + after_us)
        world.keeper.flush()
        state, moves = wanted(compute, events, eras, "u1", BEGIN + after_us)
        assert found is not None and (found.document.state, told(world.keeper, "u1")) == (state, moves)
    world.close()
