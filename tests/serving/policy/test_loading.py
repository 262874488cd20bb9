from pathlib import Path

import pytest

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.vocabulary import DAY, HOUR
from serving import policy, rules
from serving.policy import Boundaries, Element, Limits, Policy, PolicyError, loading

GOOD = """\
domain: saas
elements:
  tour:
    kind: guided_tour
    title: Three steps
    for: [default, hesitating, exploring]
    why: everybody starts here
  help:
    kind: help_offer
    title: A person
    for: [at_risk, stuck]
    why: {at_risk: they are leaving, stuck: they are stuck}
    priority: 80
    after: [tour]
    excludes: [tour]
    limits: {per_session: 1, per_day: 2, ever: 5, cool_down: 2 hours}
    dismissal: {again_after: 7 days}
    repeats: true
  short:
    kind: skip_step
    title: Leave the tour out
    for: [hesitating]
    why: they look around
    skips: [tour]
    dismissal: never_again
nothing_for: {racing: nothing in the way, activated: done}
boundaries: {at_once: 2, per_session: 5, per_day: 10, session_gap: 1 hour}
order: [personas, rules, engagement]
"""
RULES, PERSONAS = ("stuck",), ("builders",)


@pytest.fixture(scope="module")
def saas() -> Domain:
    return domains.load("saas")


def written(folder: Path, text: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(folder: Path, text: str, domain: Domain) -> Policy:
    return policy.load(written(folder, text), domain, RULES, PERSONAS)


def test_a_file_is_read_as_it_says(tmp_path: Path, saas: Domain) -> None:
    read = loaded(tmp_path, GOOD, saas)
    tour, help_, short = read.elements
    assert tour == Element(
        "tour",
        "guided_tour",
        "Three steps",
        ("default", "hesitating", "exploring"),
        dict.fromkeys(("default", "hesitating", "exploring"), "everybody starts here"),
    )
    assert help_.why == {"at_risk": "they are leaving", "stuck": "they are stuck"}
    assert (help_.priority, help_.after, help_.excludes, help_.repeats) == (80, ("tour",), ("tour",), True)
    assert (help_.limits, help_.again_after_us) == (Limits(1, 2, 5, 2 * HOUR), 7 * DAY)
    assert (short.skips, short.again_after_us) == (("tour",), None)
    assert read.nothing_for == {"racing": "nothing in the way", "activated": "done"}
    assert read.boundaries == Boundaries(2, 5, 10, HOUR)
    assert read.order == ("personas", "rules", "engagement")


def test_segments_compose_in_the_order_of_the_file(tmp_path: Path, saas: Domain) -> None:
    mine = {"rules": ["stuck", "at_risk"], "engagement": ["at_risk"], "personas": ["builders"]}
    assert loaded(tmp_path, GOOD, saas).compose(mine) == ("builders", "stuck", "at_risk")
    assert policy.plain(saas).compose(mine) == ("stuck", "at_risk", "builders")
    assert policy.plain(saas).compose({}) == ()


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_has_a_policy_that_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTMILE_POLICY", raising=False)
    domain = domains.load(name)
    assert policy.location(domain).is_file()
    asked = rules.for_domain(domain).segments
    found = set(policy.for_domain(domain, asked).segments)
    assert {"default", *policy.segment_names(domain)} <= found <= {"default", *policy.segment_names(domain), *asked}


TOP = "domain: saas\n"
WRONG = [
    # the parts
    ("for: [at_risk, stuck]", "for: [at_rsk, stuck]", 11, "unknown segment 'at_rsk'", "did you mean 'at_risk'?"),
    ("for: [at_risk, stuck]", "for: [at_risk, at_risk]", 11, "segment 'at_risk' is named twice", "name it once"),
    ("for: [at_risk, stuck]", "for: at_risk", 11, "elements.help.for is one value", "write a list"),
    ("for: [at_risk, stuck]", "for: [1]", 11, "elements.help.for[0] is '1'", "write text"),
    ("kind: help_offer", "kind: halp_offer", 9, "elements.help.kind is 'halp_offer'", "did you mean 'help_offer'?"),
    ("    kind: help_offer\n", "", 9, "key 'kind' is missing in elements.help", "add it"),
    ("after: [tour]", "after: [tuor]", 14, "unknown element 'tuor'", "did you mean 'tour'?"),
    ("excludes: [tour]", "excludes: [zzz]", 15, "unknown element 'zzz'", "known are tour, help, short"),
    ("skips: [tour]", "skips: [tours]", 24, "unknown element 'tours'", "did you mean 'tour'?"),
    ("priority: 80", "priority: high", 13, "elements.help.priority is 'high'", "write a number"),
    ("repeats: true", "repeats: 1", 18, "elements.help.repeats is 1", "write true or false"),
    (", stuck: they are stuck}", "}", 12, "segment 'stuck' is missing in elements.help.why", "add it"),
    (", stuck: they are stuck}", ", stuk: x}", 12, "unknown segment 'stuk'", "did you mean 'stuck'?"),
    ("why: they look around", "why: yes", 23, "elements.short.why is 'yes'", "in quotes"),
    ("why: they look around", "why: ''", 23, "elements.short.why is empty", "write some text"),
    ("per_day: 2,", "per_day: 0,", 16, "elements.help.limits.per_day is 0", "from 1"),
    ("per_day: 2,", "per_dya: 2,", 16, "unknown key 'per_dya'", "did you mean 'per_day'?"),
    ("cool_down: 2 hours", "cool_down: 2h", 16, "cool_down is '2h'", "such as `30 minutes`"),
    ("again_after: 7 days", "again_after: soon", 17, "again_after is 'soon'", "such as `30 minutes`"),
    ("dismissal: never_again", "dismissal: never", 25, "dismissal is 'never'", "did you mean 'never_again'?"),
    ("{racing: nothing", "{raceing: nothing", 26, "unknown segment 'raceing'", "did you mean 'racing'?"),
    ("at_once: 2", "at_once: 0", 27, "boundaries.at_once is 0", "from 1"),
    ("session_gap: 1 hour", "session_gap: 2 days", 27, "a session_gap of more than a day", "at most `1 day`"),
    ("order: [", "sensitive: [country]\norder: [", 28, "unknown key 'sensitive'", "known are"),
    ("order: [personas, rules, ", "order: [", 28, "order does not say where rules, personas come", "name all"),
    ("personas, rules", "persona, rules", 28, "unknown source of segments 'persona'", "did you mean 'personas'?"),
    ("  short:\n", "  help:\n", 19, "key 'help' is given twice in elements", "keep one"),
    ("  short:\n", "  12:\n", 19, "name '12' in elements is no text", "put it in quotes"),
    (TOP, "domain: oulad\n", 1, "this policy is for domain 'oulad'", "use the policy of that domain"),
    (TOP, "", 1, "key 'domain' is missing", "add it"),
    ("elements:\n", "elements:\n   bad\n", 4, "no YAML", "mend the line"),
    # the whole
    ("racing: nothing in the way, ", "", 3, "segment 'racing' has no journey", "or under `nothing_for`"),
    (", activated: done", "", 3, "segment 'activated' has no journey", "or under `nothing_for`"),
    ("for: [default, h", "for: [h", 3, "segment 'default' has no journey", "name it in the `for`"),
    ("for: [hesitating]\n", "for: []\n", 22, "short can never be shown: it is for nobody", "name a segment"),
    ("for: [hesitating]\n", "for: [racing]\n", 22, "short can never be shown: racing is under", "change one"),
    (
        "for: [hesitating]\n",
        "for: [default, hesitating, exploring]\n",
        6,
        "tour can never be shown: short skips it wherever it is for",
        "let short be for fewer segments",
    ),
    ("after: [tour]", "after: [help]", 14, "help names itself under after", "take it out"),
    ("    skips: [tour]\n", "", 20, "short is a skip_step and skips nothing", "say what under `skips`"),
    ("kind: skip_step", "kind: hint", 24, "short is a hint and skips steps", "make it a skip_step"),
    ("priority: 80", "priority: 50", 15, "tour and help exclude each other with equal priority 50", "a higher"),
    ("per_session: 1,", "per_session: 3,", 16, "contradict: 3 per_session is more than 2 per_day", "change one"),
    ("ever: 5", "ever: 1", 16, "contradict: 2 per_day is more than 1 ever", "change one"),
    ("per_day: 2, ever: 5", "ever: 1", 16, "contradict: a cool_down, and at most 1 ever", "change one"),
    ("per_day: 2, ever: 5", "ever: 1", 17, "shown again once dismissed, and at most 1 ever", "change one"),
    ("cool_down: 2 hours", "cool_down: 1 day", 16, "more than 1 a day or session, and a cool_down of 1 day", "change"),
    ("after: 7 days", "after: 1 hour", 17, "dismissed, again after 1 hour, and a cool_down of 2 hours", "change"),
    ("per_session: 5, per_day: 10", "per_day: 1", 16, "2 times per_day, and all elements together 1", "lower the one"),
    ("at_once: 2", "at_once: 6", 27, "6 at_once is more than 5 per_session", "lower the one"),
    ("per_day: 10", "per_day: 4", 27, "5 per_session is more than 4 per_day", "lower the one"),
]


@pytest.mark.parametrize(("old", "new", "line", "wrong", "todo"), WRONG)
def test_errors_name_file_line_and_remedy(
    tmp_path: Path, saas: Domain, old: str, new: str, line: int, wrong: str, todo: str
) -> None:
    assert old in GOOD
    with pytest.raises(PolicyError) as refused:
        loaded(tmp_path, GOOD.replace(old, new, 1), saas)
    message = next((m for m in str(refused.value).splitlines() if wrong in m), str(refused.value))
    assert message.startswith(f"{tmp_path / 'policy.yaml'}:{line}: ")
    assert wrong in message and todo in message


def test_steps_that_wait_for_each_other(tmp_path: Path, saas: Domain) -> None:
    text = GOOD.replace("why: everybody starts here", "why: everybody starts here\n    after: [help]")
    with pytest.raises(
        PolicyError, match=r"policy.yaml:\d+: these can never be shown.*(tour -> help -> tour|help -> tour -> help)"
    ):
        loaded(tmp_path, text.replace("skips: [tour]", "skips: [help]"), saas)


def test_a_step_that_waits_for_one_that_nobody_gets(tmp_path: Path, saas: Domain) -> None:
    more = "  more: {kind: hint, title: M, for: [racing], why: w}\n"
    then = "  then: {kind: hint, title: N, for: [at_risk], why: w, after: [more]}\n"
    with pytest.raises(PolicyError, match=r"yaml:27: then can never be shown: it waits for more, which never is"):
        loaded(tmp_path, GOOD.replace("nothing_for:", more + then + "nothing_for:"), saas)


def test_all_errors_are_told_at_once_in_order(tmp_path: Path, saas: Domain) -> None:
    text = GOOD.replace("after: [tour]", "after: [tuor]").replace("{racing:", "{raceing:").replace("Three steps", "12")
    with pytest.raises(PolicyError) as refused:
        loaded(tmp_path, text, saas)
    lines = [int(m.split(":")[1]) for m in str(refused.value).splitlines()]
    assert lines == [5, 14, 26]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words\n"])
def test_what_is_no_policy_at_all(tmp_path: Path, saas: Domain, text: str) -> None:
    with pytest.raises(PolicyError, match=r"policy.yaml:\d+: "):
        loaded(tmp_path, text, saas)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path, saas: Domain) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.load(tmp_path / "none.yaml", saas)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.load(tmp_path / "bytes.yaml", saas)


def test_version_is_of_the_content_not_of_the_file(tmp_path: Path, saas: Domain) -> None:
    first = loaded(tmp_path, GOOD, saas).version
    assert loaded(tmp_path, "# hello\n" + GOOD.replace("[at_risk, stuck]", "[at_risk,   stuck]"), saas).version == first
    assert loaded(tmp_path, GOOD.replace("priority: 80", "priority: 81"), saas).version != first
    assert loaded(tmp_path, GOOD.replace("they look", "they looked"), saas).version != first
    assert len(first) == 12


def test_the_content_is_all_that_a_policy_is(tmp_path: Path, saas: Domain) -> None:
    read = loaded(tmp_path, GOOD, saas)
    again = Policy.from_content(read.content)
    assert (again, again.version, again.content) == (read, read.version, read.content)
    for content in ("", "{}", read.content.replace('"repeats"', '"unheard_of"', 1), read.content[:-1]):
        with pytest.raises(ValueError, match="no content of a policy"):
            Policy.from_content(content)


def test_the_environment_names_another_file(tmp_path: Path, saas: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_POLICY", str(written(tmp_path, GOOD)))
    assert policy.for_domain(saas, RULES).elements[0].name == "tour"
    with pytest.raises(PolicyError, match="unknown segment 'stuck'"):
        policy.for_domain(saas)
    monkeypatch.setenv("FIRSTMILE_POLICY", str(tmp_path / "none.yaml"))
    with pytest.raises(PolicyError):
        policy.for_domain(saas)


def test_a_new_domain_without_a_file_shows_everybody_the_same(
    tmp_path: Path, saas: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRSTMILE_POLICY", raising=False)
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    plain = policy.for_domain(saas)
    for segments in ([], *([s] for s in policy.segment_names(saas))):
        choice = policy.choose(plain, segments, policy.Feedback(), 0)
        assert choice.elements == ("welcome",)
        assert "no policy file" in choice.why[0]
