"""Which web pages may send: those of the declared origins, and our own."""

from collections.abc import Mapping

from serving.asgi import Header, Refused

VARIABLE = "FIRSTMILE_ORIGINS"
ANY = "*"
EXPOSED: Header = (b"access-control-expose-headers", b"firstmile-receipts, retry-after")


class Cors:
    """The headers for browsers. declared: origins as the settings have them, or `*` for any."""

    def __init__(self, declared: frozenset[str] = frozenset()) -> None:
        self._declared = declared

    def headers(self, asked: Mapping[str, str]) -> tuple[Header, ...]:
        """What an answer to this request carries; nothing where no page of another origin sent it.

        asked: the request's headers by name in lower case.

        Raises:
            Refused: 403, the origin is not declared.
        """
        origin = asked.get("origin")
        if origin is None:
            return ()
        if ANY in self._declared:  # of any page, but nothing that a browser adds by itself, such as a cookie
            return ((b"access-control-allow-origin", b"*"), EXPOSED)
        if not self.may_send(origin):
            if origin.lower() in (f"http://{asked.get('host')}", f"https://{asked.get('host')}"):  # a page of ours
                return ()
            raise Refused(403, "origin_not_declared", f"{origin[:200]} is not among the origins in {VARIABLE}")
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            EXPOSED,
            (b"vary", b"origin"),
        )

    def may_send(self, origin: str) -> bool:
        """Whether pages of an origin are declared to send."""
        return ANY in self._declared or origin.lower() in self._declared

    def preflight(self, asked: Mapping[str, str], methods: str) -> tuple[Header, ...]:
        """What the answer to an OPTIONS request carries; raises as `headers` does."""
        wanted = asked.get("access-control-request-headers") or "content-type, authorization"
        return (
            *self.headers(asked),
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", wanted.encode("latin-1")),
            (b"access-control-max-age", b"86400"),
        )
