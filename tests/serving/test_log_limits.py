"""The log holds what callers send on one line, and not without end."""

import logging
from collections.abc import Iterator

import pytest

from serving.log_limits import MOST, PERIOD_S, LogLimits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[logging.Logger]:
    found, limits = logging.getLogger("tests.log_limits"), LogLimits(clock)
    found.addFilter(limits)
    yield found
    found.removeFilter(limits)


def test_no_line_can_be_forged(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    forged = "x\n2026-01-01 [ERROR] [forged] \x1b[31m\u2028y"
    log.warning("it cannot be told whether %s is applied: %s", forged, ValueError(forged))
    (told,) = caplog.messages
    assert told.isprintable() and "\\n2026-01-01 [ERROR]" in told and "\\x1b[31m\\u2028y" in told


def test_no_line_can_be_forged_by_the_words_of_an_error(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    forged = "2026-01-01 [ERROR] [forged] \x1b[31m"
    try:
        try:
            raise KeyError(f"x\r{forged}")
        except KeyError as e:
            raise ValueError(f"x\n{forged}\u2028{forged}\n" + "y\n" * 100_000 + "the end") from e
    except ValueError:
        log.exception("it failed")
    first, *rest = caplog.text.splitlines()
    assert "it failed" in first and rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert sum("[forged]" in line for line in rest) == 3 and rest[-1] == "    the end" and len(rest) < 300


def test_a_message_is_written_a_few_times_a_minute_and_says_what_was_left_out(
    log: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(1_000):
        log.warning("bad request %d", n)
    log.warning("another")
    assert len(caplog.messages) == MOST + 1
    clock.now += PERIOD_S
    log.warning("bad request %d", 7)
    assert caplog.messages[-1] == f"bad request 7 ({1_000 - MOST} more of these were left out in the last 60 s)"
