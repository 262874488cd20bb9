"""User agent -> kind of device, browser and operating system, by the rules of the ua-parser project."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from feature_repo.enrichment.step import Added, added

if TYPE_CHECKING:
    from feature_repo.contract.events import Event

LONGEST = 512
"""Characters of a user agent that are looked at."""
KEPT = 4_096
"""User agents that are remembered."""
DESKTOP = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD", "OpenBSD"})
VARIANTS = {"Mobile Safari": "Safari", "HeadlessChrome": "Chrome"}
ENDINGS = (" Mobile WebView", " Mobile iOS", " Mobile", " iOS", " WebView", "/WKWebView")


@dataclass(frozen=True)
class UserAgent:
    """context.userAgent -> context.device.type (desktop, mobile, tablet, bot), .browser, .os.name and .os.version.

    A browser has one name on all devices: Safari, not Mobile Safari. Left out is what the user agent does not tell;
    an iPad whose Safari asks for desktop pages says that it is a Mac.
    """

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        paths = ("context.device.type", "context.browser", "context.os.name", "context.os.version")
        return dict.fromkeys(paths, "string")

    def compiled(self) -> Callable[["Event"], "Event"]:
        """The step itself."""
        return _apply


def _apply(event: "Event") -> "Event":
    agent = event.context.get("userAgent")
    if type(agent) is not str or not agent:
        return event
    return added(event, _told(agent[:LONGEST]))


@lru_cache(KEPT)
def _told(agent: str) -> Added:
    import ua_parser

    found = ua_parser.parse(agent)
    browser, os, device = found.user_agent, found.os, found.device
    return {
        ("device", "type"): _kind(agent, os.family if os else "", device.family if device else "", device),
        ("browser",): _plain(browser.family) if browser else None,
        ("os", "name"): os.family if os else None,
        ("os", "version"): ".".join(part for part in (os.major, os.minor) if part) if os else None,
    }


def _kind(agent: str, os: str, family: str, device: Any) -> str | None:
    """Devices have no kind in ua-parser: Android's phones say Mobile, its tablets don't."""
    if family == "Spider":
        return "bot"
    if family in ("iPad", "Kindle") or "tablet" in f"{family} {device and device.brand}".lower():
        return "tablet"
    if family in ("iPhone", "iPod", "Generic Smartphone"):
        return "mobile"
    if os == "Android":
        return "mobile" if "Mobile" in agent else "tablet"
    if os in DESKTOP:
        return "desktop"
    return "mobile" if "Mobile" in agent else None


def _plain(family: str) -> str:
    """A browser's name without what it says of the device.

    >>> _plain("Chrome Mobile WebView"), _plain("Mobile Safari"), _plain("Samsung Internet")
    ('Chrome', 'Safari', 'Samsung Internet')
    """
    for ending in ENDINGS:
        family = family.removesuffix(ending)
    return VARIANTS.get(family, family)
