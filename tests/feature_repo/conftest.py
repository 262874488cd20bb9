"""A domain small enough to be read at a glance."""

from typing import Any

import pyarrow as pa
import pytest

from feature_repo.domain import Domain, Ingested, Label, Segment
from feature_repo.vocabulary import DAY, Column, Count, Elapsed, Feature, FirstTime, where


def _ingest(*_: Any, **__: Any) -> Ingested:
    return Ingested(0, {})


def _outcomes(_: Any) -> pa.Table:
    columns = [("user_id", pa.string()), ("anchor_us", pa.int64()), ("outcome_us", pa.int64()), ("end_us", pa.int64())]
    return pa.schema([*columns, ("cohort", pa.string())]).empty_table()


def make_tiny_domain() -> Domain:
    """Two track events, one column in each of properties (one of them nested), traits and context."""
    return Domain(
        name="tiny",
        title="A tiny product",
        columns=(
            Column("bytes", "properties.bytes", "int64"),
            Column("kind", "properties.file.kind"),
            Column("plan", "traits.plan"),
            Column("country", "context.country"),
        ),
        events={
            "Signed Up": {"referral": "string"},
            "Uploaded": {"bytes": "int64", "public": "boolean", "title": "string"},
        },
        features=(
            Feature("uploads", Count(where(name="Uploaded"), window=DAY), "uploads of the last day"),
            Feature("signed_up_us", FirstTime(where(name="Signed Up")), "time of the sign-up"),
        ),
        elapsed=(Elapsed("since_sign_up", "signed_up_us", "since the sign-up"),),
        horizon=14 * DAY,
        label=Label("activated", "uploads within 14 days", good=True),
        observations=(DAY,),
        segments=(Segment("cool", "unlikely"), Segment("warm", "likely")),
        slices=(),
        ingest=_ingest,
        outcomes=_outcomes,
    )


@pytest.fixture(scope="session")
def tiny_domain() -> Domain:
    return make_tiny_domain()
