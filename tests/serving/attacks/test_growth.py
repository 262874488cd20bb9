"""Whatever reads a stranger's text takes time in proportion to it: eight times the text, never sixty times the time."""

import gzip
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from feature_repo import domains
from feature_repo.contract.events import Event, parse
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.enrichment.sources import referring
from feature_repo.erasing.tombstones import words
from serving.asgi import Refused
from serving.collect import ga4, mixpanel, segment
from serving.collect.cors import Cors
from serving.collect.request import MOST_MEMBERS, Request, decoded, parameters, plain, unwrapped
from serving.collect.times import microseconds
from serving.local_only import require_local

SMALLEST_S = 0.002
"""Below it the clock and the machine say more than the function."""
MERGE = b'{"event":"$merge","properties":{"$distinct_ids":[%s1]}}'
SAAS = domains.load("saas")
ENRICH = Enrichment(SAAS)


def seconds(act: Callable[[], Any]) -> float:
    """The processor time that it takes, the shortest of five times; what it refuses is refused."""
    took = list[float]()
    for _ in range(5):
        began = time.thread_time()
        with suppress(Refused, ValueError):
            act()
        took.append(time.thread_time() - began)
    return min(took)


def request(body: bytes = b"", query: dict[str, str] | None = None) -> Request:
    return Request("/v1/batch", query or {}, {}, body, 10**8, 0)


def enriched(context: dict[str, Any]) -> None:
    """All steps of a domain over one event that nobody has seen."""
    ENRICH.pure(Event("track", "m", "u", None, 0, 0, "Clicked", {}, {}, context))


def page(url: str, referrer: str) -> None:
    enriched({"page": {"url": url, "referrer": referrer}})


def local(name: bytes, value: bytes) -> None:
    require_local({"client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), (name, value)]}, "")


FUNCTIONS: dict[str, Callable[[int], Any]] = {
    "referrer of many labels": lambda n: referring("a." * n + "b"),
    "page of many labels": lambda n: page(f"http://{'a.' * n}b/", f"http://{'c.' * n}d"),
    "page of many parameters": lambda n: page(f"http://a.b/?{'utm_source=a&' * n}", ""),
    "user agent of versions": lambda n: enriched({"userAgent": "Mozilla/5.0 (Linux; Android " + "1." * n + f"{n}"}),
    "user agent of blanks": lambda n: enriched({"userAgent": "Mozilla/5.0 (" + "; " * n + f"{n}"}),
    "user agent of words": lambda n: enriched({"userAgent": "Chrome Safari Mobile bot " * n + f"{n}"}),
    "time zone": lambda n: enriched({"timezone": "A/" * n}),
    "gzip of empty files": lambda n: plain(gzip.compress(b"") * n, 10**7),
    "gzip of empty files after one": lambda n: plain(gzip.compress(b"a") + gzip.compress(b"") * n, 10**7),
    "base64": lambda n: unwrapped(b"ab_-" * n),
    "parameters": lambda n: parameters(b"a=%41&" * n),
    "JSON of arrays": lambda n: decoded(b"[" * n),
    "JSON of a long number": lambda n: decoded(b'{"a":' + b"9" * n + b"}"),
    "JSON with NaN": lambda n: decoded(b"[NaN" + b",1" * n + b"]"),
    "JSON of equal keys": lambda n: decoded(b"{" + b'"a":1,' * n + b'"a":1}'),
    "contract": lambda n: parse(b'{"type":"track","timestamp":"' + b"1" * n + b'","messageId":"m"}', SAAS, 0),
    "contract of keys": lambda n: parse(b'{"traits":{' + b'"a":1,' * n + b'"a":1}}', SAAS, 0),
    "words of an erasure, JSON": lambda n: words('{"a":"' + "b c," * n + '"}'),
    "words of an erasure, text": lambda n: words('"\\' * n),
    "words of an erasure, quotes": lambda n: words('"a' * n),
    "time": lambda n: microseconds("2026-" + "0" * n),
    "origin": lambda n: Cors(frozenset({"https://a.b"})).headers({"origin": "https://" + "a." * n, "host": "a"}),
    "Forwarded": lambda n: local(b"forwarded", b'for="127.0.0.1";' * n),
    "Referer": lambda n: local(b"referer", b"http://[" * n),
    "segment": lambda n: segment.take(request(b'{"batch":[' + b'{"a":1},' * n + b"{}]}")),
    "mixpanel lines": lambda n: mixpanel.take(request(b'{"a":1}\n' * n)),
    "mixpanel merges": lambda n: mixpanel.take(request(MERGE % (b"1," * n))),
    "mixpanel form": lambda n: mixpanel.opened(request(b"data=%7B" + b"%20" * n)),
    "ga4": lambda n: ga4.take(request(b'{"events":[{"name":"a","params":{' + b'"a":1,' * n + b'"b":1}}]}')),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_time_grows_with_the_text_and_no_faster(name: str) -> None:
    act, n = FUNCTIONS[name], 64
    while (took := seconds(partial(act, n))) < SMALLEST_S and n < 200_000:
        n *= 4
    if n >= 200_000:
        return  # a limit ends it before it costs anything
    assert seconds(partial(act, 8 * n)) < 24 * took


def test_a_referrer_of_a_thousand_labels_costs_as_little_as_one_of_ten() -> None:
    assert seconds(lambda: [referring("a." * 1_000 + "b") for _ in range(100)]) < 0.05
    assert referring("l.m.facebook.com").source == "facebook"
    assert referring("www1.google.co.uk").source == "google"


def test_gzip_files_one_after_another_are_unpacked_up_to_a_limit() -> None:
    some = b"".join(gzip.compress(b"%d," % n) for n in range(MOST_MEMBERS))
    assert plain(some, 10_000) == b"".join(b"%d," % n for n in range(MOST_MEMBERS))
    large = gzip.compress(bytes(range(256)) * 2_000, 0)
    assert plain(large * 3, 10**7) == bytes(range(256)) * 6_000
    with pytest.raises(Refused, match="gzip files one after another"):
        plain(some + gzip.compress(b""), 10_000)
    with pytest.raises(Refused, match="longer than 1000 bytes"):
        plain(gzip.compress(b"a" * 1_001), 1_000)
    assert plain(gzip.compress(b"a" * 1_000) + b"trailing", 1_000) == b"a" * 1_000
