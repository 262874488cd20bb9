"""Where webhooks go: FIRSTMILE_WEBHOOKS, addresses separated by commas, or the path of a YAML file.

webhooks:
  crm:                                  # the channel's name: its cursor goes by it
    url: https://crm.example/segments
    secret: CRM_WEBHOOK_SECRET          # the environment variable that holds the secret
    segments: [active_learner]          # optional: only these

Addresses given one by one are all signed with FIRSTMILE_WEBHOOK_SECRET, and are told of every segment.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from feature_repo.environment import variable
from feature_repo.settings import Settings
from serving import yaml_file
from serving.auth import is_loopback
from serving.segments.channels import signing
from serving.yaml_file import Entry, Findings

VARIABLE, SECRET = "FIRSTMILE_WEBHOOKS", "FIRSTMILE_WEBHOOK_SECRET"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class WebhooksError(ValueError):
    """An endpoint that cannot be used."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a webhook goes. keys: to sign with. segments: those that it is told of; null: all."""

    name: str
    url: str
    keys: tuple[bytes, ...]
    segments: frozenset[str] | None = None


def declared(settings: Settings) -> list[Endpoint]:
    """The endpoints that the settings name.

    Raises:
        WebhooksError: no such file, an address that is neither HTTPS nor on loopback, no secret, or one that is none.
    """
    given = settings.webhooks
    if given.endswith((".yaml", ".yml")):
        return yaml_file.load(Path(given), _parse, WebhooksError, f"mend {VARIABLE}")
    urls = [u for part in given.split(",") if (u := part.strip())]
    for url in urls:
        if wrong := wrong_with(url):
            raise WebhooksError(f"{VARIABLE}: {wrong}")
    if len(set(urls)) < len(urls):
        raise WebhooksError(f"{VARIABLE}: an address is given twice; keep one of the two")
    if not urls:
        return []
    try:
        keys = signing.keys(settings.webhook_secret)
    except ValueError as e:
        raise WebhooksError(f"{SECRET} {e}") from None
    return [Endpoint(_name(url), url, keys) for url in urls]


def wrong_with(url: str) -> str | None:
    """Why nothing may be sent to an address; null: it may. Never repeats more of it than its host.

    >>> wrong_with("https://crm.example/x"), wrong_with("http://127.0.0.1:8000/")
    (None, None)
    >>> wrong_with("http://crm.example/x")
    'http://crm.example/…: expected https://…, or http://… on this machine; changes name people'
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as e:
        return f"an address is no URL: {e}"
    if not host or parts.scheme not in ("http", "https"):
        return "an address is no URL with a host; write https://host/path"
    if parts.scheme == "https" or is_loopback(host):
        return None
    return f"{parts.scheme}://{host}/…: expected https://…, or http://… on this machine; changes name people"


def _name(url: str) -> str:
    """Of an endpoint that has none: its host, and what tells it from others there. Its path may be a secret."""
    return f"{urlsplit(url).hostname}-{blake2b(url.encode(), digest_size=4).hexdigest()}"


def _parse(top: Entry, findings: Findings) -> list[Endpoint]:
    return list(_parsed(top, findings))


def _parsed(top: Entry, findings: Findings) -> Iterator[Endpoint]:
    listed = top.mapping(findings, ("webhooks",)).get("webhooks")
    for name, entry in (listed.mapping(findings, known=None) if listed else {}).items():
        if not _NAME.fullmatch(name):
            findings.add(
                entry.line, f"{name!r} is no name of a channel", "use letters, digits, dots, - and _; up to 64"
            )
        parts = entry.mapping(findings, ("url", "secret"), ("segments",))
        url = parts["url"].text(findings) if "url" in parts else None
        if url and (wrong := wrong_with(url)):
            findings.add(parts["url"].line, wrong, "mend the address")
        keys = _keys(parts["secret"], findings) if "secret" in parts else ()
        segments = parts["segments"].texts(findings) if "segments" in parts else None
        if url and keys:
            yield Endpoint(name, url, keys, None if segments is None else frozenset(s for s, _ in segments))


def _keys(entry: Entry, findings: Findings) -> tuple[bytes, ...]:
    name = entry.text(findings)
    if name is None:
        return ()
    if name.startswith(signing.PREFIX):
        findings.add(entry.line, f"{entry.path} is a secret itself", "name the environment variable that holds it")
        return ()
    try:
        return signing.keys(variable(name) or "")
    except ValueError as e:
        findings.add(entry.line, f"the environment variable {name} {e}", "set it where the service starts")
        return ()
