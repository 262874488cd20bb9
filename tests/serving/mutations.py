"""Requests as callers send them, and seeded mutations of them: bytes, JSON, headers, encodings and paths."""

import base64
import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

JSON_TYPE, FORM = "application/json", "application/x-www-form-urlencoded"
GOLDEN = Path(__file__).parent / "collect" / "golden"
COHORT, PEOPLE, DEVICES = 1_000, 60, 30
"""Requests that are about the same people, users and devices; then come others, as nobody sends without end."""
TIME = "2025-06-0%dT0%d:%02d:00Z"


class Asked(NamedTuple):
    """A request as it goes over the wire. path, query: percent-encoded."""

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True)
class Seed:
    """A request that the service answers. document: its JSON, which `place` puts in body, form or query."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    document: Any = None
    place: str = "body"
    weight: float = 1.0


def track(event: str = "Feature Used", **more: Any) -> dict[str, Any]:
    """A track call of the contract."""
    return {"type": "track", "event": event, "userId": "u1", "messageId": "m", "timestamp": TIME % (1, 1, 1)} | more


EVENTS = [
    {"type": "identify", "userId": "u1", "anonymousId": "d1", "messageId": "m", "traits": {"role": "dev"}},
    track("Signed Up", properties={"method": "email"}, context={"userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}),
    track("File Uploaded", properties={"bytes": 9_000}),
    track("Page Viewed", anonymousId="d1", properties={"path": "/a"}, context={"page": {"url": "https://a.b/?utm_source=c"}}),
    {"type": "page", "anonymousId": "d1", "messageId": "m", "name": "Home", "context": {"page": {"referrer": "https://g.co/"}}},
    {"type": "alias", "userId": "u1", "previousId": "d1", "messageId": "m"},
]  # fmt: skip
COLLECTED = [
    Seed("POST", "/v1/batch", document={"batch": EVENTS, "sentAt": "2026-01-01T02:00:00Z"}, weight=8),
    Seed("POST", "/v1/track", document=EVENTS[2], weight=3),
    Seed("POST", "/v1/identify", document=EVENTS[0], weight=3),
    Seed("POST", "/v1/page", document=EVENTS[4], weight=2),
    Seed("POST", "/v1/alias", document=EVENTS[5]),
    Seed("GET", "/v1/pixel/track", document=EVENTS[1], place="query", weight=2),
    Seed("GET", "/v1/pixel/identify", document=EVENTS[0], place="query"),
    Seed("GET", "/v1/projects/key/settings"),
    Seed("GET", "/firstmile.js"),
]
ASKED = [
    Seed("POST", "/v1/decide", document={"userId": "u1", "explain": True}, weight=6),
    Seed("POST", "/v1/decide", document={"anonymousId": "d1"}, weight=2),
    Seed("POST", "/v1/decide/batch", document={"userIds": ["u1", "u2"], "anonymousIds": ["d1"]}, weight=3),
    Seed("GET", "/v1/users/u1", {"limit": "10", "after": "0"}, weight=0.5),
    Seed("GET", "/v1/anonymous/d1", weight=0.5),
    Seed("GET", "/v1/users/u1/why", headers={"accept": "text/html"}, weight=0.5),
    Seed("GET", "/v1/anonymous/d1/why", weight=0.5),
    Seed("PUT", "/v1/users/u1/opt-out", weight=0.2),
    Seed("DELETE", "/v1/users/u1/opt-out", weight=0.5),
    Seed("PUT", "/v1/anonymous/d1/opt-out", weight=0.1),
    Seed("DELETE", "/v1/anonymous/d1/opt-out", weight=0.2),
    Seed("DELETE", "/v1/users/u1", weight=0.02),
    Seed("DELETE", "/v1/anonymous/d1", weight=0.02),
    Seed("GET", "/v1/quarantine", {"limit": "5", "reason": "wrong_type"}, weight=0.5),
    Seed("GET", "/v1/segments"),
    Seed("GET", "/v1/playbook", weight=0.5),
    Seed("GET", "/console"),
    Seed("GET", "/console/index.html"),
    Seed("GET", "/metrics", weight=0.5),
    Seed("GET", "/docs", weight=0.2),
    Seed("GET", "/openapi.json", weight=0.2),
    Seed("GET", "/readyz"),
    Seed("GET", "/"),
]


def of_golden(pair: dict[str, Any]) -> Seed:
    """A request that an SDK sent."""
    query = dict(parse_qsl(pair.get("query", "")))
    rest = (query, pair.get("headers", {}))
    if "form" in pair:
        return Seed("POST", pair["path"], *rest, pair["form"].get("data", {}), "form")
    if data := query.pop("data", None):
        return Seed("GET", pair["path"], *rest, json.loads(base64.urlsafe_b64decode(data + "==")), "query")
    return Seed("POST", pair["path"], *rest, pair.get("body", pair.get("text")))


SDKS = [of_golden(pair) for file in sorted(GOLDEN.glob("*.json")) for pair in json.loads(file.read_text())]
SEEDS = [*COLLECTED, *SDKS, *ASKED]

HOLE = "hole-7f3a"
TOKENS = [
    "9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551616", "9007199254740993",
    "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-0.0", "-0", "0.1", "1.5e308", "9" * 400, "01", "0x10", "1e",
    r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', '"\x00"', r'"a\u0000b"', r'"\u202e"', r'"\u2028"', r'"\x41"',
    '"' + "a" * 300 + '"', '"' + "a" * 70_000 + '"', '"' + "\u00fc" * 300 + '"', '"</script><script>alert(1)"',
    "\"'; --\"", '"anon:d1"', '"%00"', '"../../etc"', '"2026-02-30T00:00:00Z"', '"9999-12-31T23:59:59.999999999Z"',
    '"0001-01-01T00:00:00+14:00"', '"2026-01-01T00:00:00"', "[" * 60 + "]" * 60, "[" * 5_000, "[" + "1," * 2_000 + "1]",
    '{"a":' * 80 + "1" + "}" * 80, '{"a":' * 3_000 + "1" + "}" * 3_000, '{"a":1,"a":2}', '{"":1}', '[null,1,"a"]',
    "null", "true", "false", '""', "[]", "{}", "[[]]", "1", '"1"', "",
]  # fmt: skip
NAMES = [
    "userId", "anonymousId", "previousId", "messageId", "timestamp", "sentAt", "originalTimestamp", "type", "event",
    "properties", "traits", "context", "batch", "optOut", "userHash", "$token", "$distinct_id", "distinct_id", "time",
    "$insert_id", "client_id", "user_id", "events", "params", "userIds", "anonymousIds", "explain", "after", "bytes",
    "consent", "__proto__",
]  # fmt: skip
HEADERS = [
    (b"content-type", b"text/plain"), (b"content-type", b"application/json; charset=utf-16"),
    (b"content-type", b"multipart/form-data; boundary=a"), (b"content-type", b""), (b"content-type", b"\xff\xfe"),
    (b"content-encoding", b"gzip"), (b"content-encoding", b"br"), (b"content-encoding", b"gzip, gzip"),
    (b"content-length", b"-1"), (b"content-length", b"9" * 30), (b"content-length", b"1"),
    (b"authorization", b"Basic !!!"), (b"authorization", b"Basic " + base64.b64encode(b"\xff\x00:")),
    (b"authorization", b"Bearer " + b"x" * 500), (b"accept", b"text/html;q=a, */*"), (b"accept-encoding", b"gzip;q=0"),
    (b"host", b"evil.example"), (b"host", b""), (b"host", b"[::1"), (b"origin", b"null"), (b"origin", b"http://["),
    (b"referer", b"http://[::1"), (b"forwarded", b'for="[::1'), (b"x-forwarded-for", b",,"), (b"x-real-ip", b"\xff"),
    (b"x-forwarded-proto", b"\xff"), (b"sec-fetch-site", b"cross-site"), (b"dnt", b"1"), (b"sec-gpc", b"1"),
    (b"user-agent", b"\xff\x01" * 50), (b"last-event-id", b"9" * 40), (b"expect", b"100-continue"),
]  # fmt: skip
PIECES = [
    b"%00", b"%2F", b"%2f..%2f", b"..", b"/", b"//", b"%", b"%zz", b"%FF", b"%C3%BC", b"%0A", b"%1B[31m", b"?", b"#",
    b"a" * 600, b"%3A", b"anon:", b"+", b"'", b"\\", b"%ED%A0%80",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"]


class Mutator:
    """Makes requests up, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._asked = self._made = 0
        self._weights = [s.weight for s in SEEDS]

    def ask(self) -> Asked:
        """The next request; one in eight is not mutated."""
        r, seed = self.random, self.random.choices(SEEDS, self._weights)[0]
        self._asked += 1
        how = r.choices(["json", "bytes", "headers", "path", "encoding", "many", "none"], [8, 4, 2, 2, 2, 2, 3])[0]
        document = self.own(deepcopy(seed.document)) if r.random() < 0.8 else seed.document
        text = document.encode() if isinstance(document, str) else b""
        if not text and document is not None:
            text = self.extreme(document) if how in ("json", "many") else json.dumps(document).encode()
        if how in ("bytes", "many"):
            text = self.damaged(text)
        path = self.own_path(seed.path).encode()
        if how in ("path", "many"):
            path = self.strange(path)
        asked = self.placed(seed, path, text)
        if how in ("encoding", "many") and asked.body:
            asked = asked._replace(**self.encoded(asked))
        if how in ("headers", "many"):
            asked = asked._replace(headers=self.dressed(asked.headers))
            if r.random() < 0.2:
                asked = asked._replace(method=r.choice(METHODS))
        return asked

    def placed(self, seed: Seed, path: bytes, text: bytes) -> Asked:
        """The request of a seed with another path and text."""
        headers = [(n.lower().encode(), v.encode()) for n, v in seed.headers.items()]
        query, body = dict(seed.query), b""
        if seed.document is not None and seed.place == "query":
            query["data"] = base64.urlsafe_b64encode(text).decode()
        elif seed.document is not None and seed.place == "form":
            body = b"data=" + (quote(text).encode() if self.random.random() < 0.5 else base64.b64encode(text))
            headers.append((b"content-type", FORM.encode()))
        elif seed.document is not None:
            body = text
            headers.append((b"content-type", JSON_TYPE.encode()))
        return Asked(seed.method, path, urlencode(query).encode(), headers, body)

    def own(self, document: Any) -> Any:
        """The document with fresh message ids, of any of the people."""
        r = self.random
        if isinstance(document, dict):
            for key, value in document.items():
                if key in ("messageId", "$insert_id"):
                    self._made += 1
                    document[key] = f"m{self._made}"
                elif key in ("userId", "distinct_id", "$distinct_id", "$user_id", "user_id") and value:
                    document[key] = self.user()
                elif key in ("anonymousId", "$device_id", "client_id", "previousId") and value:
                    document[key] = self.device()
                elif key == "timestamp" and isinstance(value, str):
                    document[key] = TIME % (r.randint(1, 9), r.randint(0, 9), r.randint(0, 59))
                else:
                    document[key] = self.own(value)
        elif isinstance(document, list):
            return [self.user() if v in ("u1", "u2") else self.own(v) for v in document]
        return document

    def own_path(self, path: str) -> str:
        """The path with any of the people in it."""
        return path.replace("/u1", f"/{self.user()}").replace("/d1", f"/{self.device()}")

    def user(self) -> str:
        """The id of any user of now."""
        return f"u{self._asked // COHORT}-{self.random.randrange(PEOPLE)}"

    def device(self) -> str:
        """The id of any device of now."""
        return f"d{self._asked // COHORT}-{self.random.randrange(DEVICES)}"

    def extreme(self, document: Any) -> bytes:
        """The document's JSON with up to three values, names or members that nobody expects."""
        r, document, tokens = self.random, deepcopy({"": document}), list[tuple[str, str]]()
        for n in range(r.choice([1, 1, 1, 2, 3])):
            hole = f"{HOLE}{n}-"
            spots = [spot for spot in places(document) if not str(spot[0][spot[1]]).startswith(HOLE)]
            if not spots:
                break
            holder, key = r.choice(spots)
            act = r.choice(["value", "value", "value", "add", "gone", "twice", "cross"])
            if act == "value" or holder is document:
                holder[key] = hole
                tokens.append((f'"{hole}"', r.choice(TOKENS)))
            elif act == "gone":
                holder.pop(key)
            elif act == "cross":
                other, name = r.choice(spots)
                holder[key] = deepcopy(other[name]) if other[name] is not holder[key] else 7
            elif isinstance(holder, list):
                holder.extend([deepcopy(holder[key])] * r.choice([1, 5, 50]))
            else:
                name = str(key) if act == "twice" else r.choice(NAMES)
                holder[hole] = deepcopy(holder[key])
                tokens.append((f'"{hole}"', json.dumps(name)))
        text = json.dumps(document[""])
        for hole, token in tokens:
            text = text.replace(hole, token)
        return text.encode(errors="surrogatepass")

    def damaged(self, text: bytes) -> bytes:
        """Bytes flipped, cut, repeated, put in or spliced, up to four times."""
        r, text = self.random, bytearray(text)
        for _ in range(r.choice([1, 1, 2, 4])):
            a, b = sorted((r.randint(0, len(text)), r.randint(0, len(text))))
            act = r.choice(["flip", "flip", "cut", "repeat", "put", "splice", "byte"])
            if act == "flip" and text:
                text[r.randrange(len(text))] ^= 1 << r.randrange(8)
            elif act == "byte" and text:
                text[r.randrange(len(text))] = r.choice(b'\x00\xff\xc0"\\{}[],:\n0-')
            elif act == "cut":
                del text[a:b]
            elif act == "repeat":
                text[a:a] = text[a:b] * r.choice([1, 2, 8]) if b - a < 4_000 else b""
            elif act == "put":
                text[a:a] = r.choice([*PIECES, r.randbytes(r.randint(1, 8)), b"\xef\xbb\xbf", b"\xed\xa0\x80", b"NaN"])
            else:
                other = json.dumps(r.choice(SEEDS).document).encode()
                text[b:] = other[r.randint(0, len(other)) :]
        return bytes(text)

    def strange(self, path: bytes) -> bytes:
        """The path with pieces put in, changed or taken out."""
        r = self.random
        for _ in range(r.choice([1, 1, 2])):
            at = r.choice([len(path), path.rfind(b"/") + 1, r.randint(1, len(path))])
            path = path[:at] + r.choice(PIECES) + path[at + r.choice([0, 0, 1, 5]) :]
        path = path.replace(b"?", b"%3F").replace(b"#", b"%23")
        return path if path.startswith(b"/") else b"/" + path

    def encoded(self, asked: Asked) -> dict[str, Any]:
        """Body and headers of a body packed with gzip, well or badly, or said to be."""
        r, body = self.random, asked.body
        packed = gzip.compress(body, 1)
        half = len(body) // 2
        packs: list[Callable[[], bytes]] = [
            lambda: packed,
            lambda: gzip.compress(body[:half], 1) + gzip.compress(body[half:], 1),
            lambda: packed[: r.randint(0, len(packed))],
            lambda: packed + r.randbytes(9),
            lambda: packed + gzip.compress(b"") * r.choice([1, 5, 500]),
            lambda: self.damaged(packed),
            lambda: gzip.compress(packed, 1),
            lambda: body,
        ]
        return {"body": r.choice(packs)(), "headers": [*asked.headers, (b"content-encoding", b"gzip")]}

    def dressed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Headers put in place of others, added, or taken away."""
        r, headers = self.random, list(headers)
        for _ in range(r.choice([1, 1, 2, 3])):
            name, value = r.choice(HEADERS)
            if headers and r.random() < 0.2:
                headers.pop(r.randrange(len(headers)))
            elif r.random() < 0.7:
                headers = [h for h in headers if h[0] != name]
            headers.append((name, value))
        return headers


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in nested objects and arrays, as holder and key."""
    found = list[tuple[Any, Any]]()
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        found.append((tree, key))
        if isinstance(tree[key], dict | list):
            found += places(tree[key])
    return found


def wire(asked: Asked) -> bytes:
    """The request as bytes of HTTP/1.1, the last one of its connection."""
    target = asked.path + (b"?" + asked.query if asked.query else b"")
    fields = list(asked.headers)
    names = {name for name, _ in fields}
    fields += [] if b"host" in names else [(b"host", b"localhost")]
    fields += [] if b"content-length" in names or not asked.body else [(b"content-length", b"%d" % len(asked.body))]
    head = b"".join(b"%s: %s\r\n" % field for field in [*fields, (b"connection", b"close")])
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (asked.method.encode(), target, head, asked.body)
