"""The table behind the channels: which hosts, sources and mediums stand for what."""

import re
from typing import NamedTuple


class Came(NamedTuple):
    """Where somebody came from: source and medium as a campaign has them, and the channel."""

    source: str
    medium: str
    channel: str


MEDIUMS = {
    "none": "direct",
    "(none)": "direct",
    "organic": "organic_search",
    "social": "organic_social",
    "social-network": "organic_social",
    "social-media": "organic_social",
    "social network": "organic_social",
    "social media": "organic_social",
    "sm": "organic_social",
    "email": "email",
    "e-mail": "email",
    "e_mail": "email",
    "mail": "email",
    "newsletter": "email",
    "affiliate": "affiliate",
    "affiliates": "affiliate",
    "display": "display",
    "banner": "display",
    "cpm": "display",
    "interstitial": "display",
    "assistant": "assistant",
    "referral": "referral",
    "link": "referral",
    "app": "referral",
    "sms": "sms",
    "push": "push",
}
"""Channel by medium; all that are paid for are PAID's."""
PAID = re.compile(r"cp[aclv]$|ppc$|paid|retargeting$|remarketing$")
"""Mediums that are paid for; whether search, social or other depends on the source."""

SEARCH = {
    "google": ("google.*", "com.google.android.googlequicksearchbox"),
    "bing": ("bing.com",),
    "yahoo": ("yahoo.com", "yahoo.co.jp"),
    "duckduckgo": ("duckduckgo.com", "com.duckduckgo.mobile.android"),
    "yandex": ("yandex.*", "ya.ru"),
    "baidu": ("baidu.com",),
    "ecosia": ("ecosia.org",),
    "brave": ("search.brave.com",),
    "startpage": ("startpage.com",),
    "qwant": ("qwant.com",),
    "naver": ("naver.com",),
    "seznam": ("seznam.cz",),
    "kagi": ("kagi.com",),
    "sogou": ("sogou.com",),
}
SOCIAL = {
    "facebook": ("facebook.com", "fb.com", "com.facebook.katana"),
    "instagram": ("instagram.com", "com.instagram.android"),
    "threads": ("threads.net", "threads.com"),
    "twitter": ("twitter.com", "x.com", "t.co", "com.twitter.android"),
    "linkedin": ("linkedin.com", "lnkd.in", "com.linkedin.android"),
    "reddit": ("reddit.com", "com.reddit.frontpage"),
    "youtube": ("youtube.com", "youtu.be", "com.google.android.youtube"),
    "tiktok": ("tiktok.com",),
    "pinterest": ("pinterest.*", "pin.it"),
    "bluesky": ("bsky.app", "go.bsky.app"),
    "mastodon": ("mastodon.social",),
    "vk": ("vk.com", "vk.ru"),
    "quora": ("quora.com",),
    "hackernews": ("news.ycombinator.com",),
    "telegram": ("t.me", "org.telegram.messenger"),
    "whatsapp": ("whatsapp.com", "wa.me", "com.whatsapp"),
    "discord": ("discord.com",),
    "slack": ("slack.com",),
}
MAIL = {
    "gmail": ("mail.google.com", "com.google.android.gm"),
    "outlook": ("outlook.live.com", "outlook.office.com", "outlook.office365.com"),
    "yahoo mail": ("mail.yahoo.com",),
    "proton mail": ("mail.proton.me",),
}
ASSISTANTS = {
    "chatgpt": ("chatgpt.com", "chat.openai.com"),
    "perplexity": ("perplexity.ai",),
    "gemini": ("gemini.google.com",),
    "copilot": ("copilot.microsoft.com",),
    "claude": ("claude.ai",),
}
OTHERS = {"google sites": ("docs.google.com", "drive.google.com", "sites.google.com", "groups.google.com")}
"""Hosts below a search engine's that are no search."""
CLICK_IDS = {
    "gclid": Came("google", "cpc", "paid_search"),
    "gbraid": Came("google", "cpc", "paid_search"),
    "wbraid": Came("google", "cpc", "paid_search"),
    "msclkid": Came("bing", "cpc", "paid_search"),
    "ttclid": Came("tiktok", "paid", "paid_social"),
    "fbclid": Came("facebook", "social", "organic_social"),
    "igshid": Came("instagram", "social", "organic_social"),
}
"""Parameters that a platform adds to the links that are clicked on it."""

_GROUPS = (
    (OTHERS, "referral", "referral"),
    (MAIL, "email", "email"),
    (ASSISTANTS, "assistant", "assistant"),
    (SEARCH, "organic", "organic_search"),
    (SOCIAL, "social", "organic_social"),
)
SOURCES = {
    name: channel
    for names, _, channel in _GROUPS
    for source, hosts in names.items()
    for name in (source, *(h for h in hosts if "*" not in h))
}
"""Channel by what a campaign may call its source: a name or a host."""
_HOSTS = {
    host: Came(source, medium, channel)
    for names, medium, channel in _GROUPS
    for source, hosts in names.items()
    for host in hosts
}
MOST_LABELS = max(host.count(".") for host in _HOSTS) + 2
"""Labels at the end of a host that a name in the table can fit: `*` stands for up to two."""
_COUNTRY = re.compile(r"\.(?:com?\.)?[a-z]{2,3}$")


def referring(host: str) -> Came:
    """Where a visitor from a host (in lower case, without www) came from: the longest name in the table that fits.

    >>> referring("l.facebook.com"), referring("google.co.uk").source, referring("mail.google.com").medium
    (Came(source='facebook', medium='social', channel='organic_social'), 'google', 'email')
    """
    name = ".".join(host.rsplit(".", MOST_LABELS)[-MOST_LABELS:])
    while name:
        if found := _HOSTS.get(name) or _HOSTS.get(_COUNTRY.sub(".*", name)):
            return found
        name = name.partition(".")[2]
    return Came(host, "referral", "referral")
