"""monitoring.drift: Evidently finds planted drift, and only that."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import Drift, _feature, measure

TYPES = {"pages": "int64", "device": "string", "pace": "float64", "plan": "string", "never": "float64"}


def people(n: int, seed: int, pages: float = 5, phone: float = 0.5, no_pace: float = 0.1) -> pd.DataFrame:
    """Feature rows with a score; `never` is always null."""
    rng = np.random.default_rng(seed)
    rows = {
        "pages": rng.poisson(pages, n),
        "device": np.where(rng.random(n) < phone, "phone", "desktop").astype(object),
        "pace": np.where(rng.random(n) < no_pace, np.nan, rng.normal(0, 1, n)),
        "plan": rng.choice(np.array(["free", "pro", None], dtype=object), n),
        "never": np.full(n, np.nan),
        "score": np.where(rng.random(n) < 0.1, np.nan, rng.beta(2, 5, n)),
    }
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drift, Path]:
    """Drift of people with more phones and fewer paces; the other features are as they were."""
    folder = tmp_path_factory.mktemp("pages")
    return measure(people(3000, 1), people(800, 2, phone=0.85, no_pace=0.4), TYPES, folder), folder


def test_planted_drift_is_found_and_nothing_else(found: tuple[Drift, Path]) -> None:
    drift, _ = found
    assert [f.name for f in drift.drifted] == ["device"]
    by_hand = (0.85 - 0.5) * np.log(0.85 / 0.5) + (0.15 - 0.5) * np.log(0.15 / 0.5)
    assert drift.features[0].psi == pytest.approx(by_hand, abs=0.1)
    assert drift.score is not None and drift.score < 0.1


def test_missing_values_on_both_sides(found: tuple[Drift, Path]) -> None:
    pace = next(f for f in found[0].features if f.name == "pace")
    assert pace.missing_reference == pytest.approx(0.1, abs=0.03)
    assert pace.missing_now == pytest.approx(0.4, abs=0.06)
    assert [f.name for f in found[0].features if f.missing_moved] == ["pace"]


def test_a_feature_without_values_has_no_psi_and_says_why(found: tuple[Drift, Path]) -> None:
    never = found[0].features[-1]
    assert (never.name, never.psi) == ("never", None)
    assert never.note == "no value in the reference and the newest week"


def test_the_pages_are_there_and_lead_back(found: tuple[Drift, Path]) -> None:
    drift, folder = found
    assert [p.title for p in drift.pages] == ["Feature drift", "Score drift", "Missing values"]
    for page in drift.pages:
        html = (folder / page.file).read_text(encoding="utf-8")
        assert f"<title>{page.title} · Firstmile</title>" in html
        assert '<a href="index.html">' in html and 'content="width=1000"' in html
        assert 'src="http' not in html and '<link rel="stylesheet" href="http' not in html


def test_one_side_empty_gives_no_pages(tmp_path: Path) -> None:
    drift = measure(people(100, 1), people(0, 2), TYPES, tmp_path)
    assert drift.pages == [] and drift.score is None and drift.drifted == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("n_now", "moved"), [(60, False), (1000, True)])
def test_a_share_of_missing_values_must_move_by_more_than_chance(n_now: int, moved: bool) -> None:
    then, now = (
        pd.Series([np.nan] * int(n * share) + [1.0] * (n - int(n * share))) for n, share in ((3000, 0.4), (n_now, 0.5))
    )
    assert _feature("pace", 0.0, "", then, now, ages=1).missing_moved == moved
