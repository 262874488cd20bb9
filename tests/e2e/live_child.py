"""The live part behind HTTP without Bento, which takes longer to start: `python -m tests.e2e.live_child PORT`."""

import os
import signal
import sys
from pathlib import Path

import uvicorn

from feature_repo.settings import Settings
from feature_repo.stream import embedded
from serving import wiring
from serving.app import App
from serving.auth import Keys


def main(port: int) -> None:
    """Serve until killed, or stopped by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once it has shut down
    settings = Settings()
    embedded.DRAIN_S = float(os.environ.get("FIRSTMILE_TEST_DRAIN_S") or embedded.DRAIN_S)
    live = wiring.live(settings)
    assert live is not None
    engine = wiring.engine(settings, live=live)
    app = App(Keys(()), engine, wiring.door(settings, live, engine.consent))
    app.users = wiring.users(settings, live, app.door, engine)
    try:
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
    finally:
        app.users.close()
        live.close()
        engine.close()


def forked(port: int, environment: dict[str, str], log: Path) -> None:
    """The same in a process that was forked, with an environment and a log of its own."""
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    main(port)


if __name__ == "__main__":
    main(int(sys.argv[1]))
