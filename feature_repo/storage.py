"""A folder at any fsspec URI whose files appear whole or not at all, and in which writers exclude one another."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


class BusyError(RuntimeError):
    """Somebody else holds the folder for the same work."""


class DamagedFile(RuntimeError):
    """A file of the state is missing, truncated or not what it should be. The message names it and says what to do."""


class Folder:
    """Immutable files under one URI: a local folder, `s3://bucket/lake`, `memory://lake`, …

    A name is relative to the URI, with `/` between its parts.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        from fsspec.core import url_to_fs  # takes a while, and most commands need no folder to say what they are
        from fsspec.implementations.local import LocalFileSystem

        self.uri = os.fspath(uri)
        self.fs, root = url_to_fs(self.uri)
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Where fsspec finds a file."""
        return f"{self.root}/{name}"

    def url(self, name: str) -> str:
        """Where DuckDB finds a file, once `register` has been called on its connection."""
        return self.path(name) if self.local else self.fs.unstrip_protocol(self.path(name))

    def register(self, con: Any) -> None:
        """Let a DuckDB connection read from here."""
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        if not self.local and not protocols & set(con.list_filesystems()):
            con.register_filesystem(self.fs)

    def names(self, folder: str) -> list[str]:
        """The files of a sub-folder; none where there is no such folder. Asks for nothing but their names."""
        if not self.local:
            return list(self.sizes(folder))
        try:
            with os.scandir(self.path(folder)) as entries:
                return [f"{folder}/{e.name}" for e in entries if e.is_file()]
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file of a sub-folder, by name; empty where there is no such folder."""
        if self.local:
            try:
                with os.scandir(self.path(folder)) as entries:
                    return {f"{folder}/{e.name}": e.stat().st_size for e in entries if e.is_file()}
            except FileNotFoundError:
                return {}
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {f"{folder}/{f['name'].rsplit('/', 1)[-1]}": f["size"] for f in found if f["type"] == "file"}

    def versions(self, folder: str) -> dict[str, str]:
        """By name, for each file of a sub-folder, a text that is another one once the file has been replaced."""
        if self.local:
            try:
                with os.scandir(self.path(folder)) as entries:
                    stats = [(e.name, e.stat()) for e in entries if e.is_file()]
            except FileNotFoundError:
                return {}
            return {f"{folder}/{name}": _version(s) for name, s in stats}
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}
        told = ("size", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
        return {
            f"{folder}/{f['name'].rsplit('/', 1)[-1]}": " ".join(str(f[t]) for t in told if t in f)
            for f in found
            if f["type"] == "file"
        }

    def unchanged(self, versions: Mapping[str, str]) -> bool:
        """Whether these files are there, none of them replaced; version by name, as `versions` gives them."""
        if not self.local:
            now = {k: v for folder in {n.rsplit("/", 1)[0] for n in versions} for k, v in self.versions(folder).items()}
            return all(now.get(name) == version for name, version in versions.items())
        try:
            return all(_version(os.stat(self.path(name))) == version for name, version in versions.items())
        except FileNotFoundError:
            return False

    def open(self, name: str) -> Any:
        """A file to read from at any place, which stays as it is when another takes its name.

        Raises:
            FileNotFoundError: there is none.
        """
        import pyarrow as pa

        return pa.memory_map(self.path(name)) if self.local else self.fs.open(self.path(name), "rb")

    def read(self, name: str) -> bytes | None:
        """What a file holds, or None where there is none."""
        self.fs.invalidate_cache()
        try:
            return bytes(self.fs.cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def publish(self, staged: Path, name: str) -> None:
        """Make a finished local file appear under a name, at once, also after a power cut; replaces an older one.

        On other filesystems this rests on a put being atomic, as it is on object stores.
        """
        if not self.local:
            self.fs.put_file(str(staged), self.path(name))
            return
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(staged)
        staged.replace(target)
        _sync(target.parent)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.fs.exists(self.path(name)):
            self.fs.rm_file(self.path(name))

    @contextmanager
    def exclusive(self, work: str, wait_s: float) -> Iterator[Path]:
        """Hold the folder for one kind of work; gives an empty local folder to stage files in.

        On a local folder the lock ends with the process, however that ends. Elsewhere it is a file made with
        "create only if absent", which a killed writer leaves behind: the error names it.

        Raises:
            BusyError: somebody else holds it, still after `wait_s` seconds.
        """
        if self.local:
            with flock(Path(self.path(f"{work}.lock")), work, wait_s), _fresh(Path(self.path(f".{work}"))) as stage:
                yield stage
        else:
            with self._lock_file(f"{work}.lock", wait_s), tempfile.TemporaryDirectory(prefix=f"{work}-") as stage_name:
                yield Path(stage_name)

    @contextmanager
    def _lock_file(self, name: str, wait_s: float) -> Iterator[None]:
        token = f"process {os.getpid()} on {socket.gethostname()} ({uuid4().hex})".encode()
        deadline = time.monotonic() + wait_s
        while not self._create(name, token):
            if time.monotonic() >= deadline:
                holder = (self.read(name) or b"nobody any more").decode()
                raise BusyError(
                    f"{self.uri}: expected to be alone; {name} is held by {holder}. "
                    "Wait for it to end, or remove that file if that process is gone."
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            self.remove(name)

    def _create(self, name: str, content: bytes) -> bool:
        try:
            self.fs.pipe_file(self.path(name), content, mode="create")
        except FileExistsError:
            return False
        return True


@contextmanager
def flock(path: Path, work: str, wait_s: float) -> Iterator[None]:
    """Hold a local lock file, which ends with the process, however that ends.

    Raises:
        BusyError: another process holds it, still after `wait_s` seconds.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+b") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        f"{path.parent}: expected to be alone; another process holds {path.name}. "
                        f"Wait for its {work} to end, or stop it."
                    ) from None
                time.sleep(0.02)
        yield


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """An empty folder, removed afterwards; what a killed process left in it goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _version(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
