"""Ids that a path could be read in two ways by, and ids that no path can hold."""

from collections.abc import Callable
from typing import Any

import pytest

from serving.app import App, _user_and_what
from serving.asgi import Refused
from serving.auth import Keys


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/v1/users/bob%2Fopt-out", ("bob/opt-out", "")),
        (b"/v1/users/bob/opt-out", ("bob", "/opt-out")),
        (b"/v1/users/bob%2Fwhy/why", ("bob/why", "/why")),
        (b"/v1/users/a%3Fb%23c%25d", ("a?b#c%d", "")),
        (b"/v1/users/%C3%BC", ("\u00fc", "")),
    ],
)
def test_an_id_is_told_apart_before_it_is_decoded(raw: bytes, expected: tuple[str, str]) -> None:
    assert _user_and_what({"raw_path": raw}) == expected


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"/v1/users/%00", 422),
        (b"/v1/users/a%0Ab", 422),
        (b"/v1/users/a%1Bb", 422),
        (b"/v1/users/a%C2%85b", 422),
        (b"/v1/users/%FF", 422),
        (b"/v1/users/bob/other", 404),
        (b"/v1/users/bob/opt-out/", 404),
    ],
)
def test_what_no_id_can_be_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        _user_and_what({"raw_path": raw})
    assert refused.value.status == status


@pytest.mark.parametrize(
    "path", ["/v1/users/%00", "/v1/anonymous/%00", "/v1/users/a%0Ab/opt-out", "/v1/users/a%00b/why"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_routes_answer_a_client_error(make_collector: Callable[..., App], ask: Any, method: str, path: str) -> None:
    app = make_collector()
    app.keys = Keys()
    assert ask(app, method, path).status_code in (405, 422)
