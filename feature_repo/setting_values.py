"""What the values of settings have to be: checks that pydantic runs on the text of a variable, or on an argument.

A check raises ValueError without words where the field's own words say what was expected, and with words where it
knows more.
"""

from collections.abc import Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

SHORTEST_KEY = 16
MAKE_A_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
REDIS = {"redis": "redis", "rediss": "redis"}
BROKERS = {"kafka": "confluent_kafka", "amqp": "aio_pika", "amqps": "aio_pika", "kinesis": "boto3"}
"""By the scheme of an address: the module that speaks to it."""
EXTRAS = {"confluent_kafka": "kafka", "aio_pika": "rabbitmq", "boto3": "kinesis"}


def _address(schemes: Mapping[str, str]) -> AfterValidator:
    """`sqlite`, or the address of a server whose client is installed."""

    def check(value: str) -> str:
        if value == "sqlite":
            return value
        scheme = urlsplit(value).scheme
        if scheme not in schemes or not urlsplit(value).netloc:
            raise ValueError
        return _installed(value, scheme, schemes[scheme])

    return AfterValidator(check)


def _installed(value: str, scheme: str, module: str) -> str:
    if find_spec(module) is None:
        package = f"'firstmile[{EXTRAS[module]}]'" if module in EXTRAS else module
        raise ValueError(f"{scheme}:// needs the module {module}, which is not installed: pip install {package}")
    return value


def _lake(value: str) -> str:
    """A URI that fsspec can open, or a folder: its path stays right when the process changes its working folder."""
    scheme, separator, _ = value.partition("://")
    if not separator:
        return str(Path(value).resolve())
    from fsspec.registry import get_filesystem_class

    try:
        get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{scheme}:// cannot be opened: {error}") from None
    return value


def _parts(value: object) -> object:
    return tuple(part for p in value.split(",") if (part := p.strip())) if isinstance(value, str) else value


def _keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for position, key in enumerate(keys, 1):
        if len(key) < SHORTEST_KEY:
            raise ValueError(
                f"key {position} has {len(key)} characters, expected {SHORTEST_KEY} or more; make one: {MAKE_A_KEY}"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(f"key {position} holds a character that no header can carry; make one: {MAKE_A_KEY}")
    return keys


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/").lower() for origin in given)
    for origin in origins:
        parts = urlsplit(origin)
        whole = parts.scheme in ("http", "https") and parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"
        if origin != "*" and not whole:
            raise ValueError(f"expected origins such as https://example.org, or *; came {origin!r}")
    return origins


def _moment(value: object) -> object:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError from None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError
    return moment


def _webhooks(value: str) -> str:
    """The path of a file stays right when the process changes its working folder."""
    return str(Path(value).resolve()) if value.endswith((".yaml", ".yml")) else value


Absolute = Annotated[Path, AfterValidator(Path.resolve)]
Keys = Annotated[tuple[str, ...], BeforeValidator(_parts), AfterValidator(_keys)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_parts), AfterValidator(_origins)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Lake = Annotated[str, AfterValidator(_lake)]
Webhooks = Annotated[str, AfterValidator(_webhooks)]
Redis = Annotated[str, _address(REDIS)]
Broker = Annotated[str, _address(BROKERS)]
