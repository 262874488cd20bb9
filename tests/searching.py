"""A search over everything that is kept: every file of a folder, and every key of a Redis server, for some strings.

Bytes as they are (SQLite keeps text so, in its pages and its logs), file names, and what Parquet hides by compression.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def found(folder: Path, wanted: Iterable[str]) -> list[str]:
    """Where any of these strings is, in words; empty where none is anywhere."""
    forms = {form: text for text in wanted for form in _forms(text)}
    assert forms and min(map(len, forms)) >= 6, "a shorter string is found by chance"
    return [
        f"{path.relative_to(folder)}: {text} ({where})"
        for path in sorted(p for p in folder.rglob("*") if p.is_file())
        for where, content in _contents(path)
        for form, text in forms.items()
        if form in content
    ]


def in_redis(url: str, wanted: Iterable[str]) -> list[str]:
    """The same for every key and value of a Redis database."""
    import redis

    client, forms = redis.Redis.from_url(url), {form: text for text in wanted for form in _forms(text)}
    kinds = {b"hash": client.hgetall, b"string": client.get, b"set": client.smembers}
    kinds[b"zset"] = lambda key: client.zrange(key, 0, -1)
    everything = [(key, repr_of(kinds[client.type(key)](key))) for key in client.scan_iter()]
    client.close()
    return [f"{key!r}: {text}" for key, value in everything for form, text in forms.items() if form in key + value]


def repr_of(value: object) -> bytes:
    """All bytes in what Redis gives."""
    if isinstance(value, dict):
        return b"".join(k + v for k, v in value.items())
    return value if isinstance(value, bytes) else b"".join(value)  # type: ignore[call-overload,no-any-return]


def _forms(text: str) -> set[bytes]:
    """How a string may be written: plain, in JSON."""
    return {text.encode(), json.dumps(text)[1:-1].encode()}


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    raw = path.read_bytes()
    yield "name", str(path).encode()
    yield "bytes", raw
    if raw.startswith(b"PAR1"):
        yield "Parquet", json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()
    for line in raw.splitlines() if path.suffix == ".jsonl" else ():
        if b'"base64"' in line:
            yield "base64", base64.b64decode(json.loads(line)["raw"])
