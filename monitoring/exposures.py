"""Who saw which variant, and when first: from the lake, events of before somebody was known counted as theirs."""

from collections.abc import Collection
from dataclasses import replace

import ibis
import pandas as pd

from feature_repo import domains
from feature_repo.contract.feedback import VIEWED
from feature_repo.features.history import END, history, typed
from feature_repo.features.program import Program
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.vocabulary import Column

COLUMNS = (Column("experiment", "properties.experiment_id"), Column("variant", "properties.variation_id"))
EDGES = ("identify", "alias")


def attributed(settings: Settings, names: Collection[str]) -> pd.DataFrame:
    """The events of these names, each with whose it is by all that is known now.

    Returns:
        user_id (`anon:...` of somebody who is not known), name, ts_us, message_id, experiment, variant (null: none).
    """
    con, program = ibis.duckdb.connect(), Program()
    domain = replace(
        domains.load(settings.domain),
        columns=COLUMNS, features=(), elapsed=(), slices=(), enrich=(), acts=(), said={}, sensitive=(),
    )  # fmt: skip
    events = Lake(settings.lake).events(con)
    needed = events.filter(events.name.isin(sorted(names)) | events.type.isin(EDGES))
    owned = history(program.step("needed", typed(needed, domain)), domain, program)
    owned = owned.filter(owned.epoch_to == END, owned.name.isin(sorted(names)), owned.type == "track")
    found = owned.select("name", "ts_us", "message_id", "experiment", "variant", user_id="entity")
    return _run(con, program, found)


def _run(con: "ibis.backends.duckdb.Backend", program: Program, result: ibis.Table) -> pd.DataFrame:
    """The result of a program whose first step reads the connection's own tables."""
    for name, step in program.steps:
        con.create_table(name, step, temp=True, overwrite=True)
    return con.to_pandas(result)


def first(viewed: pd.DataFrame) -> pd.DataFrame:
    """The first exposure of each person to each experiment, in the order of time.

    The product sends one at the moment when it shows (or, of a control, would have shown) a variant.

    viewed: rows of `attributed`. Returns: user_id, experiment, variant, exposed_us, variants (how many different ones
    the person saw; above 1 some assignment did not stick).
    """
    shown = viewed[viewed["name"].eq(VIEWED) & viewed["experiment"].notna() & viewed["variant"].notna()]
    shown = shown.sort_values(["ts_us", "message_id"], kind="stable")
    person = shown.groupby(["user_id", "experiment"], sort=False)
    found = person.agg(variant=("variant", "first"), exposed_us=("ts_us", "first"), variants=("variant", "nunique"))
    return found.reset_index().sort_values(["exposed_us", "user_id"], kind="stable", ignore_index=True)
