"""Evidently's own pages, beside the front page, and the PSI values in them.

Both sides are DataFrames of one row an observation, numbers as float64, strings as objects, nulls as NaN or None.
Evidently is imported inside the functions: it takes seconds.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from monitoring.psi import DRIFTED

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

METHOD = "psi"
DRIFT_SHARE = 0.2
"""Evidently calls the dataset drifted from this share of drifted features on; so does our verdict."""
DATA_BEGINS, DATA_ENDS = "<script>\n    var ", ";\n</script>\n    </head>"
"""Around the data in Evidently's page."""
CSP = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)
"""What the page may load: only what is in it. connect-src is 'none' by default-src."""
DESK = "width=1000"
"""Viewport of Evidently's pages."""


@dataclass(frozen=True)
class Page:
    """A page that Evidently wrote, beside the front page."""

    file: str
    title: str
    doc: str


def load() -> None:
    """Import Evidently now, by who has to wait for something else in the meantime."""
    import evidently.metrics
    import evidently.presets  # noqa: F401


def write(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    types: dict[str, str],
    full: dict[str, str],
    scored: bool,
    folder: Path,
    step: Callable[[str], None],
) -> tuple[dict[str, float], list[Page]]:
    """Write the pages that there is something for; gives PSI by column, `score` among them, and the pages.

    types: of all features; full: of those that have values on both sides; scored: whether the score has.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty columns, which we report, and of old names in Evidently's libraries
        return _write(reference, current, types, full, scored, folder, step)


def _write(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    types: dict[str, str],
    full: dict[str, str],
    scored: bool,
    folder: Path,
    step: Callable[[str], None],
) -> tuple[dict[str, float], list[Page]]:
    values: dict[str, float] = {}
    pages = []
    if full:
        step("Evidently: features")
        values = _features_page(reference, current, full, folder / "drift-features.html")
        pages.append(Page("drift-features.html", "Feature drift", "every feature's distribution, then and now"))
    if scored:
        step("Evidently: score")
        values |= _score_page(reference, current, folder / "drift-score.html")
        pages.append(Page("drift-score.html", "Score drift", "the champion's scores, then and now"))
    if len(reference) and len(current):
        step("Evidently: missing values")
        _missing_page(reference, current, types, folder / "missing-values.html")
        pages.append(Page("missing-values.html", "Missing values", "counts and shares, feature by feature"))
    return values, pages


def _features_page(
    reference: pd.DataFrame, current: pd.DataFrame, types: dict[str, str], path: Path
) -> dict[str, float]:
    """Evidently's data drift preset over these features: writes its page, gives PSI by feature."""
    from evidently.presets import DataDriftPreset

    preset = DataDriftPreset(columns=list(types), method=METHOD, threshold=DRIFTED, drift_share=DRIFT_SHARE)
    return _psi_values(_run([preset], reference, current, types, path, "Feature drift"))


def _score_page(reference: pd.DataFrame, current: pd.DataFrame, path: Path) -> dict[str, float]:
    """Evidently's drift of the score: writes its page, gives its PSI."""
    from evidently.metrics import ValueDrift

    metric = ValueDrift(column="score", method=METHOD, threshold=DRIFTED)
    return _psi_values(_run([metric], reference, current, {"score": "float64"}, path, "Score drift"))


def _missing_page(reference: pd.DataFrame, current: pd.DataFrame, types: dict[str, str], path: Path) -> None:
    """Evidently's counts of missing values, of each feature that ever misses one (if none does, of all)."""
    from evidently.metrics import MissingValueCount

    some = [name for name in types if reference[name].isna().any() or current[name].isna().any()]
    metrics = [MissingValueCount(column=name, tests=[], share_tests=[]) for name in some or types]
    _run(metrics, reference, current, types, path, "Missing values")


def _run(
    metrics: Sequence[Any],
    reference: pd.DataFrame,
    current: pd.DataFrame,
    types: dict[str, str],
    path: Path,
    title: str,
) -> "Snapshot":
    """Run Evidently over the columns in `types` and save its page, with a title and a way back to the front page."""
    from evidently import DataDefinition, Dataset, Report

    strings = [name for name, type_ in types.items() if type_ == "string"]
    definition = DataDefinition(
        numerical_columns=[name for name in types if name not in strings], categorical_columns=strings
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of empty columns, which we report ourselves, and of old names in its libraries
        now, then = (
            Dataset.from_pandas(side[list(types)], data_definition=definition) for side in (current, reference)
        )
        snapshot = Report(list(metrics)).run(now, then)
        html = _escaped(snapshot.get_html_str(as_iframe=False))
    path.write_text(_with_way_back(html, title), encoding="utf-8")
    return snapshot


def _escaped(html: str) -> str:
    """Evidently's page with every `<` in its data escaped, so that no value which a user sent ends the script block.

    The data is JSON on lines of its own, and JSON has no line break inside a text: no value can imitate the markers.

    Raises:
        ValueError: the page has no such block, as another version of Evidently may write it.
    """
    before, opening, rest = html.partition(DATA_BEGINS)
    data, closing, after = rest.partition(DATA_ENDS)
    if not closing:
        raise ValueError(
            "Evidently's page has no data block where it was expected: adapt monitoring/evidently_pages.py"
        )
    return f"{before}{opening}{data.replace('<', chr(92) + 'u003c')}{closing}{after}"


def _psi_values(snapshot: "Snapshot") -> dict[str, float]:
    """PSI by column out of an Evidently result."""
    metrics = snapshot.dict()["metrics"]
    return {m["config"]["column"]: float(m["value"]) for m in metrics if m["config"]["type"].endswith("ValueDrift")}


def _with_way_back(html: str, title: str) -> str:
    """Evidently's page with a title and a link to the front page.

    Its tables need the width of a desk and are cut off on a narrow screen: there it is shown smaller, as a whole.
    """
    link = (
        '<nav style="font:20px/1.5 system-ui,sans-serif;padding:12px 24px">'
        f'<a href="index.html">← Weekly report</a> · {title}, by Evidently</nav>'
    )
    html = html.replace("width=device-width, initial-scale=1.0", DESK, 1)
    html = html.replace(
        "<head>",
        f'<head>\n<meta http-equiv="Content-Security-Policy" content="{CSP}">\n<title>{title} · Firstmile</title>',
        1,
    )
    return html.replace("<body>", f"<body>\n{link}", 1)
