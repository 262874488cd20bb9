"""What callers can make the service write into its log: text on one line, and no message more often than a limit."""

import logging
import time
from collections import Counter
from collections.abc import Callable

LOGGERS = ("uvicorn.error", "serving.app", "serving.engine", "serving.collect.door")
"""The loggers that write because of what a request holds."""
MOST, PERIOD_S = 10, 60.0
"""How often each message is written in how many seconds."""
LONGEST = 300
"""Characters of a value that are written."""


def printable(text: str) -> str:
    r"""The text with its control characters escaped, so that it can neither begin a line nor command a terminal.

    >>> printable("a\n[ERROR] b\x1b[31m")
    'a\\n[ERROR] b\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST])


class LogLimits(logging.Filter):
    """Escapes the values of a message, and lets it through at most MOST times in PERIOD_S seconds.

    The first message of the next period says how many were left out. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._ends = clock, 0.0
        self._seen: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; changes its values."""
        if self._clock() >= self._ends:
            self._ends = self._clock() + PERIOD_S
            self._left_out = Counter({m: n - MOST for m, n in self._seen.items() if n > MOST})
            self._seen.clear()
        message = str(record.msg)
        self._seen[message] += 1
        if self._seen[message] > MOST:
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(printable(str(a)) if isinstance(a, str | BaseException) else a for a in record.args)
        if left_out := self._left_out.pop(message, 0):
            record.msg = f"{message} ({left_out:,} more of these were left out in the last {PERIOD_S:g} s)"
        return True


def install() -> None:
    """Limit what the loggers of LOGGERS write in this process."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(LogLimits())
