"""monitoring.distributed: where a run's broker and Redis are, and that its workers are at work before it goes on."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from feature_repo.settings import Settings
from monitoring import distributed
from monitoring.distributed import environment, figures, workers
from tests import brokers
from tests.e2e.processes import until


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port at which somebody answers, for every broker and Redis."""
    monkeypatch.delenv("FIRSTMILE_LAKE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, url in distributed.BROKERS.items():
            parts = urlsplit(url)
            there = url.replace(f":{parts.port}", f":{port}") if parts.port else url.replace(":4566", f":{port}")
            monkeypatch.setitem(distributed.BROKERS, name, there)
        monkeypatch.setattr(distributed, "REDIS", f"redis://127.0.0.1:{port}/0")
        yield port


QUICK = "session.timeout.ms=6000"


def plain(home: Path) -> Settings:
    return Settings(home=home, domain="saas", log="sqlite", history="sqlite", online="sqlite")


@pytest.mark.parametrize("broker", ["kafka", "rabbitmq", "kinesis"])
def test_each_state_folder_has_a_log_of_its_own(somebody: int, tmp_path: Path, broker: str) -> None:
    one = distributed.distributed(plain(tmp_path / "one"), broker, "redis")
    two = distributed.distributed(plain(tmp_path / "two"), broker, "redis")
    assert one.log != two.log and f":{somebody}" in one.log
    assert one == distributed.distributed(plain(tmp_path / "one"), broker, "redis")
    assert one.history == one.online == f"redis://127.0.0.1:{somebody}/0"
    scheme = {"rabbitmq": "amqp"}.get(broker, broker)
    assert figures(one) == {"log": scheme, "history": "redis", "online": "redis", "workers": distributed.WORKERS}
    found = environment(one)
    assert (found["FIRSTMILE_LOG"], found["FIRSTMILE_HISTORY"]) == (one.log, one.history)


def test_a_broker_without_redis_has_one_worker_over_the_folders_own_stores(somebody: int, tmp_path: Path) -> None:
    found = distributed.distributed(plain(tmp_path), "kafka", None)
    assert figures(found) == {"log": "kafka", "history": "sqlite", "online": "sqlite", "workers": 1}


def test_redis_without_a_broker_needs_no_worker(somebody: int, tmp_path: Path) -> None:
    found = distributed.distributed(plain(tmp_path), None, "redis")
    assert figures(found) == {"log": "sqlite", "history": "sqlite", "online": "redis", "workers": 0}


def test_what_the_environment_names_stays(somebody: int, tmp_path: Path) -> None:
    named = plain(tmp_path).replace(
        log=f"amqp://me:secret@127.0.0.1:{somebody}/?queue=mine",
        online=f"redis://127.0.0.1:{somebody}/3",
        history=f"redis://127.0.0.1:{somebody}/4",
    )
    assert distributed.distributed(named, "kafka", "redis") == named


@pytest.mark.parametrize(
    ("part", "url"),
    [
        ("log", "kafka://127.0.0.1:{port}/x"),
        ("log", "kinesis://s?endpoint=http://127.0.0.1:{port}"),
        ("online", "redis://127.0.0.1:{port}/0"),
    ],
)
def test_who_does_not_answer_is_named(tmp_path: Path, part: str, url: str) -> None:
    port = brokers.free_port()
    at, variable = url.format(port=port), f"FIRSTMILE_{part.upper()}"
    with pytest.raises(ValueError, match=rf"nobody answers at 127\.0\.0\.1:{port} .* by {variable}="):
        distributed.distributed(plain(tmp_path).replace(**{part: at}), None, None)


def test_kinesis_keeps_its_checkpoints_in_the_state_folder(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, log="kinesis://s").broker == f"kinesis://s?checkpoints={_quoted(tmp_path)}"
    url = "kinesis://s?region=eu-west-1"
    assert Settings(home=tmp_path, log=url).broker == f"{url}&checkpoints={_quoted(tmp_path)}"
    for said in (f"{url}&checkpoints=elsewhere.db", "kafka://h/t", "sqlite"):
        assert Settings(home=tmp_path, log=said).broker == said


def _quoted(home: Path) -> str:
    return str(home / "saas" / "kinesis.db").replace("/", "%2F")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Settings]:
    with brokers.kafka() as kafka:
        home = Settings(
            home=tmp_path, domain="saas", log=f"kafka://{kafka.address}/t?{QUICK}", history="sqlite", online="sqlite"
        )
        home.state.mkdir()
        yield home


def test_the_block_begins_when_the_workers_work(stores: Settings) -> None:
    from feature_repo.contract.events import Event
    from feature_repo.log.event_log import open_log
    from feature_repo.settings import now_us

    with workers(stores, environment(stores)):
        log = open_log(stores.broker)
        log.append([Event("track", "m", "u", None, now_us(), now_us(), "Clicked", {}, {}, {})]).result(10)
        until(lambda: log.lag() == 0, 5)
        log.close()


def test_workers_that_end_are_told_with_the_end_of_their_log(stores: Settings) -> None:
    wrong = stores.replace(domain="nothing-like-it")
    wrong.state.mkdir()
    told = r"the workers ended; .*stream\.log ends:\n(.|\n)*nothing-like-it"
    with pytest.raises(TimeoutError, match=told), workers(wrong, environment(wrong)):
        pass
