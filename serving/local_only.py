"""What is served without keys: requests of programs on this machine and of pages that it serves itself.

A web page of anywhere can make a browser on this machine send requests to loopback, under the page's own host name (DNS
rebinding) or across sites. So the caller's address is not enough.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from serving.asgi import HANG_UP, Refused, Scope, header
from serving.auth import is_loopback

OTHER_SITES = (b"cross-site", b"same-site")
"""Values of Sec-Fetch-Site that mean a page of another origin."""


def require_local(scope: Scope, remedy: str, may_send: Callable[[str], bool] = lambda origin: False) -> None:
    """Refuse a request that no program or page of this machine made.

    remedy: what to do about it, the end of the message. may_send: whether pages of an origin may send nevertheless.

    Raises:
        Refused: 403, the caller, a proxy's client, the Host or the page is not of this machine.
    """
    if not is_loopback((scope.get("client") or ("",))[0]):
        raise _refused("only this machine is served", remedy)
    for name in (b"x-forwarded-for", b"x-real-ip", b"forwarded"):
        if any(not is_loopback(client) for client in _clients(name, header(scope, name))):
            raise _refused(f"only this machine is served, and {name.decode()} names another", remedy)
    host = (header(scope, b"host") or b"").decode("latin-1").lower()
    if not is_loopback(_without_port(host)):
        raise _refused(f"expected the Host localhost, 127.0.0.1 or [::1], got {host[:200]!r}", remedy)
    origin = (header(scope, b"origin") or b"").decode("latin-1").lower()
    elsewhere = origin and origin not in (f"http://{host}", f"https://{host}")
    if elsewhere or header(scope, b"sec-fetch-site") in OTHER_SITES:
        page = origin or _origin((header(scope, b"referer") or b"").decode("latin-1"))
        if not may_send(page):
            raise _refused("a page of another site asks", remedy)


def _refused(what: str, remedy: str) -> Refused:
    return Refused(403, "forbidden", f"without keys {what}; {remedy}", None, HANG_UP)


def _clients(name: bytes, value: bytes | None) -> list[str]:
    """The addresses that a proxy's header names."""
    parts = (value or b"").decode("latin-1").lower().split(",") if value is not None else []
    if name == b"forwarded":
        pairs = [pair.strip().partition("=") for part in parts for pair in part.split(";")]
        return [_without_port(value.strip('"')) for key, _, value in pairs if key == "for"]
    return [part.strip() for part in parts]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _origin(address: str) -> str:
    """The origin of a page's address; empty where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""
