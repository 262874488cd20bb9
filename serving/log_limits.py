"""What callers can make the service write into its log: text on one line, and no message more often than a limit."""

import logging
import time
from collections import Counter
from collections.abc import Callable

LOGGERS = (
    "uvicorn.error", "serving.app", "serving.engine", "serving.collect.door", "serving.decision_log",
    "feature_repo.stream.stream", "feature_repo.stream.processor", "feature_repo.stream.embedded",
)  # fmt: skip
"""The loggers that write because of what a request holds."""
OPERATOR = "bentoml.serve.firstmile"
"""The logger that tells the operator, on several lines where there is much to say; its tracebacks may hold anything."""
MOST, PERIOD_S = 10, 60.0
"""How often each message is written in how many seconds."""
LONGEST = 300
"""Characters of a value, or of a line of a traceback, that are written."""
MOST_LINES = 100
"""Lines of a traceback that are written of its beginning, and of its end."""
FORMATTER = logging.Formatter()


def printable(text: str) -> str:
    r"""The text with its control characters escaped, so that it can neither begin a line nor command a terminal.

    >>> printable("a\n[ERROR] b\x1b[31m")
    'a\\n[ERROR] b\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST])


def indented(traceback: str) -> str:
    r"""The traceback with its lines printable and indented, so that an error's words can't pass for a line of the log.

    >>> indented("ValueError: a\n[ERROR] b\x1b")
    '    ValueError: a\n    [ERROR] b\\x1b'
    """
    lines = traceback.splitlines()
    if len(lines) > 2 * MOST_LINES:
        left_out = f"... {len(lines) - 2 * MOST_LINES:,} lines ..."
        lines = [*lines[:MOST_LINES], left_out, *lines[-MOST_LINES:]]
    return "\n".join(f"    {printable(line)}" for line in lines)


def plain_traceback(record: logging.LogRecord) -> bool:
    """As a filter: writes the record with its traceback indented."""
    if record.exc_info:
        record.exc_text = indented(FORMATTER.formatException(record.exc_info))
    return True


class LogLimits(logging.Filter):
    """Escapes the values and the traceback of a message, and lets it through at most MOST times in PERIOD_S seconds.

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
        plain_traceback(record)
        if left_out := self._left_out.pop(message, 0):
            record.msg = f"{message} ({left_out:,} more of these were left out in the last {PERIOD_S:g} s)"
        return True


def install() -> None:
    """Limit what the loggers of LOGGERS write in this process, and the tracebacks of OPERATOR."""
    logging.getLogger(OPERATOR).addFilter(plain_traceback)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(LogLimits())
