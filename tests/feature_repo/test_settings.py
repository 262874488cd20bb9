"""The settings: read from the environment and `.env`, checked as a whole, with a sentence for each mistake."""

import logging
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import setting_values
from feature_repo.environment import unknown, variable, variables
from feature_repo.log import event_log
from feature_repo.settings import SOURCE, Settings, SettingsError, variable_of
from feature_repo.settings_page import page

KEY = "k" * 32
NAMES = [variable_of(field) for field in Settings.model_fields]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no `.env`."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_need_nothing() -> None:
    found = Settings()
    assert (found.home, found.domain, found.online, found.log, found.history) == (
        SOURCE / "var", "saas", "sqlite", "sqlite", "sqlite"
    )  # fmt: skip
    assert found.lake == str(SOURCE / "var/saas/lake")
    assert found.tracking_uri == f"sqlite:///{SOURCE / 'var/mlflow.db'}"
    assert (found.rate, found.workers, found.server_keys, found.now) == (10_000, 1, (), None)


def test_argument_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        "FIRSTMILE_DOMAIN=of_file\nFIRSTMILE_RATE=5\nexport FIRSTMILE_RETENTION_DAYS='3'\nTOKEN=t\n"
    )
    monkeypatch.setenv("FIRSTMILE_DOMAIN", "of_environment")
    monkeypatch.setenv("FIRSTMILE_ONLINE", "")
    found = Settings()
    assert (found.domain, found.rate, found.retention_days, found.online) == ("of_environment", 5, 3, "sqlite")
    assert Settings(domain="of_argument").domain == "of_argument"
    assert (variable("TOKEN"), variable("FIRSTMILE_ONLINE"), variable("NOT_THERE")) == ("t", None, None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "RATE",
            "abc",
            "FIRSTMILE_RATE='abc': expected a number above 0; set it so, or unset it for the default (10000)",
        ),
        ("RATE", "nan", "FIRSTMILE_RATE='nan': expected a number above 0"),
        ("RATE", "inf", "FIRSTMILE_RATE='inf': expected a number above 0"),
        ("RATE", "0", "FIRSTMILE_RATE='0': expected a number above 0"),
        ("ONLINE", "mysql://root:secret@db/x", "FIRSTMILE_ONLINE='mysql://…@db/x': expected sqlite, or redis://host"),
        ("ONLINE", "redis://", "FIRSTMILE_ONLINE='redis://': expected sqlite, or redis://host"),
        ("HISTORY", "postgres://h", "FIRSTMILE_HISTORY='postgres://h': expected sqlite, or redis://host"),
        ("LOG", "nats://x", "FIRSTMILE_LOG='nats://x': expected sqlite, kafka://host:9092/topic"),
        ("LOG", "kafka", "FIRSTMILE_LOG='kafka': expected sqlite, kafka://host:9092/topic"),
        ("LAKE", "s3://bucket/lake", "FIRSTMILE_LAKE: s3:// cannot be opened: Install s3fs"),
        ("LAKE", "nothing://x", "FIRSTMILE_LAKE: nothing:// cannot be opened: Protocol not known"),
        ("NOW", "2014-10-29", "FIRSTMILE_NOW='2014-10-29': expected a time in RFC 3339 with a zone, such as"),
        ("NOW", "yesterday", "FIRSTMILE_NOW='yesterday': expected a time in RFC 3339 with a zone, such as"),
        ("RETENTION_DAYS", "0", "FIRSTMILE_RETENTION_DAYS='0': expected a whole number from 1"),
        ("WORKERS", "1.5", "FIRSTMILE_WORKERS='1.5': expected a whole number from 1"),
        ("WORKERS", "2", "FIRSTMILE_WORKERS=2 over embedded stores, which belong to one process: use one worker"),
        ("POLL_SECONDS", "-1", "FIRSTMILE_POLL_SECONDS='-1': expected a number above 0"),
        ("MODE", "fast", "FIRSTMILE_MODE='fast': expected registry or bundled"),
        ("SERVER_KEYS", f"{KEY},short", "FIRSTMILE_SERVER_KEYS: key 2 has 5 characters, expected 16 or more; make one"),
        ("WRITE_KEYS", "schlüssel" * 4, "FIRSTMILE_WRITE_KEYS: key 1 holds a character that no header can carry"),
        ("USER_HASH_SECRETS", "short", "FIRSTMILE_USER_HASH_SECRETS: key 1 has 5 characters, expected 16 or more"),
        ("BROWSER_KEYS", "short", "FIRSTMILE_BROWSER_KEYS: key 1 has 5 characters, expected 16 or more"),
        ("WRITE_KEYS", "two words " * 4, "FIRSTMILE_WRITE_KEYS: key 1 holds a character that no header can carry"),
        ("ORIGINS", "a.example", "FIRSTMILE_ORIGINS: expected origins such as https://example.org, or *; came 'a.ex"),
        ("ORIGINS", "https://a.example/path", "FIRSTMILE_ORIGINS: expected origins"),
        ("ORIGINS", "https://u@a.example?x", "FIRSTMILE_ORIGINS: expected origins"),
        ("ORIGINS", "ftp://a.example", "FIRSTMILE_ORIGINS: expected origins"),
        ("ORIGINS", "https://", "FIRSTMILE_ORIGINS: expected origins"),
    ],
)
def test_a_wrong_value_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(f"FIRSTMILE_{name}", value)
    with pytest.raises(SettingsError) as error:
        Settings()
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value) and "secret@" not in str(error.value)


@pytest.mark.parametrize("role", ["WRITE_KEYS", "BROWSER_KEYS"])
def test_a_key_has_one_role(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setenv("FIRSTMILE_SERVER_KEYS", f"{KEY[1:]}s,{KEY}")
    monkeypatch.setenv(f"FIRSTMILE_{role}", f"{KEY[1:]}w")
    Settings()
    monkeypatch.setenv(f"FIRSTMILE_{role}", f"{KEY[1:]}w,{KEY}")
    with pytest.raises(SettingsError) as error:
        Settings()
    told = str(error.value)
    assert told.startswith(f"FIRSTMILE_{role}: key 2 is one of FIRSTMILE_SERVER_KEYS too")
    assert KEY not in told and "\n" not in told


def test_everything_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_RATE", "abc")
    monkeypatch.setenv("FIRSTMILE_LOG", "nats://x")
    with pytest.raises(SettingsError) as error:
        Settings(domian="saas")
    told = str(error.value).split("\n")
    assert len(told) == 3 and "Settings has no field domian" in told


@given(st.text(min_size=1, max_size=30).filter(lambda t: "\0" not in t))
def test_no_text_ends_in_anything_but_a_sentence(text: str) -> None:
    for field in Settings.model_fields:
        try:
            Settings(**{field: text})
        except SettingsError as error:
            assert variable_of(field) in str(error)


def test_a_missing_client_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(setting_values.BROKERS, "kafka", "no_such_module")
    monkeypatch.setitem(setting_values.EXTRAS, "no_such_module", "kafka")
    with pytest.raises(
        SettingsError, match=r"FIRSTMILE_LOG: kafka:// needs the module .*pip install 'firstmile\[kafka"
    ):
        Settings(log="kafka://h:9092/t")


def test_every_broker_has_its_module() -> None:
    assert setting_values.BROKERS.keys() == event_log.BROKERS.keys()
    assert {s: setting_values.EXTRAS[m] for s, m in setting_values.BROKERS.items()} == event_log.BROKERS


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_SERVER_KEYS", f" {KEY} ,{KEY[::-1]}x,")
    monkeypatch.setenv("FIRSTMILE_WRITE_KEYS", " , ")
    monkeypatch.setenv("FIRSTMILE_ORIGINS", " https://A.example/, http://b.example:8080,*")
    found = Settings()
    assert found.server_keys == (KEY, f"{KEY}x") and found.write_keys == ()
    assert found.origins == ("https://a.example", "http://b.example:8080", "*")
    assert KEY not in repr(found)


def test_a_misspelt_variable_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FIRSTMILE_WRITEKEYS", KEY)
    Path(".env").write_text("FIRSTMILE_DOMIAN=oulad\n")
    with caplog.at_level(logging.WARNING, "feature_repo.environment"):
        Settings()
        Settings()
    assert [r.getMessage() for r in caplog.records] == [
        "FIRSTMILE_DOMIAN is not a setting of Firstmile and has no effect; did you mean FIRSTMILE_DOMAIN?",
        "FIRSTMILE_WRITEKEYS is not a setting of Firstmile and has no effect; did you mean FIRSTMILE_WRITE_KEYS?",
    ]


def test_what_is_no_setting_and_not_misspelt() -> None:
    ours = ["FIRSTMILE_TEST_REDIS", "FIRSTMILE_CI", "FIRSTMILE_HYPOTHESIS"]
    of_kubernetes = ["FIRSTMILE_SERVICE_HOST", "FIRSTMILE_PORT", "FIRSTMILE_PORT_3000_TCP_ADDR"]
    assert unknown([*ours, *of_kubernetes, "HOME", *NAMES], NAMES) == []
    assert unknown(["FIRSTMILE_XYZZY"], NAMES) == [("FIRSTMILE_XYZZY", None)]


def test_another_value_takes_along_what_follows_from_it(tmp_path: Path) -> None:
    first = Settings(home=tmp_path / "a", rate=5)
    second = first.replace(home=tmp_path / "b")
    assert (second.lake, second.rate) == (str(tmp_path / "b/saas/lake"), 5)
    assert second.tracking_uri == f"sqlite:///{tmp_path / 'b/mlflow.db'}"
    assert Settings(lake="memory://l").replace(home=tmp_path).lake == "memory://l"
    with pytest.raises(SettingsError):
        first.replace(rate=0)
    with pytest.raises(ValueError, match="frozen"):
        first.rate = 7
    assert len({first, second, pickle.loads(pickle.dumps(first))}) == 2


def test_another_process_has_the_same_settings_wherever_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("FIRSTMILE_POLICY=mine.yaml\nFIRSTMILE_LAKE=lake\nCRM_SECRET=s\n")
    monkeypatch.setenv("FIRSTMILE_RATE", "5")
    first = Settings(home="state", origins=("https://a.example",), now=datetime(2014, 10, 29, tzinfo=UTC))
    assert (first.policy, first.lake) == (tmp_path / "mine.yaml", str(tmp_path / "lake"))
    said = "import os; from feature_repo.settings import Settings; print(repr(Settings()), os.environ['CRM_SECRET'])"
    command, elsewhere = [sys.executable, "-c", said], tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = first.environment() | {"PYTHONPATH": str(SOURCE)}
    other = subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == f"{first!r} s"


def test_the_clock_starts_where_it_is_set() -> None:
    said = "from feature_repo.settings import now_us; print(now_us() - 1414540800000000)"
    environment = variables() | {"FIRSTMILE_NOW": "2014-10-29T00:00:00Z", "PYTHONPATH": str(SOURCE)}
    ran = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    assert 0 <= int(ran.stdout) < 600_000_000


def test_the_reference_page_is_current() -> None:
    file = SOURCE / "docs" / "settings.md"
    assert file.read_text() == page(), "python -m feature_repo settings > docs/settings.md"
    assert all(f"`{name}`" in page() for name in NAMES)


def test_only_the_environment_module_reads_our_variables() -> None:
    """Everybody else asks the settings; other programs' variables may be set where those are started."""
    wrong = [
        str(path.relative_to(SOURCE))
        for room in ("feature_repo", "training", "serving", "monitoring")
        for path in (SOURCE / room).rglob("*.py")
        if 'environ.get("FIRSTMILE' in (text := path.read_text()) or 'environ["FIRSTMILE' in text or "getenv(" in text
    ]
    assert wrong == []
