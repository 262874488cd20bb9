"""Every setting: one typed object, read from the environment and `.env`, checked as a whole, and passed around.

docs/settings.md is made from this class: `python -m feature_repo settings` prints it.
"""

import time
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from feature_repo.environment import PREFIX, variables, warn_of_unknown
from feature_repo.setting_values import (
    MAKE_A_KEY,
    SHORTEST_KEY,
    Absolute,
    Broker,
    Keys,
    Lake,
    Moment,
    Origins,
    Redis,
    Webhooks,
)

SOURCE = Path(__file__).resolve().parent.parent
MANY = "redis://host:port/db, or rediss://… with TLS"


class SettingsError(ValueError):
    """A setting that cannot be used: the variable, what was expected, what came, what to do; a line for each."""


def now_us() -> int:
    """The clock, µs since 1970 UTC; with FIRSTMILE_NOW this process's clock started there."""
    shift_us = _shift_us()
    return time.time_ns() // 1000 + shift_us


@cache
def _shift_us() -> int:
    start = Settings().now
    return 0 if start is None else round(start.timestamp() * 1_000_000) - time.time_ns() // 1000


def _default_home() -> Path:
    """`var/` beside the sources in a checkout, in the working folder for an installed wheel."""
    return (SOURCE if (SOURCE / "pyproject.toml").exists() else Path.cwd()) / "var"


def setting(default: Any, expected: str, description: str, *, secret: bool = False, **options: Any) -> Any:
    """A field of Settings. expected: its values, in words that follow "expected"; secret: never shown."""
    extra = {"expected": expected, "secret": secret, "variable": options.pop("variable", "")}
    if callable(default):
        options["default_factory"] = default
    else:
        options["default"] = default
    return Field(description=description, json_schema_extra=extra, repr=not secret, **options)


class Settings(BaseSettings):
    """All settings. An argument wins over the environment, the environment over `.env`, that over the default.

    Raises:
        SettingsError: a value cannot be used.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    home: Absolute = setting(
        _default_home, "a folder", "The folder that holds all state. `make` sets it from STATE. Default: `var/`."
    )
    domain: str = setting("saas", "the name of a domain", "The product: a folder of feature_repo/domains.")
    now: Moment | None = setting(
        None,
        "a time in RFC 3339 with a zone, such as 2014-10-29T00:00:00Z",
        "The time at which this process's clock starts, for data of the past. Default: the machine's clock.",
    )
    lake: Lake = setting(
        lambda data: str(data["home"] / data["domain"] / "lake") if "home" in data else "",
        "a folder, or the URI of an object store, such as s3://bucket/lake, whose fsspec package is installed",
        "Where the lake is. Default: `lake` in the domain's state folder.",
    )
    online: Redis = setting("sqlite", f"sqlite, or {MANY}", "The online store of feature rows.")
    history: Redis = setting(
        "sqlite", f"sqlite, or {MANY}", "The history of users' events that live features are computed from."
    )
    log: Broker = setting(
        "sqlite",
        "sqlite, kafka://host:9092/topic, amqp://user:password@host:5672/?queue=name or kinesis://stream?region=…",
        "The log that holds accepted events until they are applied.",
    )
    retention_days: int = setting(
        7, "a whole number from 1", "How many days the broker of FIRSTMILE_LOG keeps an event.", ge=1
    )
    tracking_uri: str = setting(
        lambda data: f"sqlite:///{data['home'] / 'mlflow.db'}" if "home" in data else "",
        "an MLflow tracking address, such as http://mlflow:5000",
        "MLflow's tracking server and registry. Default: `mlflow.db` in the folder of all state.",
        variable="MLFLOW_TRACKING_URI",
    )
    server_keys: Keys = setting(
        (),
        f"keys of {SHORTEST_KEY} or more visible ASCII characters, separated by commas",
        "Keys of the services that may ask for decisions. Without any, the service listens on loopback only.",
        secret=True,
    )
    write_keys: Keys = setting(
        (),
        f"keys of {SHORTEST_KEY} or more visible ASCII characters, separated by commas",
        "Keys with which events may be sent; a browser may hold one. Without any, only this machine may send.",
        secret=True,
    )
    browser_keys: Keys = setting(
        (),
        f"keys of {SHORTEST_KEY} or more visible ASCII characters, separated by commas",
        "Write keys that browsers hold, so that everybody can read them; see docs/security.md.",
        secret=True,
    )
    user_hash_secrets: Keys = setting(
        (),
        f"secrets of {SHORTEST_KEY} or more visible ASCII characters, separated by commas",
        "What user ids have to be signed with that come by browser keys; any of them, the first one to sign. "
        "Without any, user ids need no signature.",
        secret=True,
    )
    origins: Origins = setting(
        (),
        "origins such as https://example.org, separated by commas, or *",
        "Origins of the pages that may send events.",
    )
    rate: float = setting(
        10_000.0, "a number above 0", "Events a second for each write key.", gt=0, allow_inf_nan=False
    )
    webhooks: Webhooks = setting(
        "",
        "addresses separated by commas, or the path of a YAML file",
        "Where changes of segments are sent.",
        secret=True,
    )
    webhook_secret: str = setting(
        "", "whsec_… and base64", "Signs the webhooks that are given as addresses.", secret=True
    )
    policy: Absolute | None = setting(
        None, "the path of a YAML file", "The policy. Default: serving/policies/<domain>.yaml."
    )
    rules: Absolute | None = setting(
        None, "the path of a YAML file", "The rule segments. Default: serving/rules/<domain>.yaml."
    )
    experiments: Absolute | None = setting(
        None, "the path of a YAML file", "The experiments. Default: serving/experiments/<domain>.yaml."
    )
    mode: Literal["registry", "bundled"] | None = setting(
        None,
        "registry or bundled",
        "Which model the service uses: the registry's champion, also when it changes, or the one in the Bento. "
        "Default: bundled in a Bento, registry elsewhere.",
    )
    workers: int = setting(
        1, "a whole number from 1", "Processes of the service; several need FIRSTMILE_ONLINE=redis://….", ge=1
    )
    poll_seconds: float = setting(
        3.0, "a number above 0", "How often the service looks for another champion, in seconds.", gt=0, le=86_400
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingsError(_words(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the variables of `environment.variables`."""
        return init_settings, _Variables(settings_cls)

    @model_validator(mode="after")
    def _stores_of_their_own(self) -> "Settings":
        if self.workers > 1 and self.online == "sqlite":
            raise ValueError(
                f"FIRSTMILE_WORKERS={self.workers} over embedded stores, which belong to one process: "
                "use one worker, or an online store of its own: FIRSTMILE_ONLINE=redis://host:port/db"
            )
        return self

    @model_validator(mode="after")
    def _keys_of_one_role(self) -> "Settings":
        server, senders = set(self.server_keys), {"WRITE_KEYS": self.write_keys, "BROWSER_KEYS": self.browser_keys}
        for variable, keys in senders.items():
            if shared := [position for position, key in enumerate(keys, 1) if key in server]:
                raise ValueError(
                    f"FIRSTMILE_{variable}: key {shared[0]} is one of FIRSTMILE_SERVER_KEYS too, so that whoever sends "
                    f"events could read and erase users; make another: {MAKE_A_KEY}"
                )
        return self

    def replace(self, **changes: Any) -> "Settings":
        """These settings with other values; what follows from them, such as the lake's folder, changes with them."""
        return Settings(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def environment(self) -> dict[str, str]:
        """The environment in which another process has the same settings, whatever folder it works in."""
        given = {name: getattr(self, name) for name in self.model_fields_set | {"home", "domain"}}
        return variables() | {variable_of(name): _text(value) for name, value in given.items()}

    @property
    def state(self) -> Path:
        """The folder of this domain's state."""
        return self.home / self.domain

    @property
    def broker(self) -> str:
        """Address of the log where a broker holds it. Kinesis' checkpoints are in the state folder, unless it says."""
        if not self.log.startswith("kinesis://") or "checkpoints=" in self.log:
            return self.log
        return f"{self.log}{'&' if '?' in self.log else '?'}{urlencode({'checkpoints': self.state / 'kinesis.db'})}"

    @property
    def quarantine(self) -> Path:
        """Folder of the refused events."""
        return self.state / "quarantine"

    @property
    def features(self) -> Path:
        """Folder of the offline feature rows (Parquet, one file a bucket)."""
        return self.state / "features"

    @property
    def decisions(self) -> Path:
        """Folder of the decision log (Parquet)."""
        return self.state / "decisions"

    @property
    def report(self) -> Path:
        """Folder of the weekly report (HTML)."""
        return self.state / "report"


class _Variables(PydanticBaseSettingsSource):
    """The fields that a variable names, as text."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of a field's variable."""
        return variables().get(variable_of(field_name)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Values by field."""
        given, names = variables(), {variable_of(name): name for name in self.settings_cls.model_fields}
        warn_of_unknown(frozenset(n for n in given if n.startswith(PREFIX)), tuple(names))
        return {name: given[variable] for variable, name in names.items() if variable in given}


def variable_of(field: str) -> str:
    """The environment variable of a field of Settings."""
    return str(facts(field)["variable"]) or f"{PREFIX}{field.upper()}"


def facts(field: str) -> dict[str, Any]:
    """What `setting` was told of a field: variable, expected, secret."""
    found = Settings.model_fields[field].json_schema_extra
    assert isinstance(found, dict)
    return found


def default_of(field: str) -> str:
    """The default of a field as text; empty where it has none, or one that depends on other settings."""
    found = Settings.model_fields[field].default
    return f"{found:g}" if isinstance(found, int | float) else found if isinstance(found, str) else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _words(error: ValidationError) -> str:
    """A line for each of pydantic's findings, but for those that follow from others."""
    return "\n".join(_line(dict(e)) for e in error.errors() if e["type"] != "default_factory_not_called")


def _line(error: dict[str, Any]) -> str:
    said = str(error.get("ctx", {}).get("error", ""))
    field = str(error["loc"][0]) if error["loc"] else ""
    if field not in Settings.model_fields:
        return said or f"Settings has no field {field}"
    variable, about = variable_of(field), facts(field)
    if said:
        return f"{variable}: {said}"
    came = "" if about["secret"] else f"={_masked(str(error['input']))!r}"
    default = default_of(field)
    otherwise = f"unset it for the default{f' ({default})' if default else ''}"
    return f"{variable}{came}: expected {about['expected']}; set it so, or {otherwise}"


def _masked(value: str) -> str:
    """An address without its password.

    >>> _masked("mysql://root:secret@db/x"), _masked("abc")
    ('mysql://…@db/x', 'abc')
    """
    scheme, separator, rest = value.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if separator and "@" in rest else value
