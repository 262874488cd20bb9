"""monitoring.rule_segments: the journal that a service is writing, in figures."""

import pytest

from feature_repo import domains
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY
from monitoring.rule_segments import measured
from serving.segments.journal import FILE, Change, Entry, Journal

AT, SAAS = 1_780_000_000_000_000, domains.load("saas")


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    file = tmp_path / "rules.yaml"
    file.write_text("domain: saas\nlimits: {smallest_share: 0.5}\nsegments:\n  keen: {why: w, when: sessions > 5}\n")
    monkeypatch.setenv("FIRSTMILE_RULES", str(file))
    return Settings(home=tmp_path, domain="saas")


def test_without_a_journal_there_is_nothing_to_say_and_none_is_made(settings: Settings) -> None:
    assert measured(settings, SAAS, AT) is None
    assert not (settings.state / FILE).exists()


def test_a_running_service_is_read_along(settings: Settings) -> None:
    settings.state.mkdir(parents=True, exist_ok=True)
    journal = Journal(settings.state / FILE)
    people = {f"u{n}": Entry(b"", None) for n in range(4)}
    journal.write(people, [Change("u1", "rules", "keen", True, AT - 2 * DAY, "because", "v1", AT)])
    found = measured(settings, SAAS, AT)
    journal.write({}, [Change("u2", "rules", "keen", True, AT - DAY, "because", "v1", AT)])
    assert found is not None and (found.people, found.shares, found.flips_per_day) == (4, {"keen": 0.25}, {"keen": 0.5})
    assert [e.split(":")[0] for e in found.exceeded] == ["keen"]
    assert measured(settings, SAAS, AT).exceeded == ()
    journal.close()
    assert measured(settings, SAAS, AT).shares == {"keen": 0.5}


def test_a_file_that_is_no_journal_is_said_to_be_unread(settings: Settings) -> None:
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / FILE).write_bytes(b"no database at all" * 99)
    assert "not a database" in (measured(settings, SAAS, AT).unread or "")
