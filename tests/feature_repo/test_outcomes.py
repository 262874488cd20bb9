"""Outcomes: each user's anchor and outcome by the identity rules, and what is said where there are none."""

import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.lake.lake import Lake
from feature_repo.lake.outcomes import event_names, outcomes_of_events
from feature_repo.settings import Settings
from feature_repo.vocabulary import HOUR, Where, where
from tests.feature_repo import histories, oracle
from tests.feature_repo.test_stream import event

NUMBER, SAAS = itertools.count(), domains.load("saas")
ANCHOR, OUTCOME, HORIZON = where(type=("track", "page")), where(type=("page", "identify")), 30 * HOUR


def defined(
    rows: list[histories.Row], anchor: Where, outcome: Where, horizon: int = HORIZON
) -> dict[str, dict[str, Any]]:
    """The definition of each column in plain loops over the identity rules of the oracle, by user."""
    rows, ever = oracle.canonical(rows), max(r["ts_us"] for r in rows)
    times = sorted({r["ts_us"] for r in rows})

    def of(user: str, condition: Where) -> list[histories.Row]:
        matching = [r for r in rows if all(r[column] in values for column, values in condition)]
        mine = [r for r in matching if oracle.owner(r, rows, ever) == user]
        return sorted(mine, key=lambda r: (r["ts_us"], r["message_id"]))

    found = {}
    for user in {oracle.owner(r, rows, ever) for r in rows}:
        if not (anchors := of(user, anchor)):
            continue
        first, end = anchors[0], anchors[0]["ts_us"] + horizon
        outcomes = [r["ts_us"] for r in of(user, outcome)]
        owned = [
            t for r in rows if all(r[column] in values for column, values in outcome)
            for t in times if t >= r["ts_us"] and oracle.owner(r, rows, t) == user
        ]  # fmt: skip
        found[user] = {
            "anchor_us": first["ts_us"],
            "end_us": end,
            "outcome_us": outcomes[0] if outcomes and outcomes[0] <= end else None,
            "known_as": oracle.owner(first, rows, first["ts_us"]),
            "known_us": next(t for t in times if t >= first["ts_us"] and oracle.owner(first, rows, t) == user),
            "done_us": min(owned, default=None),
        }
    return found


@given(data=st.data())
def test_they_are_those_of_the_definition_for_known_and_anonymous_users(data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(histories.events(SAAS, 12))
    settings = Settings(home=tmp_path / str(next(NUMBER)), domain="saas")
    Lake(settings.lake).append([event(row) for row in rows])
    found = outcomes_of_events(settings, ANCHOR, OUTCOME, HORIZON).to_pylist()
    assert [row["user_id"] for row in found] == sorted(row["user_id"] for row in found)
    assert all(row.pop("cohort") for row in found)
    assert {row.pop("user_id"): row for row in found} == defined(rows, ANCHOR, OUTCOME)


@pytest.mark.parametrize(
    ("anchor", "outcome", "says"),
    [
        (where(name="Signed up"), where(name="Clicked"),
         "the anchor is the event 'Signed up', .* did you mean 'Signed Up'"),
        (where(name="Signed Up"), where(name="xyz"), "the outcome is the event 'xyz', .* declared are "),
        (where(name="Welcome", type="page"), where(name="Signed Up"), None),
    ],
)  # fmt: skip
def test_an_event_that_the_domain_does_not_declare_is_named(
    tmp_path: Path, anchor: Where, outcome: Where, says: str | None
) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    if says is None:
        assert outcomes_of_events(settings, anchor, outcome, HORIZON).num_rows == 0
        return
    with pytest.raises(ValueError, match=says):
        outcomes_of_events(settings, anchor, outcome, HORIZON)


def test_a_domain_can_say_which_events_its_outcomes_come_from() -> None:
    both = where(name=("Signed Up", "Joined"))
    named = dataclasses.replace(SAAS, outcomes=partial(outcomes_of_events, anchor=both, outcome=OUTCOME, horizon=1))
    assert event_names(named, "anchor") == "'Signed Up', 'Joined'"
    assert event_names(named, "outcome") == ""
