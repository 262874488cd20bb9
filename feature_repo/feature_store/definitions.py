"""The Feast objects of a domain, derived from its declaration and from nothing else."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import FunctionType
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import FeastType, Float64, Int64, String

from feature_repo.domain import Domain
from feature_repo.features.elapsed import elapsed_seconds
from feature_repo.settings import Settings
from feature_repo.vocabulary import null_meaning

DTYPES: dict[str, FeastType] = {"int64": Int64, "float64": Float64, "string": String}
Object = Entity | FileSource | FeatureView | RequestSource | OnDemandFeatureView | FeatureService

VALID_UNTIL = "valid_until_us"
"""Stored beside the features, in no service: when the row's values change by themselves (µs; null: never)."""
APPLIED = "applied_position"
"""Stored beside the features, in no service: the newest log position among the person's events when it was computed."""
NOW = "now_us"
"""The time of asking, µs: request data online, a column of the entity rows offline."""


def view_name(domain: Domain) -> str:
    """Name of the view that holds the stored features, VALID_UNTIL and APPLIED."""
    return f"{domain.name}_user"


def elapsed_name(domain: Domain) -> str:
    """Name of the on-demand view that computes the elapsed features."""
    return f"{domain.name}_elapsed"


def service_name(domain: Domain, version: int | None = None) -> str:
    """Name of the feature service of a version (default: the newest)."""
    return f"{domain.name}_v{version or domain.version}"


def objects(domain: Domain, settings: Settings) -> list[Object]:
    """Everything that Feast has to know: entity, source, view, request and on-demand view if any, services 1 to n."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A person: user_id.")
    source = _source(domain, settings)
    view = _view(domain, user, source)
    found: list[Object] = [user, source, view]
    on_demand = None
    if domain.elapsed:
        request = RequestSource(
            name=f"{domain.name}_request",
            schema=[Field(name=NOW, dtype=Int64, description="The time of asking, µs since 1970 UTC.")],
        )
        on_demand = _on_demand(domain, view, request)
        found += [request, on_demand]
    return found + [_service(domain, v, view, on_demand) for v in range(1, domain.version + 1)]


def _source(domain: Domain, settings: Settings) -> FileSource:
    return FileSource(
        name=f"{domain.name}_features",
        path=str(settings.features),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        description=f"{domain.title}: a row for every moment at which a value changes, written by `make backfill`.",
    )


def _view(domain: Domain, user: Entity, source: FileSource) -> FeatureView:
    """The stored features. TTL 0: a row stays valid until its successor, online as offline."""
    types = domain.feature_types
    fields = [
        Field(
            name=f.name,
            dtype=DTYPES[types[f.name]],
            description=f.doc,
            tags={"unit": f.unit, "null": null_meaning(f), "since": f"v{f.since}"},
        )
        for f in domain.features
    ]
    until = Field(
        name=VALID_UNTIL,
        dtype=Int64,
        description="When these values change with no new event.",
        tags={"unit": "µs since 1970 UTC", "null": "never"},
    )
    applied = Field(
        name=APPLIED,
        dtype=Int64,
        description="The newest of the person's events that these values know.",
        tags={"unit": "log position", "null": "never null"},
    )
    return FeatureView(
        name=view_name(domain),
        entities=[user],
        ttl=timedelta(0),
        schema=[Field(name="user_id", dtype=String), *fields, until, applied],
        source=source,
        online=True,
        description=f"{domain.title}: what is known of a person.",
    )


def _on_demand(domain: Domain, view: FeatureView, request: RequestSource) -> OnDemandFeatureView:
    """The elapsed features. Their words are tags: Feast compares its fields with inferred ones, which have none."""
    function, source_text = elapsed_function(elapsed_name(domain), {e.name: e.of for e in domain.elapsed})
    return OnDemandFeatureView(
        name=elapsed_name(domain),
        sources=[view[list(dict.fromkeys(e.of for e in domain.elapsed))], request],
        schema=[Field(name=e.name, dtype=Float64) for e in domain.elapsed],
        mode="python",
        udf=function,
        udf_string=source_text,
        description=f"{domain.title}: seconds from a stored timestamp to the time of asking.",
        tags={e.name: f"{e.doc} ({e.unit}; null where {e.of} is null)" for e in domain.elapsed},
    )


def _service(domain: Domain, version: int, view: FeatureView, on_demand: OnDemandFeatureView | None) -> FeatureService:
    """The features that a model of this version takes, in the order of the domain: stored, then elapsed."""
    stored, elapsed = domain.service(version)
    chosen: list[Any] = [view[stored]]
    if on_demand is not None and elapsed:
        chosen.append(on_demand[elapsed])
    return FeatureService(
        name=service_name(domain, version),
        features=chosen,
        description=f"{domain.title}: {len(stored)} stored and {len(elapsed)} elapsed features, version {version}.",
    )


def elapsed_function(name: str, elapsed: Mapping[str, str]) -> tuple[FunctionType, str]:
    """A function of columns (lists by name) that gives the elapsed features likewise, and its source text.

    Feast keeps the text and runs it in other processes, where nothing around it exists: so it imports what it needs
    and names every feature itself.

    >>> print(elapsed_function("shop_elapsed", {"seconds_since_visit": "last_visit_us"})[1])
    def shop_elapsed(inputs):
        from feature_repo.feature_store.definitions import elapsed_columns
    <BLANKLINE>
        return elapsed_columns(inputs, {'seconds_since_visit': 'last_visit_us'})
    <BLANKLINE>
    """
    text = (
        f"def {name}(inputs):\n"
        "    from feature_repo.feature_store.definitions import elapsed_columns\n\n"
        f"    return elapsed_columns(inputs, {dict(elapsed)!r})\n"
    )
    scope: dict[str, FunctionType] = {}
    exec(compile(text, f"<{name}>", "exec"), {"__name__": "__main__"}, scope)
    return scope[name], text


def elapsed_columns(inputs: Mapping[str, Sequence[int | None]], elapsed: Mapping[str, str]) -> dict[str, list[Any]]:
    """Seconds from the µs column `elapsed[name]` to the column NOW, a list a name; None where it is null."""
    return {
        name: [elapsed_seconds(now, since) for now, since in zip(inputs[NOW], inputs[of], strict=True)]
        for name, of in elapsed.items()
    }
