"""A run that kills itself with kill -9 at a step: `python -m tests.e2e.run_child STEP`.

At a recorded step: when its work is done, and nothing says so yet. At `decide`: while the service is asked.
"""

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from feature_repo.settings import Settings
from monitoring import live, record
from monitoring.run import run
from tests.e2e.test_loop import USERS

STEP = sys.argv[1]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Record(record.Record):
    def write(self, step: str, inputs: Mapping[str, Any], result: Mapping[str, Any], seconds: float) -> record.Done:
        if step == STEP:
            kill()
        return super().write(step, inputs, result, seconds)


if __name__ == "__main__":
    import monitoring.run

    monitoring.run.Record = Record
    if STEP == "decide":
        live.relive = lambda *_: kill()
    run(Settings(), users=int(USERS))
