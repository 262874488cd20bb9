"""Endpoints that answered 410 Gone: nothing is sent to them until somebody enables them again.

A small file in the state folder, `webhooks/disabled.json`: name → since when (RFC 3339).
"""

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from feature_repo.storage import flock

WAIT_S = 30.0


class Disabled:
    """The file in a folder. Safe from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "disabled.json"

    def since(self, name: str) -> str | None:
        """Since when an endpoint is disabled; null: it is not."""
        return self.all().get(name)

    def all(self) -> dict[str, str]:
        """Since when which are disabled.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as e:
            raise ValueError(f"{self.file}: {e}; write {{}} to disable nothing") from None

    def disable(self, name: str, since: str) -> None:
        """Send it nothing more."""
        with self._locked():
            self._write({name: since} | self.all())

    def enable(self, name: str) -> bool:
        """Send to it again, from where it was left; returns whether it was disabled."""
        if self.since(name) is None:
            return False
        with self._locked():
            self._write({n: since for n, since in self.all().items() if n != name})
        return True

    def _locked(self) -> AbstractContextManager[None]:
        return flock(self.file.with_suffix(".lock"), "change", WAIT_S)

    def _write(self, names: dict[str, str]) -> None:
        part = self.file.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(names))
        part.replace(self.file)
