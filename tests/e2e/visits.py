"""A shop whose visitors are anonymous at first: a domain of tests, as a product of its own would declare one."""

from functools import partial

from feature_repo.domain import Domain, Label, Segment
from feature_repo.lake.jsonl import take_in_files
from feature_repo.lake.outcomes import outcomes_of_events
from feature_repo.vocabulary import DAY, Column, Count, Elapsed, Feature, Last, LastTime, Ratio, Sum, where

LANDED, ORDERED, HORIZON = where(name="Landing", type="page"), where(name="Ordered"), 7 * DAY
LOOKED = where(name="Looked")
DOMAIN = Domain(
    name="visits",
    title="Visitors of a shop",
    columns=(
        Column("colour", "properties.colour"),
        Column("price", "properties.price", "decimal", scale=2, low=0, high=1_000),
        Column("sale", "properties.sale", "boolean"),
    ),
    events={"Ordered": {"price": "decimal"}, "Looked": {"price": "decimal", "sale": "boolean"}},
    features=(
        Feature("orders", Count(ORDERED), "orders"),
        Feature("colour", Last("colour"), "the last colour"),
        Feature("pages", Count(where(type="page")), "pages", since=2),
        Feature("looks_24h", Count(LOOKED, window=DAY), "looks in the last 24 hours", since=2),
        Feature("price", Sum("price", LOOKED), "sum of the prices looked at", "cents", since=2),
        Feature("last_price", Last("price"), "the last price", "cents", since=2),
        Feature("on_sale", Count(where(sale=True)), "looks at what is on sale", since=2),
        Feature("last_on_sale", Last("sale"), "whether what was looked at last is on sale", since=2),
        Feature("mean_price", Ratio(Sum("price", LOOKED), Count(LOOKED)), "mean price looked at", "cents", since=2),
        Feature("last_us", LastTime(), "last event", "µs since 1970 UTC"),
    ),
    elapsed=(Elapsed("since_last", "last_us", "since the last event"),),
    horizon=HORIZON,
    label=Label("order", "orders within 7 days", good=True, done="orders", done_segment="customer"),
    observations=(DAY, 3 * DAY),
    segments=(Segment("cold", ""), Segment("warm", "")),
    slices=("colour",),
    ingest=lambda settings, data=None, **options: take_in_files(settings, DOMAIN, data),
    outcomes=partial(outcomes_of_events, anchor=LANDED, outcome=ORDERED, horizon=HORIZON),
)  # fmt: skip
