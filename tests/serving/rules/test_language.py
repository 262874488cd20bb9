"""Each form of a condition: what it is read as, and for whom it holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feature_repo import domains
from feature_repo.vocabulary import DAY, HOUR, SECOND, Count, Feature, LastTime, where
from serving.rules import Facts, Rules, RulesError, State, for_domain, load, location, step
from serving.rules.conditions import All, Compare, Condition, Elapsed, Engagement, In, Null, OneOf
from serving.rules.limits import Limits

SAAS = domains.load("saas")
NOW = 1_767_225_600_000_000


def read(folder: Path, text: str) -> Rules:
    """The rules of a file with this text."""
    file = folder / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, SAAS)


def rule(folder: Path, condition: str) -> Rules:
    """One segment with this condition, and one more to speak of."""
    return read(
        folder,
        f"domain: saas\nsegments:\n  it:\n    why: w\n    when: {condition}\n  other: {{why: w, when: pages > 3}}\n",
    )


def enter(folder: Path, condition: str) -> Condition:
    """What a condition is read as."""
    return rule(folder, condition).declared["it"].enter


def holds(folder: Path, condition: str, **values: Any) -> bool:
    """Whether it holds for somebody; everything that is not named is null."""
    facts = Facts(dict.fromkeys(SAAS.feature_types) | values, NOW)
    return "it" in step(rule(folder, condition), State(), facts).held


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ("sessions > 5", [6], [5, None]),
        ("sessions >= 5", [5], [4, None]),
        ("sessions < 5", [4], [5, None]),
        ("sessions <= 5", [5], [6, None]),
        ("sessions == 5", [5], [4, 6, None]),
        ("sessions is 5", [5], [4, 6, None]),
        ("sessions != 5", [4], [5, None]),
        ("sessions is not 5", [4], [5, None]),
        ("sessions in 2, 5", [2, 5], [3, None]),
        ("'sessions in [2, 5]'", [2, 5], [3, None]),
        ("sessions not in 2, 5", [3], [2, 5, None]),
        ("sessions>5", [6], [5]),
        ("sessions > 5.5", [6], [5]),
        ("{not: sessions > 5}", [5, None], [6]),
        ("{not: 'sessions in 2, 5'}", [3, None], [2, 5]),
        ("{all: [sessions > 2, sessions < 5]}", [3, 4], [2, 5, None]),
        ("{all: [sessions > 2, sessions < 5, sessions != 4]}", [3], [2, 4, 5, None]),
        ("{any: [sessions < 2, sessions > 5]}", [1, 6], [2, 5, None]),
        ("{not: {any: [sessions < 2, {not: sessions < 5}]}}", [2, 4], [1, 5]),
    ],
)
def test_numbers(tmp_path: Path, condition: str, yes: list[Any], no: list[Any]) -> None:
    assert [v for v in [*yes, *no] if holds(tmp_path, condition, sessions=v)] == yes


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ("role == designer", ["designer"], ["founder", None]),
        ("role is designer", ["designer"], ["founder", None]),
        ("role != designer", ["founder"], ["designer", None]),
        ("{not: role == designer}", ["founder", None], ["designer"]),
        ("role in designer, founder", ["designer", "founder"], ["x", None]),
        ("role not in designer, founder", ["x"], ["designer", "founder", None]),
        ("role is null", [None], ["designer"]),
        ("role is not null", ["designer"], [None]),
        ("role is head of design", ["head of design"], ["head"]),
        ("role == '10'", ["10"], ["9", None]),
        ("{trait: role is designer}", ["designer"], ["founder", None]),
        ("{trait: role is not null}", ["founder"], [None]),
        ("{trait: role in designer}", ["designer"], ["founder", None]),
    ],
)
def test_texts_and_traits(tmp_path: Path, condition: str, yes: list[Any], no: list[Any]) -> None:
    assert [v for v in [*yes, *no] if holds(tmp_path, condition, role=v)] == yes


@pytest.mark.parametrize(
    ("condition", "ago", "expected"),
    [
        ("since_last_event > 3 days", 3 * DAY + 1, True),
        ("since_last_event > 3 days", 3 * DAY, False),
        ("since_last_event >= 3 days", 3 * DAY, True),
        ("since_last_event < 3 days", 3 * DAY, False),
        ("since_last_event < 3 days", 3 * DAY - 1, True),
        ("since_last_event <= 90", 90 * SECOND, True),
        ("since_last_event <= 90", 90 * SECOND + 1, False),
        ("since_last_event > 0.5", SECOND // 2, False),
        ("since_last_event < 3 days", None, False),
        ("since_last_event is null", None, True),
        ("since_last_event is not null", 0, True),
    ],
)
def test_time_that_passes(tmp_path: Path, condition: str, ago: int | None, expected: bool) -> None:
    seen = None if ago is None else NOW - ago
    assert holds(tmp_path, condition, last_event_us=seen) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{event: Project Published}", Compare("activations", ">=", 1)),
        ("{event: File Uploaded, at least: 3}", Compare("uploads", ">=", 3)),
        ("{trait: plan is pro}", Compare("plan", "==", "pro")),
        ("session_time > 30 minutes", Compare("session_time", ">", 1_800_000)),
        ("since_signup is null", Null("signed_up_us", True)),
        ("{segment: other}", In("other")),
        ("{segment: racing}", Engagement("racing")),
        ("{segment: activated}", Engagement("activated")),
        ("plan in free, pro", OneOf("plan", ("free", "pro"))),
        ("{event: Signed Up}", Null("signed_up_us", False)),
    ],
)
def test_what_is_asked_is_found_in_the_catalogue(tmp_path: Path, condition: str, expected: Condition) -> None:
    assert enter(tmp_path, condition) == expected


def test_an_event_within_a_time_is_a_count_or_the_time_of_the_last_one(tmp_path: Path) -> None:
    text = "domain: saas\nsegments:\n  it: {why: w, when: {event: Clicked, at least: 2, within: 7 days}}\n"
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    wider = replace(
        SAAS, features=(*SAAS.features, Feature("clicks_7d", Count(where(name="Clicked"), window=7 * DAY), ""))
    )
    assert load(file, wider).declared["it"].enter == Compare("clicks_7d", ">=", 2)
    with pytest.raises(RulesError, match=r'declare Feature\("clicked_7_days", Count\(where\(name="Clicked"\), window='):
        load(file, SAAS)


def test_the_time_of_the_last_event_answers_for_once_within(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("domain: saas\nsegments:\n  it: {why: w, when: {event: Clicked, within: 2 hours}}\n")
    wider = replace(SAAS, features=(*SAAS.features, Feature("clicked_us", LastTime(where(name="Clicked")), "")))
    rules = load(file, wider)
    assert rules.declared["it"].enter == Elapsed("clicked_us", "clicked_us", "<", 2 * HOUR)
    assert step(rules, State(), Facts({"clicked_us": NOW}, NOW + 2 * HOUR - 1)).held == ("it",)
    assert step(rules, State(), Facts({"clicked_us": NOW}, NOW + 2 * HOUR)).held == ()


def test_everything_that_a_segment_may_say(tmp_path: Path) -> None:
    rules = read(
        tmp_path,
        "domain: saas\n"
        "limits: {smallest_share: 0.1, most_segments: 3, most_overlap: 0.5, most_flips_per_day: 4}\n"
        "segments:\n"
        "  b: {why: second, enter: clicks > 3, exit: never, group: g, priority: 1}\n"
        "  a: {why: first, enter: {all: [pages > 1, errors > 1]}, exit: pages == 0, stay_at_least: 1 hour,\n"
        "      expires_after: 2 days, group: g, priority: 2, excludes: [c]}\n"
        "  c: {why: third, when: uploads > 1, excludes: b}\n",
    )
    assert rules.segments == ("a", "b", "c")
    first = rules.declared["a"]
    assert (first.stay_us, first.expires_us, first.excludes) == (HOUR, 2 * DAY, ("c",))
    assert first.enter == All((Compare("pages", ">", 1), Compare("errors", ">", 1)))
    assert {p.segment.name: p.excluders for p in rules.plans} == {"a": (), "b": ("a", "c"), "c": ("a",)}
    assert rules.needs == ("clicks", "errors", "pages", "uploads")
    assert rules.limits == Limits(0.1, 3, 0.5, 4)


def test_the_version_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    text = "domain: saas\nsegments:\n  a: {why: w, when: sessions > 5}\n  b: {why: w, when: clicks > 5}\n"
    first = read(tmp_path, text)
    turned = "# words\ndomain: saas\nsegments:\n  b: {why: w, when: clicks  >  5}\n  a: {why: w, enter: sessions > 5}\n"
    assert read(tmp_path, turned).version == first.version
    assert read(tmp_path, text + "limits: {most_segments: 2}\n").version == first.version
    assert read(tmp_path, text.replace("sessions > 5", "sessions > 6")).version != first.version
    assert read(tmp_path, text.replace("a: {why: w", "a: {why: v")).version != first.version
    assert len(first.version) == 12
    again = Rules.from_content(first.content)
    assert (again.version, again.content, again.why("a")) == (first.version, first.content, "w")


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_has_rules_that_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTMILE_RULES", raising=False)
    domain = domains.load(name)
    assert location(domain).is_file()
    rules = for_domain(domain)
    assert len(rules.segments) >= 5
    assert not rules.uses_score
    assert set(rules.needs) <= set(domain.feature_types)
    nobody = step(rules, State(), Facts(dict.fromkeys(domain.feature_types), NOW))
    assert nobody.held == ()


def test_the_environment_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("domain: saas\nsegments:\n  mine: {why: w, when: sessions > 5}\n")
    monkeypatch.setenv("FIRSTMILE_RULES", str(file))
    assert for_domain(SAAS).segments == ("mine",)
    monkeypatch.setenv("FIRSTMILE_RULES", str(tmp_path / "none.yaml"))
    with pytest.raises(RulesError, match="cannot be read"):
        for_domain(SAAS)


def test_a_domain_without_a_file_has_no_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.rules import reading

    monkeypatch.delenv("FIRSTMILE_RULES", raising=False)
    monkeypatch.setattr(reading, "FOLDER", tmp_path)
    rules = for_domain(SAAS)
    assert (rules.segments, rules.needs) == ((), ())
    assert step(rules, State(), Facts({}, NOW)).held == ()
