from pathlib import Path

import pytest

from feature_repo import domains
from feature_repo.domain import Domain
from serving import policy
from serving.policy import PolicyError

GOOD = """\
domain: saas
elements:
  tour: Three steps
  help: A person
default:
  show: [tour]
  why: everybody starts here
segments:
  at_risk: {show: [help, tour], why: they are leaving}
  hesitating: {show: [tour], why: they look around}
  exploring: {show: [tour], why: they try}
  racing: {show: [], why: nothing in the way}
  activated: {show: [], why: done}
"""


@pytest.fixture(scope="module")
def saas() -> Domain:
    return domains.load("saas")


def written(folder: Path, text: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_elements_and_reason_for_each_segment(tmp_path: Path, saas: Domain) -> None:
    rules = policy.load(written(tmp_path, GOOD), saas)
    assert rules.elements_for("at_risk") == (("help", "tour"), "they are leaving")
    assert rules.elements_for("activated") == ((), "done")
    assert rules.elements_for(None) == (("tour",), "everybody starts here")


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_has_a_policy_that_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTMILE_POLICY", raising=False)
    domain = domains.load(name)
    assert policy.location(domain).is_file()
    rules = policy.for_domain(domain)
    assert set(rules.segments) == set(policy.segment_names(domain))


@pytest.mark.parametrize(
    ("old", "new", "line", "wrong", "todo"),
    [
        ("  racing:", "  raceing:", 12, "unknown segment 'raceing'", "did you mean 'racing'?"),
        ("  racing: {show: [], why: nothing in the way}\n", "", 9, "segment 'racing' is missing", "add it"),
        ("[help, tour]", "[halp, tour]", 9, "element 'halp' is not declared", "did you mean 'help'?"),
        ("[help, tour]", "[zzz]", 9, "element 'zzz' is not declared", "declare it under `elements`"),
        ("[help, tour]", "[tour, help, tour]", 9, "element 'tour' is shown twice", "name it once"),
        ("[help, tour]", "tour", 9, "segments.at_risk.show is one value", "write a list"),
        ("[help, tour]", "[1, tour]", 9, "segments.at_risk.show[0] is '1'", "write text"),
        ("[help, tour]", "[[tour]]", 9, "segments.at_risk.show[0] is a list", "write one value"),
        ("why: they try}", "why: yes}", 11, "segments.exploring.why is 'yes'", "in quotes"),
        ("why: they try}", "why: ''}", 11, "segments.exploring.why is empty", "write some text"),
        (", why: they try}", "}", 11, "key 'why' is missing in segments.exploring", "add it"),
        ("{show: [tour], why: they try}", "[tour]", 11, "segments.exploring is a list", "`name: value` pairs"),
        ("  show: [tour]\n", "  shows: [tour]\n", 6, "unknown key 'shows' in default", "did you mean 'show'?"),
        ("default:\n  show: [tour]\n  why: everybody starts here\n", "", 1, "key 'default' is missing", "add it"),
        ("  help: A person\n", "  help: A person\n  help: Two\n", 5, "key 'help' is given twice", "keep one"),
        ("  help: A person\n", "  12: A person\n", 4, "name '12' in elements is no text", "put it in quotes"),
        ("domain: saas", "domain: oulad", 1, "this policy is for domain 'oulad'", "use the policy of that domain"),
        ("elements:\n", "elements:\n   bad\n", 4, "no YAML", "mend the line"),
        ("  tour: Three steps", "  tour: [Three", 4, "no YAML", "mend the line"),
    ],
)
def test_errors_name_file_line_and_remedy(
    tmp_path: Path, saas: Domain, old: str, new: str, line: int, wrong: str, todo: str
) -> None:
    assert old in GOOD
    file = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PolicyError) as refused:
        policy.load(file, saas)
    message = next(m for m in str(refused.value).splitlines() if wrong in m)
    assert message.startswith(f"{file}:{line}: ")
    assert todo in message


def test_all_errors_are_told_at_once(tmp_path: Path, saas: Domain) -> None:
    text = GOOD.replace("[help, tour]", "[halp]").replace("racing:", "raceing:").replace("everybody starts here", "12")
    with pytest.raises(PolicyError) as refused:
        policy.load(written(tmp_path, text), saas)
    assert len(str(refused.value).splitlines()) == 4


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words\n"])
def test_what_is_no_policy_at_all(tmp_path: Path, saas: Domain, text: str) -> None:
    with pytest.raises(PolicyError, match=r"policy.yaml:\d+: "):
        policy.load(written(tmp_path, text), saas)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path, saas: Domain) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.load(tmp_path / "none.yaml", saas)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.load(tmp_path / "bytes.yaml", saas)


def test_version_is_of_the_content_not_of_the_file(tmp_path: Path, saas: Domain) -> None:
    first = policy.load(written(tmp_path, GOOD), saas).version
    assert (
        policy.load(written(tmp_path, "# hello\n" + GOOD.replace("[help, tour]", "[help,   tour]")), saas).version
        == first
    )
    assert policy.load(written(tmp_path, GOOD.replace("[help, tour]", "[tour, help]")), saas).version != first
    assert policy.load(written(tmp_path, GOOD.replace("they try", "they tried")), saas).version != first
    assert len(first) == 12


def test_the_environment_names_another_file(tmp_path: Path, saas: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_POLICY", str(written(tmp_path, GOOD)))
    assert policy.for_domain(saas).default.elements == ("tour",)
    monkeypatch.setenv("FIRSTMILE_POLICY", str(tmp_path / "none.yaml"))
    with pytest.raises(PolicyError):
        policy.for_domain(saas)


def test_a_new_domain_without_a_file_shows_everybody_the_same(
    tmp_path: Path, saas: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRSTMILE_POLICY", raising=False)
    monkeypatch.setattr(policy, "FOLDER", tmp_path)
    rules = policy.for_domain(saas)
    assert {rules.elements_for(s)[0] for s in (None, *policy.segment_names(saas))} == {("welcome",)}
    assert "no policy file" in rules.elements_for("racing")[1]
