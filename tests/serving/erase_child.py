"""An erasure that kills its own process: `python -m tests.serving.erase_child HOME what.is.called.then`."""

import importlib
import os
import signal
import sys
from pathlib import Path

from feature_repo.settings import Settings
from tests.serving.test_users import WHO, Service, fill


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(home: Path, called: str) -> None:
    service = Service(Settings(home=home, domain="saas"))
    fill(service)
    path, name = called.rsplit(".", 1)
    try:
        holder = importlib.import_module(path)
    except ModuleNotFoundError:
        module, of = path.rsplit(".", 1)
        holder = getattr(importlib.import_module(module), of)
    setattr(holder, name, die)
    service.ask("DELETE", f"/v1/users/{WHO}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
