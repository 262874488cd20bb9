"""A Redis online store belongs to one lake."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from feature_repo import domains
from feature_repo.__main__ import main
from feature_repo.feature_store import store
from feature_repo.settings import Settings
from tests import brokers
from tests.feature_repo.test_store import rows_of


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with brokers.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.address


@pytest.fixture
def mine(address: str, tmp_path: Path) -> Settings:
    import redis

    url = f"redis://{address}/0"
    redis.Redis.from_url(url).flushdb()
    return Settings(home=tmp_path / "mine", domain="saas", online=url)


def test_another_lake_is_refused_with_what_to_do(mine: Settings, tmp_path: Path, address: str) -> None:
    theirs = mine.replace(home=tmp_path / "theirs")
    store.apply(theirs)
    store.apply(theirs)
    store.ensure_applied(theirs)
    for attempt in (store.apply, store.ensure_applied):
        with pytest.raises(ValueError, match="holds the rows of another lake") as told:
            attempt(mine)
        assert all(lake in str(told.value) for lake in (mine.lake, theirs.lake))
        assert f"FIRSTMILE_ONLINE=redis://{address}/1" in str(told.value)
        assert "python -m feature_repo apply --domain saas --take-over" in str(told.value)
    store.apply(mine.replace(online=f"redis://{address}/1"))
    store.apply(mine.replace(domain="oulad"))


def test_a_password_is_not_shown(mine: Settings, tmp_path: Path, address: str) -> None:
    store.apply(mine.replace(home=tmp_path / "theirs", online=f"redis://default:@{address}/0"))
    with pytest.raises(ValueError, match="another lake") as told:
        store.apply(mine)
    assert "default" not in str(told.value)


def test_taking_over_empties_it(mine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain, theirs = domains.load("saas"), mine.replace(home=tmp_path / "theirs")
    store.apply(theirs)
    old = store.feature_store(theirs, lineage=False)
    store.write_online(old, domain, rows_of(domain, ["u"]))
    mine.state.mkdir(parents=True)
    (mine.state / "materialize.json").write_text("{}")
    monkeypatch.setenv("FIRSTMILE_HOME", str(mine.home))
    monkeypatch.setenv("FIRSTMILE_ONLINE", mine.online)
    refused = CliRunner().invoke(main, ["apply"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: ") and "Traceback" not in refused.output
    done = CliRunner().invoke(main, ["apply", "--take-over"])
    assert done.exit_code == 0, done.output
    assert store.read_online(store.feature_store(mine, lineage=False), domain, ["u"]) == [None]
    assert not (mine.state / "materialize.json").exists()
    with pytest.raises(ValueError, match="another lake"):
        store.ensure_applied(theirs)


def test_a_redis_that_is_down_does_not_keep_a_service_from_starting(
    mine: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply(mine)
    store.ensure_applied(mine.replace(online=f"redis://127.0.0.1:{brokers.free_port()}/0"))
    assert "not known whether redis://127.0.0.1" in caplog.text
