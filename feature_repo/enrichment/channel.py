"""Referrer, UTM parameters and click ids -> the channel that somebody came through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from feature_repo.enrichment.sources import CLICK_IDS, MEDIUMS, PAID, SOURCES, Came, referring
from feature_repo.enrichment.step import added

if TYPE_CHECKING:
    from feature_repo.contract.events import Event

LONGEST = 2_048
"""Characters of an address that are looked at."""
LONGEST_HOST = 253
"""Characters of a host name, as in DNS; a longer one is none."""
KEPT = 2_048
"""Pages that are remembered."""
UTM = {"id": "id", "source": "source", "medium": "medium", "campaign": "name", "term": "term", "content": "content"}
"""Names of the parameters, after utm_, and of what a campaign has."""
DIRECT = Came("direct", "none", "direct")


class Url(NamedTuple):
    """host: in lower case, without www; parameters: the first value of each."""

    host: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Channel:
    """What is missing of context.campaign, and its channel, from context.page.url, .search and .referrer.

    campaign.{id, source, medium, name, term, content} are the page's utm_ parameters. Where neither these nor the
    sender tell source or medium, a click id or the referrer does: a search engine is `organic`, a network `social`,
    another host `referral`, and an empty referrer is `direct`. A referrer on the same site says nothing.
    campaign.channel is one of direct, organic_search, paid_search, organic_social, paid_social, paid_other, display,
    email, affiliate, assistant, referral, sms, push, other.

    own: further hosts (and all below them) that are one's own, or whose visitors were here before, such as a payment's.
    """

    own: tuple[str, ...] = ()

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        return dict.fromkeys([f"context.campaign.{name}" for name in (*UTM.values(), "channel")], "string")

    def compiled(self) -> Callable[["Event"], "Event"]:
        """The step itself."""
        return partial(_apply, self.own)


def _apply(own: tuple[str, ...], event: "Event") -> "Event":
    page, given = event.context.get("page"), event.context.get("campaign")
    given = {} if given is None else given
    if type(given) is not dict or not (given or type(page) is dict):
        return event
    if type(page) is dict:
        utm, came = _found(own, _text(page, "url"), _text(page, "search"), _text(page, "referrer"))
    else:
        utm, came = {}, None
    found: dict[str, str | None] = dict(utm)
    if came and not any(given.get(k) or utm.get(k) for k in ("source", "medium")):
        found |= {"source": came.source, "medium": came.medium}
    found["channel"] = _channel(*(_lower(given.get(k) or found.get(k)) for k in ("source", "medium")))
    return added(event, {("campaign", name): value for name, value in found.items()})


def _text(page: dict[str, Any], name: str) -> str | None:
    value = page.get(name)
    return value[:LONGEST] if type(value) is str else None


@lru_cache(KEPT)
def _found(
    own: tuple[str, ...], url: str | None, search: str | None, referrer: str | None
) -> tuple[Mapping[str, str], Came | None]:
    """The campaign that an address names, and where somebody came from by a click id or the referrer."""
    here = _url(url or "")
    parameters = {**_parameters((search or "").removeprefix("?")), **here.parameters}
    utm = {name: parameters[f"utm_{key}"] for key, name in UTM.items() if parameters.get(f"utm_{key}")}
    clicked = next((came for key, came in CLICK_IDS.items() if parameters.get(key)), None)
    return utm, clicked or _from(referrer, here.host, own)


def _from(referrer: str | None, here: str, own: tuple[str, ...]) -> Came | None:
    if referrer == "":
        return DIRECT if here else None
    host = _url(referrer or "").host
    if not host or any(_below(host, site) or _below(site, host) for site in (here, *own) if site):
        return None
    return referring(host)


def _below(host: str, site: str) -> bool:
    return host == site or host.endswith(f".{site}")


def _url(text: str) -> Url:
    """Nothing where it is no address of the web or of an app."""
    try:
        found = urlsplit(text)
        host = found.hostname if found.scheme in ("http", "https", "android-app") else None
    except ValueError:
        host = None
    if not host or len(host) > LONGEST_HOST:
        return Url("", {})
    return Url(host.removeprefix("www."), _parameters(found.query))


def _parameters(query: str) -> dict[str, str]:
    try:
        return dict(reversed(parse_qsl(query, max_num_fields=100)))
    except ValueError:  # more than that
        return {}


def _lower(value: Any) -> str:
    return value.lower() if type(value) is str else ""


def _channel(source: str, medium: str) -> str | None:
    """None: nothing is known. A source alone has to be a known one."""
    known = SOURCES.get(source)
    if PAID.match(medium):
        return {"organic_search": "paid_search", "organic_social": "paid_social"}.get(known or "", "paid_other")
    if medium:
        return MEDIUMS.get(medium, "other")
    return known
