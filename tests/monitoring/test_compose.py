"""monitoring.compose: from measured parts to the week, for a wished-for outcome and for one that is not."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from feature_repo import domains
from feature_repo.features.saturation import AtLimit
from feature_repo.vocabulary import DAY, WEEK
from monitoring.compose import compose, inside, measured_types, segment_names
from monitoring.decisions import week as decided_week
from monitoring.drift import Drift
from monitoring.page import Week, render
from monitoring.parity import Parity
from monitoring.parts import Champion, Parts
from monitoring.snapshots import Snapshots

AT = 1_780_000_000_000_000


def composed(name: str, folder: Path, at_limit: Sequence[AtLimit] = ()) -> Week:
    """A week of twenty people of that domain: two snapshots, one matured label each."""
    domain = domains.load(name)
    order = segment_names(domain)
    users = [f"u{i}" for i in range(20)]
    rows = pd.DataFrame(
        {"user_id": users, "now_us": AT - DAY, "offset_us": domain.observations[0], "label": [0, 1] * 10}
    )
    rows = rows.assign(score=[i / 20 for i in range(20)], segment=[order[i % len(order)] for i in range(20)])
    replayed = pd.concat([rows.assign(now_us=AT - WEEK), rows.assign(now_us=AT)])
    taken = Snapshots(replayed[["user_id", "now_us"]], {AT - WEEK: 20, AT: 20})
    parts = Parts(rows, rows, rows, "scored since the training period", AT)
    champion = Champion(f"{name}-engagement", 4, AT - DAY, None)
    log = decided_week(folder, AT, order)
    return compose(
        domain, champion, AT, parts, Drift([], 0.01, 20, 20, 1, []), taken, replayed, log, Parity({}), None, at_limit
    )


@pytest.mark.parametrize("name", domains.names())
def test_the_week_of_every_domain_renders(name: str, tmp_path: Path) -> None:
    week = composed(name, tmp_path)
    html = render(week)
    assert week.title in html and len(week.verdicts) == 10
    assert [w.people for w in week.weeks] == [20, 20] and week.weeks[1].psi == 0
    assert week.in_training == [True, False]
    assert week.moves[0].stayed == 1
    assert sum(r.n for r in week.rates) == 20


def test_sums_beyond_int64_are_a_verdict_with_feature_and_user(tmp_path: Path) -> None:
    found = AtLimit("bytes_uploaded", 3, 8, "anon:visitor-9")
    week = composed("saas", tmp_path, [found])
    (verdict,) = [v for v in week.verdicts if v.title == "Sums beyond int64: bytes_uploaded"]
    assert verdict.level == "look" and "in 8 rows of anonymous visitor-9 and 2 more users" in verdict.text
    assert verdict.title in render(week)


def test_an_outcome_that_is_not_wished_for_is_called_so(tmp_path: Path) -> None:
    assert "which is not wished for" in render(composed("oulad", tmp_path))
    assert "which is not wished for" not in render(composed("saas", tmp_path))


def test_people_who_are_done_have_a_segment_only_where_a_feature_says_so() -> None:
    assert segment_names(domains.load("saas"))[-1] == "activated"
    assert "activated" not in segment_names(domains.load("oulad"))


def test_points_in_time_are_not_measured_but_what_has_elapsed_is() -> None:
    domain = domains.load("saas")
    stored, elapsed = domain.service()
    types = measured_types(domain, [*stored, *elapsed])
    assert set(elapsed) <= set(types) and types[elapsed[0]] == "float64"
    assert not any(e.of in types for e in domain.elapsed)


def test_a_week_is_inside_the_training_period_up_to_its_end() -> None:
    assert [inside(9, 10), inside(10, 10), inside(11, 10), inside(9, None)] == [True, True, False, None]
