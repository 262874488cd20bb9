"""monitoring.steps and .record: a run that is stopped goes on, and ends as one that was not stopped."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from feature_repo import domains
from feature_repo.settings import Settings
from monitoring.record import FILE, Record
from monitoring.steps import Run

STEPS = ("read", "double", "sum")


class Kill(BaseException):
    """The end of the process, at any moment."""


class Pipeline:
    """Three real steps on files: each reads the output of the one before, and one option of its own."""

    def __init__(self, home: Path, options: dict[str, int], kill: tuple[str, str] | None = None) -> None:
        self.state, self.options, self.kill = home / "saas", options, kill
        self.done: list[str] = []
        self.out = io.StringIO()

    def run(self) -> dict[str, Any]:
        settings = Settings(home=self.state.parent, domain="saas")
        console = Console(file=self.out, width=200)
        run = Run(settings, domains.load("saas"), console, Record(self.state / FILE))
        before: dict[str, Any] = {"output": 1}
        for name in STEPS:
            before = self._step(run, name, before)
        return before

    def _step(self, run: Run, name: str, before: dict[str, Any]) -> dict[str, Any]:
        path = self.state / f"{name}.json"

        def do() -> dict[str, Any]:
            self._killed(name, "before")
            result = {"output": before["output"] * 2 + self.options[name], "path": str(path)}
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result))
            self._killed(name, "after")
            self.done.append(name)
            return result

        inputs = {"before": before["output"], "option": self.options[name]}
        return run.step(name, do, lambda: inputs, lambda done: path.exists())

    def _killed(self, name: str, moment: str) -> None:
        if self.kill == (name, moment):
            raise Kill


kills = st.lists(
    st.one_of(
        st.tuples(st.just("kill"), st.sampled_from(STEPS), st.sampled_from(("before", "after"))),
        st.tuples(st.just("option"), st.sampled_from(STEPS), st.integers(0, 2)),
        st.tuples(st.just("delete"), st.sampled_from(STEPS), st.just(0)),
        st.tuples(st.just("run"), st.just(""), st.just(0)),
    ),
    max_size=8,
)


@given(kills)
def test_whatever_happens_in_between_the_end_is_that_of_an_uninterrupted_run(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, Any]]
) -> None:
    home, options = tmp_path_factory.mktemp("home"), dict.fromkeys(STEPS, 0)
    for what, name, value in history:
        if what == "option":
            options[name] = value
        elif what == "delete":
            (home / "saas" / f"{name}.json").unlink(missing_ok=True)
        else:
            with contextlib.suppress(Kill):
                Pipeline(home, options, (name, value) if what == "kill" else None).run()
    clean = tmp_path_factory.mktemp("clean")
    ended, uninterrupted = Pipeline(home, options).run(), Pipeline(clean, options).run()
    assert ended["output"] == uninterrupted["output"]
    for name in STEPS:
        assert (
            json.loads((home / "saas" / f"{name}.json").read_text())["output"]
            == (json.loads((clean / "saas" / f"{name}.json").read_text())["output"])
        )
    again = Pipeline(home, options)
    assert again.run() == ended and again.done == []


def test_a_step_says_why_it_is_skipped_or_done_again(tmp_path: Path) -> None:
    options = dict.fromkeys(STEPS, 0)
    Pipeline(tmp_path, options).run()
    skipped = Pipeline(tmp_path, options)
    skipped.run()
    assert all(f"{name}: unchanged since 20" in skipped.out.getvalue() for name in STEPS)
    (tmp_path / "saas" / "sum.json").unlink()
    again = Pipeline(tmp_path, options | {"double": 1})
    again.run()
    assert "double: done again, as option changed" in again.out.getvalue()
    assert "sum: done again, as before changed" in again.out.getvalue()
    (tmp_path / "saas" / "sum.json").unlink()
    gone = Pipeline(tmp_path, options | {"double": 1})
    gone.run()
    assert gone.done == ["sum"] and "sum: done again, as its output of 20" in gone.out.getvalue()


def test_a_failed_step_is_not_done(tmp_path: Path) -> None:
    class Failing(Pipeline):
        def _killed(self, name: str, moment: str) -> None:
            if (name, moment) == ("double", "after"):
                raise ValueError("no")

    with pytest.raises(click.ClickException, match="the step 'double' failed: ValueError: no"):
        Failing(tmp_path, dict.fromkeys(STEPS, 0)).run()
    after = Pipeline(tmp_path, dict.fromkeys(STEPS, 0))
    after.run()
    assert after.done == ["double", "sum"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "steps": {"read": {"x": 1}}}', "\0"]
)
def test_a_damaged_record_means_that_no_step_is_done(tmp_path: Path, content: str) -> None:
    path = tmp_path / FILE
    path.write_text(content)
    record = Record(path)
    assert record.damaged and record.unchanged("read", {}) is None
    record.write("read", {"a": (1, 2)}, {"b": 3}, 0.5)
    again = Record(path)
    assert not again.damaged and (done := again.unchanged("read", {"a": [1, 2]})) and done.result == {"b": 3}
    again.clear()
    assert Record(path).unchanged("read", {"a": [1, 2]}) is None
