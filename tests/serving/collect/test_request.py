import base64
import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.asgi import Refused
from serving.collect.request import decoded, parameters, plain, unwrapped

LIMIT = 500 * 1024


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_gzip_is_found_by_its_first_bytes(parts: list[bytes]) -> None:
    assert plain(b"".join(gzip.compress(p) for p in parts), LIMIT) == b"".join(parts)
    assert plain(b'{"a":1}', LIMIT) == b'{"a":1}'


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    assert len(bomb) < LIMIT
    tracemalloc.start()
    with pytest.raises(Refused) as refused:
        plain(bomb, LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    tracemalloc.stop()
    assert (refused.value.status, refused.value.problem.code) == (413, "too_long")


def test_many_small_gzips_are_one_bomb_too() -> None:
    with pytest.raises(Refused, match="longer than"):
        plain(gzip.compress(bytes(LIMIT // 4)) * 5, LIMIT)
    assert len(plain(gzip.compress(bytes(LIMIT // 4)) * 4, LIMIT)) == LIMIT


@pytest.mark.parametrize("broken", [b"\x1f\x8b", b"\x1f\x8bxxxxxxxxxxxx", gzip.compress(b"{}" * 99, mtime=0)[:-3]])
def test_broken_gzip_is_said_to_be(broken: bytes) -> None:
    with pytest.raises(Refused) as refused:
        plain(broken, LIMIT)
    assert (refused.value.status, refused.value.problem.code) == (400, "invalid_gzip")


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_base64_of_every_kind(value: dict[str, str | int]) -> None:
    text = json.dumps(value).encode()
    standard = base64.b64encode(text)
    for wrapped in (standard, standard.rstrip(b"="), base64.urlsafe_b64encode(text), standard.replace(b"+", b" ")):
        assert unwrapped(wrapped) == text
    assert unwrapped(text) == text


def test_one_bad_event_does_not_lose_its_batch() -> None:
    found = decoded(b'[{"a": NaN}, {"b": "\\ud800"}, {"c": 1e999}, {"d": "\xc3\xa9"}]')
    assert [found.encode(event) for event in found.value][3] == b'{"d": "\\u00e9"}'
    assert len(found.value) == 4


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":1}x', b"\xff", b"[" * 100_000])
def test_no_json(text: bytes) -> None:
    with pytest.raises(Refused) as refused:
        decoded(text)
    assert (refused.value.status, refused.value.problem.code) == (400, "invalid_json")


def test_of_a_repeated_parameter_the_last_counts() -> None:
    assert parameters(b"a=1&b=&a=2&c=%ff") == {"a": "2", "b": "", "c": "\ufffd"}
    with pytest.raises(Refused, match="at most 100"):
        parameters(b"a=1&" * 101)
