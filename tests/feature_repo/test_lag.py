"""feature_repo.stream.lag: what waits in the log, for its rows, and for the lake."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from feature_repo.__main__ import main
from feature_repo.contract.events import Event
from feature_repo.history.history_store import UNNUMBERED, open_history, row_of
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.log.event_log import open_log
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings, now_us
from feature_repo.stream.embedded import Embedded
from feature_repo.stream.lag import Lag, lag
from tests import brokers
from tests.e2e.processes import until


def events(n: int) -> list[Event]:
    return [Event("track", f"m{i}", f"u{i % 3}", None, now_us(), now_us(), "Clicked", {}, {}, {}) for i in range(n)]


def settings_at(home: Path, log: str = "sqlite") -> Settings:
    return Settings(home=home, domain="saas", log=log, history="sqlite", online="sqlite")


def test_a_state_folder_from_the_log_to_the_lake(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    with pytest.raises(ValueError, match="no events yet"):
        lag(settings)
    settings.state.mkdir(parents=True)
    with closing(SqliteLog(log_file(settings))) as log:
        log.append(events(7)).result(10)
        assert lag(settings) == Lag(7, 0, 7)
        with closing(open_history(settings)) as history:
            history.add([row_of(d.position or 0, d.event) for d in log.poll(5, 1)])
        assert lag(settings) == Lag(2, 3, 7)
    drain(settings)
    assert lag(settings) == Lag(2, 3, 0)


def test_beside_a_service_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_at(tmp_path)
    live = Embedded(settings).start()
    live.append(events(9)).result(10)
    until(lambda: lag(settings) == Lag(0, 0, 9))
    live.close()
    assert lag(settings) == Lag(0, 0, 0)
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    shown = CliRunner().invoke(main, ["lag"])
    assert shown.output.splitlines()[0] == "       0  events accepted and not applied yet"
    assert json.loads(CliRunner().invoke(main, ["lag", "--json"]).output) == {
        "log": 0,
        "due": 0,
        "lake": 0,
        "set_aside": [],
    }


def test_a_broker_and_the_history_that_numbers_its_events(tmp_path: Path) -> None:
    with brokers.kafka() as kafka:
        settings = settings_at(tmp_path, f"kafka://{kafka.address}/t?session.timeout.ms=6000")
        with closing(open_log(settings.broker)) as log:
            for event in events(6):  # each its own append: Tansu gives the beginning of the last batch as a topic's end
                log.append([event]).result(10)
            assert lag(settings) == Lag(6, 0, 0)
            with closing(open_history(settings)) as history:
                found = []
                while len(found) < 6:
                    found += log.poll(10, 1)
                history.add([row_of(UNNUMBERED, d.event) for d in found])
                assert lag(settings) == Lag(6, 3, 6)
                log.ack(found)
                until(lambda: lag(settings) == Lag(0, 3, 6))
        drain(settings)
        assert lag(settings).lake == 0


def test_nothing_to_measure_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no events yet in .*saas"):
        lag(settings_at(tmp_path))
