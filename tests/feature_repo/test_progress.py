"""feature_repo.progress: a bar in a terminal, plain lines elsewhere, and never blank ones."""

import io

import pytest
from rich.console import Console

from feature_repo import progress
from feature_repo.progress import Bars, track


def written(terminal: bool, every_s: float, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(progress, "EVERY_S", every_s)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    assert list(track(range(5), "counting", console)) == [0, 1, 2, 3, 4]
    with Bars(console=console) as bars:
        task = bars.add_task("reading [bold]", total=None)
        bars.update(task, completed=1_234)
        bars.update(task, total=2_468)
    return out.getvalue()


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(False, 0, monkeypatch).split("\n")
    assert lines[:5] == [f"counting: {n} %" for n in (20, 40, 60, 80, 100)]
    assert lines[5:] == ["reading [bold]: 1,234", "reading [bold]: 50 %", ""]


def test_what_is_done_soon_writes_nothing_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(False, 60, monkeypatch) == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "━" in written(True, 0, monkeypatch)
