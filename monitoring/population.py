"""The people of an experiment, and what of them a metric can tell and from when on. Pure: data frames in and out."""

import pandas as pd

from serving.experiments.declared import Experiment


def population(seen: pd.DataFrame, outcomes: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Everybody who was exposed while it ran, in the order of exposure.

    seen: rows of exposures.first. outcomes: rows of Domain.outcomes.

    Returns:
        user_id, variant, exposed_us, variants | anchor_us, outcome_us, end_us: null for who never became known.
    """
    mine = seen[(seen["experiment"] == experiment.name) & seen["variant"].isin(list(experiment.variants))]
    mine = mine[(mine["exposed_us"] >= experiment.start_us)]
    if experiment.end_us is not None:
        mine = mine[mine["exposed_us"] < experiment.end_us]
    columns = ["user_id", "anchor_us", "outcome_us", "end_us"]
    merged = mine.drop(columns="experiment").merge(outcomes[columns], on="user_id", how="left")
    return merged.astype(dict.fromkeys(columns[1:], "Int64"))


def observed(
    people: pd.DataFrame, metric: str, label: str, events: pd.DataFrame, within_us: int | None = None
) -> pd.DataFrame:
    """Those of the people of whom the metric can be told some time: `y` (0/1) once it is, at `known_us`.

    With the label they are those who became known and had neither the outcome nor the end of the onboarding behind
    them; with an event and a time within, everybody.
    """
    rows = people.copy()
    if metric == label:
        rows["happened_us"] = rows["outcome_us"]
        behind = rows["outcome_us"].notna() & (rows["outcome_us"] <= rows["exposed_us"])
        rows = rows[rows["end_us"].notna() & ~behind]
    else:
        rows = rows.merge(_after(people, events, metric), on="user_id", how="left")
        rows["happened_us"] = rows["happened_us"].astype("Int64")
    rows = rows.assign(known_us=rows["end_us"] if within_us is None else rows["exposed_us"] + within_us)
    rows = rows[rows["known_us"].notna() & (rows["known_us"] > rows["exposed_us"])]
    rows["known_us"] = rows["known_us"].astype("int64")
    rows["y"] = (rows["happened_us"].notna() & (rows["happened_us"] <= rows["known_us"])).fillna(False).astype(float)
    return rows


def _after(people: pd.DataFrame, events: pd.DataFrame, name: str) -> pd.DataFrame:
    """user_id, happened_us: the first event of that name after each person's exposure."""
    mine = events[events["name"] == name][["user_id", "ts_us"]].merge(people[["user_id", "exposed_us"]], on="user_id")
    later = mine[mine["ts_us"] > mine["exposed_us"]]
    return later.groupby("user_id")["ts_us"].min().rename("happened_us").reset_index()
