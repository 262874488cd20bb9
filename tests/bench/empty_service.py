"""Bento endpoints that do nothing: what the way through HTTP costs by itself."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import bentoml

Message = MutableMapping[str, Any]
SWITCHES: dict[str, Any] = {
    "workers": 1,
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
    "tracing": {"excluded_urls": [".*"]},
}


@bentoml.service(name="empty_api", **SWITCHES)
class EmptyApi:
    """An endpoint of Bento's own."""

    @bentoml.api
    async def empty(self, user_id: str) -> dict[str, Any]:
        """Nothing."""
        return {}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Reads the body, answers with two bytes."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@bentoml.service(name="empty_asgi", **SWITCHES)
@bentoml.asgi_app(app, path="/")
class EmptyAsgi:
    """A bare ASGI application under Bento, as the decision service is one."""
