"""The Bento service: one worker that mounts the app and puts an engine in it when it starts.

Bento's own metrics and access log are off: together they cost as much as a decision. /metrics is the app's.
"""

import logging
import os
import signal
import sys
import threading
import time

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import click
from bentoml.exceptions import BentoMLException

from feature_repo.command import PRIVATE
from feature_repo.settings import SOURCE
from feature_repo.storage import DamagedFile
from feature_repo.stream.garbage import spare_what_is_there
from serving import bento, http_limits, log_limits, wiring
from serving.app import App
from serving.auth import Keys, check_address
from serving.collect.routes import Options
from serving.console.playbook import Declared
from serving.segments.channels.signals import before_end

sys.path.append(str(SOURCE))  # Bento takes its folder off the path once this module is loaded; later imports need it

HOST = "0.0.0.0" if os.environ.get("BENTOML_CONTAINERIZED") else "127.0.0.1"
"""Where it listens unless told: in a container to all, which needs server keys; else on loopback."""

SWITCH_S = 0.001
"""How long a background thread may keep the interpreter while a request waits (Python's default is 5 ms)."""

_log = logging.getLogger("bentoml.serve.firstmile")
try:
    SETTINGS = bento.settings()
except ValueError as error:  # Bento shows its own exceptions as one line, others as a traceback
    raise BentoMLException(str(error)) from None
app = App(Keys(SETTINGS.server_keys), collect=Options.of(SETTINGS))
http_limits.install()
log_limits.install()


def end_with(parent: int) -> None:
    """End this worker soon after its parent: killed outright, Bento's arbiter leaves its workers to hold the port."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def asked_host() -> str:
    """The address that `bentoml serve` was asked to listen on."""
    context = click.get_current_context(silent=True)
    return (context and context.params.get("host")) or os.environ.get("BENTOML_HOST") or HOST


@bentoml.service(
    name="firstmile",
    workers=SETTINGS.workers,
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
    http={"host": HOST, "port": 3000},
    labels=bento.labels(),
)
@bentoml.asgi_app(app, path="/")
class Firstmile:
    """Decides how a person's onboarding goes on."""

    champion = bento.champion_model()

    def __init__(self) -> None:
        """Start the engine: policy checked, champion loaded and warmed up, decision log begun."""
        sys.setswitchinterval(SWITCH_S)
        os.umask(PRIVATE)
        threading.Thread(target=end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        try:
            self._start()
        except Exception as e:  # Bento would start the next worker on the same files, for ever
            _log.critical("the service cannot start: %s", e, exc_info=not isinstance(e, DamagedFile | ValueError))
            os.kill(os.getppid(), signal.SIGTERM)
            raise

    def _start(self) -> None:
        settings, folder = SETTINGS, bento.champion_folder() if bento.mode(SETTINGS) == "bundled" else None
        self.live = wiring.live(settings)
        app.engine = wiring.engine(settings, folder, live=self.live)
        self.announcer = None
        if self.live is not None:
            app.door = wiring.door(settings, self.live, app.engine.consent, app.engine.past_data)
            self.announcer = wiring.announcer(settings, app.engine, self.live)
        if self.announcer is not None:
            app.channels = wiring.channels(settings, app.engine, self.announcer)
            before_end(app.channels.hub.close)
        app.users = wiring.users(settings, self.live, app.door, app.engine)
        app.declared = Declared(settings, app.engine.playbook)
        spare_what_is_there()

    @bentoml.on_deployment
    @staticmethod
    def _check() -> None:
        """Before anything listens: the address is allowed, the policy fits the domain, and no file is damaged."""
        os.umask(PRIVATE)
        try:
            warning = check_address(asked_host(), app.keys)
            wiring.check(SETTINGS)
            damaged = wiring.intact(SETTINGS)
        except (ValueError, DamagedFile) as e:
            raise BentoMLException(str(e)) from None
        for told in filter(None, (warning, damaged)):
            _log.warning(told)

    async def __is_ready__(self) -> bool:
        """For /readyz."""
        return app.engine is not None

    @bentoml.on_shutdown
    def _close(self) -> None:
        app.door = app.declared = None
        if app.users is not None:
            app.users.close()
        if self.announcer is not None:
            self.announcer.close()
        if app.channels is not None:
            app.channels.close()
            app.channels = None
        if self.live is not None:
            self.live.close()
        if app.engine is not None:
            app.engine.close()
            app.engine = None
