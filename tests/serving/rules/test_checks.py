"""Everything that can be wrong in a file: which line, what, and what to do."""

from dataclasses import replace
from pathlib import Path

import pytest

from feature_repo import domains
from serving.rules import RulesError, load

SAAS = domains.load("saas")
GOOD = """\
domain: saas
segments:
  a:
    why: w
    when: sessions > 5
  b:
    why: w
    enter: clicks >= 9
    exit: clicks < 5
    stay_at_least: 1 hour
    expires_after: 2 hours
    group: g
    priority: 1
  c:
    why: w
    enter: {all: [uploads > 3, role is designer]}
    group: g
    priority: 2
"""


def refused(folder: Path, text: str) -> list[str]:
    """The findings, without the file's name."""
    file = folder / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RulesError) as found:
        load(file, SAAS)
    lines = str(found.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:") for line in lines]


def test_the_good_file_is_good(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD)
    assert load(file, SAAS).segments == ("c", "b", "a")


@pytest.mark.parametrize(
    ("old", "new", "line", "wrong", "todo"),
    [
        ("sessions > 5", "country is DE", 5, "a reads country, which domain saas declares sensitive", "something else"),
        ("sessions > 5", "{any: [clicks > 1, not: country is DE]}", 5, "a reads country, which", "something else"),
        ("exit: clicks < 5", "exit: country is null", 9, "b reads country, which", "something else"),
        ("sessions > 5", "session > 5", 5, "feature 'session' is not known", "did you mean 'sessions'?"),
        ("sessions > 5", "zzz > 5", 5, "feature 'zzz' is not known", "known are sessions"),
        ("sessions > 5", "sessions > many", 5, "sessions is a number, and 'many' is none", "compare it with a number"),
        ("sessions > 5", "sessions = 5", 5, "'sessions = 5', which is no condition", "such as `sessions > 5`"),
        ("sessions > 5", "sessions", 5, "'sessions', which is no condition", "such as `sessions > 5`"),
        ("sessions > 5", "[sessions > 5]", 5, "segments.a.when is a list", "say `all:` or `any:`"),
        ("sessions > 5", "5", 5, "segments.a.when is '5'", "write text"),
        ("sessions > 5", "{all: []}", 5, "segments.a.when.all is empty", "list at least one"),
        ("sessions > 5", "{all: sessions > 5}", 5, "segments.a.when.all is one value", "write a list"),
        ("sessions > 5", "{al: [sessions > 5]}", 5, "unknown condition 'al'", "did you mean 'all'?"),
        ("sessions > 5", "{all: [sessions > 5], not: clicks > 1}", 5, "has 2 conditions", "give one of all, any"),
        ("sessions > 5", "{within: 2 days}", 5, "has 0 conditions", "give one of all, any"),
        ("sessions > 5", "{segment: b, within: 2 days}", 5, "counts something that is no event", "for `event:`"),
        ("sessions > 5", "{segment: bb}", 5, "segment 'bb' is not known", "did you mean 'b'?"),
        ("sessions > 5", "{segment: raceing}", 5, "segment 'raceing' is not known", "did you mean 'racing'?"),
        ("sessions > 5", "role > 5", 5, "role is text, and `>` orders numbers", "use ==, != or in"),
        ("sessions > 5", "role == 5", 5, "role is text, and 5 is a number", 'write "5" in quotes'),
        ("sessions > 5", "role in designer, 5", 5, "role is text, and 5 is a number", 'write "5" in quotes'),
        ("sessions > 5", "since_signup == 1 day", 5, "passes any value within a microsecond", "use > >= < or <="),
        ("sessions > 5", "since_signup in 5, 6", 5, "passes any value within a microsecond", "use > >= < or <="),
        ("sessions > 5", "since_signup > soon", 5, "since_signup is compared with 'soon'", "such as `3 days`"),
        ("sessions > 5", "score > high", 5, "score is compared with 'high'", "a number from 0 to 1"),
        ("sessions > 5", "time in x > 1 hour", 5, "'x' is no rule segment", "known are a, b, c"),
        ("sessions > 5", "time in racing > 1 hour", 5, "the time in an engagement segment is not kept", "known are"),
        ("sessions > 5", "time in b == 1 hour", 5, "a time passes any value", "use > >= < or <="),
        ("sessions > 5", "time in b > 1", 5, "the time in b is compared with '1'", "such as `2 hours`"),
        ("sessions > 5", "{trait: rol is x}", 5, "trait 'rol' is not known", "did you mean 'role'?"),
        ("sessions > 5", "{event: Project Publish}", 5, "is not known", "did you mean 'Project Published'?"),
        ("sessions > 5", "{event: Clicked, at least: 0}", 5, "at least is 0", "write a number from 1"),
        ("sessions > 5", "{event: Clicked, within: soon}", 5, "within is 'soon'", "write a duration"),
        (
            "sessions > 5",
            "{event: Clicked, within: 1 day}",
            5,
            "no feature counts event 'Clicked' like that",
            'declare Feature("clicked_1_day", Count(where(name="Clicked"), window=DAY), "...")',
        ),
        (
            "sessions > 5",
            "{event: Element Shown, at least: 2}",
            5,
            "no feature counts event 'Element Shown'",
            'declare Feature("element_shown", Count(where(name="Element Shown")), "...")',
        ),
        ("    why: w\n    when", "    when", 4, "key 'why' is missing in segments.a", "add it"),
        ("when: sessions > 5", "whem: sessions > 5", 5, "unknown key 'whem'", "did you mean 'when'?"),
        ("    when: sessions > 5\n", "", 4, "has neither `when` nor `enter`", "say in one of them"),
        ("when: sessions > 5", "when: sessions > 5\n    enter: clicks > 1", 4, "has both `when` and `enter`", "one of"),
        ("when: sessions > 5", "when: sessions > 5\n    exit: sessions < 2", 6, "has `when` and `exit`", "call it `en"),
        ("priority: 1", "priority: high", 13, "segments.b.priority is 'high'", "write a number"),
        ("stay_at_least: 1 hour", "stay_at_least: soon", 10, "stay_at_least is 'soon'", "write a duration"),
        ("expires_after: 2 hours", "expires_after: 5 minutes", 11, "before its minimum stay ends", "at least 1 hour"),
        ("priority: 2", "priority: 1", 18, "c and b of group g both have priority 1", "a higher one"),
        ("priority: 2", "priority: 2\n    excludes: x", 19, "c excludes 'x', which is no other rule", "known are a, b"),
        ("priority: 2", "priority: 2\n    excludes: c", 19, "c excludes 'c', which is no other rule", "known are a, b"),
        ("  a:\n", "  racing:\n", 4, "racing is a segment of domain saas already", "call it otherwise"),
        ("  a:\n", "  activated:\n", 4, "activated is a segment of domain saas already", "call it otherwise"),
        ("  a:\n", "  a b:\n", 4, "segment 'a b' is no plain name", "use letters"),
        ("domain: saas", "domain: oulad", 1, "these rules are for domain 'oulad'", "use the rules of that domain"),
        ("segments:", "limits: {smallest: 1}\nsegments:", 2, "unknown key 'smallest'", "did you mean 'smallest_share'"),
        ("segments:", "limits: {most_overlap: 2}\nsegments:", 2, "most_overlap is 2", "from 0 to 1"),
        ("segments:", "limits: {most_segments: 2.5}\nsegments:", 2, "most_segments is 2.5", "whole number"),
        (
            "segments:",
            "limits: {most_segments: 2}\nsegments:",
            2,
            "3 segments are declared, and most",
            "merge or remove",
        ),
        # what can never be
        ("sessions > 5", "{all: [sessions > 5, sessions < 3]}", 5, "sessions > 5 and sessions < 3 never holds", "mend"),
        ("sessions > 5", "{all: [sessions > 5, sessions < 6]}", 5, "sessions < 6 never holds", "mend"),
        ("sessions > 5", "sessions < 0", 5, "sessions < 0 never holds", "mend the limits"),
        ("sessions > 5", "sessions == 2.5", 5, "sessions == 2.5 never holds", "mend the limits"),
        ("sessions > 5", "sessions is null", 5, "sessions is null never holds", "mend the limits"),
        ("sessions > 5", "score > 1", 5, "score > 1 never holds", "mend the limits"),
        ("sessions > 5", "{any: [clicks > 1, errors < 0]}", 5, "errors < 0 never holds", "mend the limits"),
        ("sessions > 5", "{all: [role is x, role is y]}", 5, "role == x and role == y never holds", "mend"),
        ("sessions > 5", "{all: [role is x, role is null]}", 5, "role is null never holds", "mend"),
        ("sessions > 5", "{all: [{segment: racing}, {segment: at_risk}]}", 5, "never holds", "mend"),
        ("sessions > 5", "{all: [{segment: b}, {segment: c}]}", 5, "segment b and segment c never holds", "mend"),
        ("sessions > 5", "{all: [{segment: b}, {not: {segment: b}}]}", 5, "never holds", "mend"),
        ("sessions > 5", "{all: [since_signup > 2 days, since_signup < 1 day]}", 5, "never holds", "mend"),
        ("sessions > 5", "{all: [since_signup > 2 days, signed_up_us is null]}", 5, "never holds", "mend"),
        ("exit: clicks < 5", "exit: clicks < 0", 9, "b can never be left as written", "say `exit: never`"),
        ("exit: clicks < 5", "exit: clicks > 5", 9, "b has an exit that holds whenever its enter does", "thresholds"),
        ("exit: clicks < 5", "exit: clicks >= 9", 9, "b has an exit that holds whenever its enter does", "thresholds"),
        ("{all: [uploads > 3, role is designer]}", "clicks >= 3", 8, "c comes first and holds whenever", "higher prio"),
        # who depends on whom
        ("sessions > 5", "{segment: a}", 5, "a reads itself", "use `stay_at_least` or `expires_after`"),
        ("sessions > 5", "time in a > 1 hour", 5, "a reads itself", "use `stay_at_least` or `expires_after`"),
    ],
)
def test_errors_name_line_and_remedy(tmp_path: Path, old: str, new: str, line: int, wrong: str, todo: str) -> None:
    assert old in GOOD
    findings = refused(tmp_path, GOOD.replace(old, new, 1))
    message = next((m for m in findings if wrong in m), None)
    assert message is not None, findings
    assert message.startswith(f"{line}: ")
    assert todo in message


SEGMENTS = "domain: saas\nsegments:\n"


def test_two_that_exclude_each_other(tmp_path: Path) -> None:
    text = "  a: {why: w, when: clicks > 1, excludes: b}\n  b: {why: w, when: pages > 1, excludes: [a]}\n"
    assert refused(tmp_path, SEGMENTS + text) == [
        "4: b and a exclude each other; let one exclude the other, or put both in one group with priorities"
    ]


def test_each_cycle_is_told_once(tmp_path: Path) -> None:
    text = (
        "  a: {why: w, when: {segment: b}}\n"
        "  b: {why: w, when: time in c > 1 hour}\n"
        "  c: {why: w, when: {segment: a}}\n"
        "  d: {why: w, when: {segment: f}}\n"
        "  e: {why: w, when: pages > 1, excludes: f}\n"
        "  f: {why: w, when: clicks > 1}\n"
        "  g: {why: w, when: {not: {segment: f}}, excludes: e}\n"
    )
    found = refused(tmp_path, SEGMENTS + text)
    assert len([f for f in found if "depends on itself" in f]) == len(found) == 2
    assert {name for f in found for name in "abcdefg" if f" {name} " in f} == {"a", "b", "c", "e", "f", "g"}
    assert all("take one of the references out" in f for f in found)


def test_a_segment_cannot_ask_for_what_excludes_it(tmp_path: Path) -> None:
    text = "  a: {why: w, when: clicks > 1, excludes: b}\n  b: {why: w, when: {all: [pages > 1, {segment: a}]}}\n"
    assert refused(tmp_path, SEGMENTS + text) == [
        "4: b asks for a segment that excludes it; take the reference or the exclusion out"
    ]


@pytest.mark.parametrize("above", ["expires_after: 2 days", "exit: clicks == 1", "exit: errors > 3"])
def test_what_is_above_has_to_hold_always_to_shut_another_out(tmp_path: Path, above: str) -> None:
    text = (
        f"  a: {{why: w, enter: clicks > 1, {above}, group: g, priority: 2}}\n"
        "  b: {why: w, when: {all: [clicks > 3, errors > 1]}, group: g, priority: 1}\n"
    )
    file = tmp_path / "rules.yaml"
    file.write_text(SEGMENTS + text)
    if above == "exit: clicks == 1":
        assert "b can never hold: a comes first" in refused(tmp_path, SEGMENTS + text)[0]
    else:
        assert load(file, SAAS).segments == ("a", "b")


def test_what_shuts_another_out_may_itself_be_shut_out(tmp_path: Path) -> None:
    text = "  a: {why: w, when: clicks > 1, excludes: b}\n  b: {why: w, when: clicks > 3}\n"
    assert "b can never hold: a comes first" in refused(tmp_path, SEGMENTS + text)[0]
    file = tmp_path / "rules.yaml"
    file.write_text(SEGMENTS + text + "  c: {why: w, when: errors > 1, excludes: a}\n")
    assert load(file, SAAS).segments == ("a", "b", "c")


def test_all_findings_are_told_at_once_in_order_of_lines(tmp_path: Path) -> None:
    text = GOOD.replace("sessions > 5", "session > 5").replace("1 hour", "soon").replace("role is", "rol is")
    assert [f.split(":")[0] for f in refused(tmp_path, text)] == ["5", "10", "16"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "words\n", "domain: [\n"])
def test_what_is_no_rules_file(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)


def test_more_alternatives_than_are_looked_at_count_as_possible(tmp_path: Path) -> None:
    names = [name for name, kind in SAAS.feature_types.items() if kind == "int64"][:18]
    pairs = [f"{{any: [{a} > 1, {b} > 1]}}" for a, b in zip(names[::2], names[1::2], strict=True)]
    file = tmp_path / "rules.yaml"
    file.write_text(f"{SEGMENTS}  a: {{why: w, when: {{all: [{', '.join(pairs)}, clicks < 0]}}}}\n")
    assert load(file, SAAS).segments == ("a",)
    assert (
        "never holds" in refused(tmp_path, f"{SEGMENTS}  a: {{why: w, when: {{all: [{pairs[0]}, clicks < 0]}}}}\n")[0]
    )


def test_the_time_since_something_sensitive_is_sensitive(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD.replace("sessions > 5", "since_signup > 1 hour"))
    assert load(file, SAAS).segments
    for barred in (("since_signup",), ("since_signup", "signed_up_us")):
        with pytest.raises(RulesError, match=r"yaml:5: a reads .*since_signup, which"):
            load(file, replace(SAAS, sensitive=barred))


@pytest.mark.parametrize("domain", ["saas", "oulad"])
def test_no_feature_that_a_shipped_domain_declares_sensitive_can_be_asked_for(domain: str, tmp_path: Path) -> None:
    declared = domains.load(domain)
    assert declared.sensitive
    for name in declared.sensitive:
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"domain: {domain}\nsegments:\n  a:\n    why: w\n    when: {name} is not null\n")
        with pytest.raises(RulesError, match=f"yaml:5: a reads {name}, which domain {domain} declares sensitive"):
            load(file, declared)
