"""Keyed hashes of ids: they recognise a person's id and say nothing to whoever reads the file they are in.

erased.key    32 random bytes, made once, mode 0600: without them a hash cannot be tried against guessed ids
"""

import os
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from feature_repo.storage import DamagedFile

FILE = "erased.key"
KEY_BYTES = 32


class Hashes:
    """The hashes of one state folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def __call__(self, sender: str) -> bytes:
        """The hash, 16 bytes, of a user id or "anon:" + anonymous id."""
        return blake2b(sender.encode(errors="surrogatepass"), key=self._key, digest_size=16).digest()

    def prepare(self) -> None:
        """Make the key where there is none."""
        if not self.file.exists():
            _make(self.file)

    def needed(self, by: Path) -> None:
        """Say that a file holds such hashes.

        Raises:
            DamagedFile: the key is missing or is none, so that nobody in that file would be recognised.
        """
        found = self.file.stat().st_size if self.file.exists() else None
        if found != KEY_BYTES:
            came = "it is missing" if found is None else f"came {found}"
            raise DamagedFile(
                f"{self.file}: expected the {KEY_BYTES} bytes of the key of {by}; {came}. Bring it back from a backup: "
                "without it nobody who was erased or has opted out is recognised."
            )

    @cached_property
    def _key(self) -> bytes:
        if not self.file.exists():
            _make(self.file)
        return self.file.read_bytes()


def _make(path: Path) -> None:
    """Write a new key; of several processes that do so one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, os.urandom(KEY_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()
