from pathlib import Path

import pytest

from feature_repo import domains
from feature_repo.vocabulary import DAY
from serving import playbook
from serving.experiments import parsing
from serving.experiments.declared import Experiments, Guardrail, Step, Variant
from serving.experiments.parsing import ExperimentsError, Known

KNOWN = Known("saas", ["tour", "help", "list"], ["cold", "warm"], {"activation": True, "Error Shown": False})
GOOD = """\
domain: saas
holdout: 0.05
layers:
  one: {salt: first}
  two: {salt: second}
experiments:
  a:
    layer: one
    question: Does a tour help?
    buckets: [0, 0.5]
    start: 1970-01-02T00:00:00Z
    end: 1970-03-01T00:00:00Z
    ramp:
      - {at: 1970-01-02T00:00:00Z, share: 0.1}
      - {at: 1970-01-03T00:00:00Z, share: 1}
    for: [cold]
    variants:
      control: {weight: 1, hide: [tour]}
      tour: {weight: 2, show: [tour]}
    metric: activation
    guardrails:
      - {metric: activation, worse_than: 0.05}
      - {metric: Error Shown, worse_than: 0.1, within: 3 days}
  b:
    layer: one
    question: Does help help?
    buckets: [0.5, 1]
    start: 1970-01-02T00:00:00Z
    share: 0.5
    variants:
      control: {weight: 1}
      help: {weight: 1, show: [help, list]}
    metric: Error Shown
"""


def loaded(folder: Path, text: str) -> Experiments:
    file = folder / "e.yaml"
    file.write_text(text, encoding="utf-8")
    return parsing.load(file, KNOWN)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)
    a, b = found.experiments.values()
    assert (found.holdout, found.layers) == (0.05, {"one": "first", "two": "second"})
    assert (a.start_us, a.end_us, a.buckets, a.segments) == (DAY, 59 * DAY, (0, 0.5), ("cold",))
    assert a.ramp == (Step(DAY, 0.1), Step(2 * DAY, 1)) and b.ramp == (Step(DAY, 0.5),)
    assert a.variants == {"control": Variant(1, hide=("tour",)), "tour": Variant(2, show=("tour",))}
    assert a.control == "control" and (b.end_us, b.kill) == (None, False)
    assert a.guardrails == (
        Guardrail("activation", 0.05, good=True),
        Guardrail("Error Shown", 0.1, good=False, within_us=3 * DAY),
    )


def test_the_share_follows_the_ramp_between_start_and_end(tmp_path: Path) -> None:
    a = loaded(tmp_path, GOOD).experiments["a"]
    assert [a.share(t) for t in (DAY - 1, DAY, 2 * DAY - 1, 2 * DAY, 59 * DAY - 1, 59 * DAY)] == [0, 0.1, 0.1, 1, 1, 0]


@pytest.mark.parametrize(
    ("old", "new", "line", "wrong", "todo"),
    [
        ("holdout: 0.05", "holdout: 2", 2, "holdout is 2", "write a number from 0 to 1"),
        ("domain: saas", "domain: oulad", 1, "are for domain 'oulad'", "use the file of that domain"),
        ("second", "first", 5, "have the same salt", "give each its own"),
        ("layer: one", "layer: ome", 8, "experiments.a.layer is 'ome'", "did you mean 'one'?"),
        ("[0, 0.5]", "[0, 0.6]", 25, "b and a overlap in the buckets of layer one", "its own slice"),
        ("[0, 0.5]", "[0.5, 0.5]", 10, "is empty", "from below to"),
        ("[0, 0.5]", "[0, 0.2, 0.5]", 10, "has 3 values", "[0, 0.5]"),
        ("end: 1970-03-01", "end: 1970-01-01", 12, "ends before it starts", "after the start"),
        ("at: 1970-01-03", "at: 1970-01-02", 15, "is not after the one before", "in time order"),
        ("at: 1970-01-03", "at: 1970-04-03", 15, "outside its start and end", "move it inside"),
        ("share: 0.5", "share: 1.5", 29, "is 1.5", "from 0 to 1"),
        ("    share: 0.5\n", "", 25, "needs `ramp` or `share`", "share: 0.5"),
        ("for: [cold]", "for: [cool]", 16, "segment 'cool'", "did you mean 'cold'?"),
        ("hide: [tour]", "hide: [tuor]", 18, "element 'tuor'", "did you mean 'tour'?"),
        ("weight: 2", "weight: 0", 19, "has weight 0", "above 0"),
        ("weight: 2", "weight: -1", 19, "is -1", "from 0"),
        (
            "{weight: 2, show: [tour]}",
            "{weight: 2, show: [tour], hide: [tour]}",
            19,
            "shows and hides tour",
            "keep one",
        ),
        ("      control: {weight: 1}\n", "", 31, "names 1", "the control first"),
        ("metric: activation\n    g", "metric: activatoin\n    g", 20, "'activatoin'", "did you mean 'activation'?"),
        ("worse_than: 0.1", "worse: 0.1", 23, "unknown key 'worse'", "did you mean 'worse_than'?"),
        ("within: 3 days", "within: soon", 23, "is 'soon'", "30 minutes"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, wrong: str, todo: str
) -> None:
    assert old in GOOD
    with pytest.raises(ExperimentsError) as refused:
        loaded(tmp_path, GOOD.replace(old, new, 1))
    told = next(m for m in str(refused.value).splitlines() if wrong in m)
    assert told.startswith(f"{tmp_path / 'e.yaml'}:{line}: ") and todo in told


def test_experiments_of_two_layers_may_not_change_the_same_element(tmp_path: Path) -> None:
    text = GOOD.replace("[help, list]", "[help, tour]")
    text = "layer: two".join(text.rsplit("layer: one", 1))
    with pytest.raises(
        ExperimentsError, match="both change tour, and one person may be in both; put them in one layer"
    ):
        loaded(tmp_path, text)


def test_experiments_that_never_run_at_once_may_share_buckets(tmp_path: Path) -> None:
    text = GOOD.replace("[0.5, 1]\n    start: 1970-01-02", "[0, 1]\n    start: 1970-03-01")
    assert list(loaded(tmp_path, text).experiments) == ["a", "b"]


def test_all_findings_are_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    with pytest.raises(ExperimentsError) as refused:
        loaded(tmp_path, GOOD.replace("0.05", "x").replace("weight: 2", "weight: y").replace("[cold]", "[c]"))
    assert [m.split(":")[1] for m in str(refused.value).splitlines()] == ["2", "16", "19", "22"]


def test_content_gives_the_same_experiments_and_version(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)
    again = Experiments.from_content(found.content)
    assert again == found and again.version == found.version and len(found.version) == 12
    assert list(again.experiments["a"].variants) == ["control", "tour"]
    assert loaded(tmp_path, "# a word\n" + GOOD).version == found.version
    assert loaded(tmp_path, GOOD.replace("weight: 2", "weight: 3")).version != found.version


@pytest.mark.parametrize("content", ["", "{}", '{"domain": "saas", "more": 1}', '{"domain": 1}'])
def test_what_is_no_content_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="no content of experiments"):
        Experiments.from_content(content)


def test_the_shipped_files_fit_and_a_domain_without_one_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(parsing.VARIABLE, raising=False)
    assert playbook.for_domain(domains.load("saas")).experiments.experiments
    assert parsing.for_domain(domains.load("oulad"), [], []) == Experiments("oulad")


def test_the_environment_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parsing.VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(ExperimentsError, match="cannot be read"):
        parsing.for_domain(domains.load("saas"), [], [])
