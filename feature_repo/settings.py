"""Where everything is: one object, read from the environment once, passed to all."""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

TRACKING = os.environ.get("MLFLOW_TRACKING_URI") or ""
"""As it was when the program started: MLflow itself sets it later, to whatever was used last."""
SOURCE = Path(__file__).resolve().parent.parent


def now_us() -> int:
    """The clock, µs since 1970 UTC; FIRSTMILE_NOW (RFC 3339) makes this process's clock start there, in the past."""
    return time.time_ns() // 1000 + _shift_us(os.environ.get("FIRSTMILE_NOW") or "")


@cache
def _shift_us(start: str) -> int:
    if not start:
        return 0
    moment = datetime.fromisoformat(start)
    if moment.tzinfo is None:
        raise ValueError(f"FIRSTMILE_NOW={start!r}: expected RFC 3339 with a zone, such as 2014-10-29T00:00:00Z")
    return round(moment.timestamp() * 1_000_000) - time.time_ns() // 1000


def _default_home() -> Path:
    """`var/` beside the sources in a checkout, in the working folder for an installed wheel."""
    return (SOURCE if (SOURCE / "pyproject.toml").exists() else Path.cwd()) / "var"


def _home() -> Path:
    return Path(os.environ.get("FIRSTMILE_HOME") or _default_home()).resolve()


def _retention_days() -> int:
    given = os.environ.get("FIRSTMILE_RETENTION_DAYS") or "7"
    if not (given.isascii() and given.isdigit()) or int(given) < 1:
        raise ValueError(f"FIRSTMILE_RETENTION_DAYS={given!r}: expected a whole number from 1")
    return int(given)


@dataclass(frozen=True)
class Settings:
    """Folders and addresses of one domain's state.

    Environment: FIRSTMILE_HOME (the folder that holds all state), FIRSTMILE_DOMAIN (`saas`),
    FIRSTMILE_LAKE (a folder or any fsspec URI), FIRSTMILE_ONLINE (`sqlite`, or `redis://host:port/db`),
    FIRSTMILE_LOG (`sqlite`, or the address of a broker: see event_log.open_log), FIRSTMILE_RETENTION_DAYS (how many
    days that broker keeps an event, 7), FIRSTMILE_HISTORY (`sqlite`, or `redis://host:port/db`),
    MLFLOW_TRACKING_URI (an MLflow server instead of the SQLite file).

    Raises:
        ValueError: FIRSTMILE_RETENTION_DAYS is no whole number above 0.
    """

    home: Path = field(default_factory=_home)
    domain: str = field(default_factory=lambda: os.environ.get("FIRSTMILE_DOMAIN") or "saas")
    online: str = field(default_factory=lambda: os.environ.get("FIRSTMILE_ONLINE") or "sqlite")
    log: str = field(default_factory=lambda: os.environ.get("FIRSTMILE_LOG") or "sqlite")
    history: str = field(default_factory=lambda: os.environ.get("FIRSTMILE_HISTORY") or "sqlite")
    retention_days: int = field(default_factory=_retention_days)

    @property
    def state(self) -> Path:
        """The folder of this domain's state."""
        return self.home / self.domain

    @property
    def broker(self) -> str:
        """Address of the log where a broker holds it. Kinesis' checkpoints are in the state folder, unless it says."""
        if not self.log.startswith("kinesis://") or "checkpoints=" in self.log:
            return self.log
        return f"{self.log}{'&' if '?' in self.log else '?'}{urlencode({'checkpoints': self.state / 'kinesis.db'})}"

    @property
    def lake(self) -> str:
        """URI of the lake."""
        return os.environ.get("FIRSTMILE_LAKE") or str(self.state / "lake")

    @property
    def quarantine(self) -> Path:
        """Folder of the refused events."""
        return self.state / "quarantine"

    @property
    def features(self) -> Path:
        """Folder of the offline feature rows (Parquet, one file a bucket)."""
        return self.state / "features"

    @property
    def decisions(self) -> Path:
        """Folder of the decision log (Parquet)."""
        return self.state / "decisions"

    @property
    def report(self) -> Path:
        """Folder of the weekly report (HTML)."""
        return self.state / "report"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry address."""
        return TRACKING or f"sqlite:///{self.home / 'mlflow.db'}"
