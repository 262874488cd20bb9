"""monitoring.failures: a failed step says what failed, why, what to do and where the log is, without a traceback."""

import errno
import os
import signal
import sqlite3
from pathlib import Path

import click
import duckdb
import httpx
import pytest

from feature_repo import domains
from feature_repo.storage import flock
from monitoring import failures


def said(error: Exception, log: Path) -> str:
    with pytest.raises(click.ClickException) as caught, failures.explained("train", log):
        raise error
    return caught.value.message


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", failures.NO_SPACE),
        (sqlite3.OperationalError("database or disk is full"), "disk is full", failures.NO_SPACE),
        (sqlite3.DatabaseError("file is not a database"), "DatabaseError: file is not a database", failures.DAMAGED),
        (MemoryError(), "MemoryError", failures.OUT_OF_MEMORY),
        (duckdb.OutOfMemoryException("could not allocate"), "could not allocate", failures.OUT_OF_MEMORY),
        (httpx.ReadTimeout("timed out"), "ReadTimeout: timed out", failures.AGAIN),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", failures.AGAIN),
        (click.ClickException("expected this"), "failed: expected this", ""),
    ],
)
def test_an_error_is_explained_and_its_traceback_logged(
    tmp_path: Path, error: Exception, words: str, remedy: str
) -> None:
    log = tmp_path / "saas" / "run.log"
    message = said(error, log)
    assert message.startswith("the step 'train' failed: ") and words in message
    assert (
        message.endswith(f"{remedy}\nLog: {log}" if remedy else f"{words}\nLog: {log}") and "Traceback" not in message
    )
    assert "the step 'train' failed" in log.read_text() and "Traceback (most recent call last)" in log.read_text()


def test_an_error_of_the_project_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException) as caught, failures.explained("events", tmp_path / "run.log"):
        domains.load("shop")
    assert caught.value.message.startswith("the step 'events' failed: no domain 'shop'")


def test_an_error_of_a_library_names_its_type(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException) as caught, failures.explained("events", tmp_path / "run.log"):
        int("x")
    assert "failed: ValueError: invalid literal" in caught.value.message


def test_a_busy_state_folder_names_the_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(click.ClickException, match=r"another process holds log\.db\.lock"),
        flock(tmp_path / "log.db.lock", "service", 0),
        failures.explained("events", tmp_path / "run.log"),
        flock(tmp_path / "log.db.lock", "service", 0),
    ):
        pass


def test_every_failure_is_kept_in_the_log(tmp_path: Path) -> None:
    for n in range(3):
        said(RuntimeError(f"failure {n}"), tmp_path / "run.log")
    assert [f"failure {n}" in (tmp_path / "run.log").read_text() for n in range(3)] == [True] * 3


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = said(RuntimeError("the cause"), tmp_path / "file" / "run.log")
    assert "the cause" in message and "could not be written" in message and "test_failures.py:" in message


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests deaf to it
    with pytest.raises(SystemExit) as ended, failures.explained("train", tmp_path / "run.log"):
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    assert ended.value.code == 130
    assert "Stopped during the step 'train'. The same command goes on from there." in capsys.readouterr().err
