"""GET /console, /console/demo and the files that these pages load: as they are, from this service alone."""

import gzip
from functools import lru_cache
from pathlib import Path

from serving.asgi import Answer, Header, Refused

PATH = "/console"
FOLDER = Path(__file__).parent
PAGES = {PATH: "index.html", f"{PATH}/demo": "demo.html"}
TYPES = {".html": b"text/html", ".css": b"text/css", ".js": b"text/javascript"}
FILES = PAGES | {
    f"{PATH}/{file.name}": file.name for file in sorted(FOLDER.iterdir()) if file.suffix in (".css", ".js")
}
"""Path -> file."""
HEADERS: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
    (b"vary", b"accept-encoding"),
)


@lru_cache(2 * len(FILES))
def answer(path: str, packed: bool = False) -> Answer:
    """The file at a path. packed: in gzip.

    Raises:
        Refused: 404, there is none.
    """
    if path not in FILES:
        raise Refused(404, "not_found", f"there is no {path}; /openapi.json lists what there is")
    file = FOLDER / FILES[path]
    content, kind = file.read_bytes(), TYPES[file.suffix] + b"; charset=utf-8"
    if packed:
        return Answer(gzip.compress(content, 9, mtime=0), 200, kind, (*HEADERS, (b"content-encoding", b"gzip")))
    return Answer(content, 200, kind, HEADERS)
