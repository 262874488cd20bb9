"""What happens before a server waits for its connections: uvicorn waits first, and tells the app later."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


def before_end(act: Callable[[], None]) -> None:
    """Call `act`, which must not wait, when this process is told to end; then whatever handled the signal before.

    Does nothing outside of the main thread, where no signal can be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ENDING:
        signal.signal(number, _chained(act, signal.getsignal(number)))


def _chained(act: Callable[[], None], before: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        act()
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    return handle
