"""The browser snippet, GET /firstmile.js: firstmile.js without comments and blanks, in gzip where that is taken."""

import gzip
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from serving.asgi import Answer, Header

SOURCE = Path(__file__).with_name("firstmile.js")
HEADERS: tuple[Header, ...] = (
    (b"cache-control", b"public, max-age=3600"),
    (b"vary", b"accept-encoding"),
    (b"access-control-allow-origin", b"*"),
)


BLANKS = re.compile(r" ?([=(){}\[\]?:;,&|<>*+!]) ?")
LINES = re.compile(r"(?<=[{(,;])\n|\n(?=[}\])])")
"""Ends of lines that end no statement."""


@lru_cache
def script() -> bytes:
    """The script as it is served. So no string in it may have a blank beside punctuation."""
    lines = (line.strip() for line in SOURCE.read_text(encoding="utf-8").splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    return LINES.sub("", BLANKS.sub(r"\1", code)).encode()


@lru_cache
def packed() -> bytes:
    """The same in gzip."""
    return gzip.compress(script(), 9, mtime=0)


def answer(headers: Mapping[str, str]) -> Answer:
    """The script; any page may load it."""
    javascript = b"text/javascript; charset=utf-8"
    if "gzip" in headers.get("accept-encoding", ""):
        return Answer(packed(), content_type=javascript, headers=(*HEADERS, (b"content-encoding", b"gzip")))
    return Answer(script(), content_type=javascript, headers=HEADERS)
