"""A run's figures as the table that ends it."""

from typing import Any

from rich.table import Table


def summary(figures: dict[str, Any]) -> Table:
    """One row a figure, in the words of the README."""
    table = Table("what", "came out", title=f"Firstmile: {figures['domain']}", title_justify="left")
    for what, value in _rows(figures):
        table.add_row(what, value)
    return table


def _rows(f: dict[str, Any]) -> list[tuple[str, str]]:
    events, features, live = f["events"], f["features"], f["decisions"]
    refused = sum(events["refused"].values())
    reasons = ", ".join(f"{name} {n:,}" for name, n in events["refused"].items())
    attainable, r = f["attainable_roc_auc"], f["replay"]
    rows = [
        ("events", f"{events['accepted']:,} accepted, {refused:,} refused" + (f" ({reasons})" if refused else "")),
        (
            "features",
            f"{features['stored']} stored + {features['elapsed']} elapsed, {features['rows']:,} rows, "
            f"position {features['position']:,}",
        ),
        ("candidates, ROC-AUC", ", ".join(f"{name} {auc:.3f}" for name, auc in f["candidates"].items())),
        ("champion", f"{f['model']['name']} version {f['model']['version']}"),
        ("ROC-AUC, newest holdout", f"{f['roc_auc']:.3f}" + (f" (attainable {attainable:.3f})" if attainable else "")),
    ]
    rows += [
        (f"day {r['t']}, out of time", f"ROC {r['roc_auc']:.3f}, PR {r['pr_auc']:.3f}, n {r['n']:,}")
        for r in f.get("out_of_time", [])
    ]
    rows += [
        ("decisions", f"{live['n']:,}, of them {live['known']:,} for known people"),
        ("segments", ", ".join(f"{name} {n}" for name, n in live["segments"].items())),
        ("decision p50 / p99", f"{live['p50_ms']} / {live['p99_ms']} ms over HTTP"),
        ("live", _live(f["live"])),
        (
            "parity",
            f"{f['parity']['vectors']:,} served vectors recomputed from the lake, {f['parity']['wrong']} wrong values",
        ),
        ("replay", f"{r['decisions']:,} decisions made again from their receipts, {r['different']} different"),
        *_experiment(f.get("experiment")),
        ("Bento", f["bento"]),
        *((name, where) for name, where in f["uis"].items()),
        ("took", f"{f['seconds']['total']} s" + _skipped(f.get("skipped", []))),
    ]
    return rows


def _skipped(steps: list[str]) -> str:
    return f"; unchanged, so skipped: {', '.join(steps)}" if steps else ""


def _experiment(f: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The experiment's interval, valid at all times, beside the truth; none where there is none."""
    if f is None or "effect" not in f:
        return []
    effect, low, high, true = (f"{100 * f[name]:+.1f}" for name in ("effect", "low", "high", "truth"))
    return [(f"experiment {f['name']}", f"{effect} points ({low} to {high}; truth {true}), {f['people']:,} people")]


def _live(f: dict[str, Any]) -> str:
    sent = f"{f['events']:,} events of {f['people']} people through {f['sdk']}"
    held = f", {f['log']} and {f['workers']} workers" if f["workers"] else ""
    held += f", rows on {f['online']}" if f["online"] != "sqlite" else ""
    return f"{sent}{held}: {f['moves']} changes of segment, event to decision p50 {f['event_to_decision_p50_ms']} ms"
