"""What the commands print."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from feature_repo.contract.events import spoken

if TYPE_CHECKING:
    from training.discovery import Discovered
    from training.evaluate import Interval
    from training.examine import Examined
    from training.membership import Membership
    from training.promote import Verdict
    from training.train import Trained

WIDTH = 110
"""Of a table that goes to a file or a pipe."""
NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "log_loss": "log loss", "brier": "Brier", "ece": "calibration error"}


def candidates(trained: "Trained", console: Console | None = None) -> None:
    """Every candidate with its figures on the newest holdout."""
    table = Table(title=f"Candidates on the newest holdout ({trained.holdout_rows} rows)")
    table.add_column("candidate")
    for name in ("trials", "CV log loss", *NAMES.values()):
        table.add_column(name, justify="right")
    for r in trained.results:
        figures = [f"{r.metrics[k]:.4f}" for k in NAMES]
        name = f"[bold]{r.kind}[/bold]" if r.kind == trained.best else r.kind
        table.add_row(name, str(len(r.tuned.trials)), f"{r.tuned.loss:.4f}", *figures)
    out = console or _console()
    out.print(table)
    out.print(
        f"Registered {trained.best} as version {trained.version}: ROC-AUC {_range(trained.intervals['roc_auc'])}, "
        f"learnt from {trained.train_rows} rows, {trained.seconds:.0f} s"
    )
    if trained.left_out:
        out.print(
            f"Left out: {len(trained.left_out)} of {trained.users} users, whose outcome came before their anchor, "
            f"such as {spoken(trained.left_out[0])}"
        )
    if trained.personas is not None:
        clusterings(trained.personas, out)


def clusterings(found: "Discovered", console: Console | None = None) -> None:
    """What was tried for personas and why it was not taken."""
    out = console or _console()
    names = ("clustering", "groups", "silhouette", "stability", "smallest", "in none", "refused")
    table = Table(*names, title=f"Clusterings of {found.people} people, for personas")
    for t in found.tried:
        figures = ("-" if v != v else f"{v:.2f}" for v in (t.silhouette, t.stability, t.smallest, t.noise))
        name = t.method if t.refused else f"[bold]{t.method}[/bold]"
        table.add_row(name, str(t.groups), *figures, t.refused)
    if found.tried:
        out.print(table)
    out.print(found.why)


def membership(found: "Membership", console: Console | None = None) -> None:
    """The personas of a version: who is in them, and how often the outcome follows."""
    out = console or _console()
    title = f"Personas of {found.model.name} version {found.model.version}, {found.people} people"
    table = Table("persona", "people", "share", found.label, "what sets them apart", title=title)
    for p in found.personas:
        rate = "-" if p.rate is None else f"{p.rate:.3f}"
        table.add_row(p.name, str(p.people), f"{p.share:.3f}", rate, p.doc)
    out.print(table if found.model.personas else f"{found.model.name} version {found.model.version} has no personas")


def verdict(found: "Verdict", console: Console | None = None) -> None:
    """The gate's checks and what came of them."""
    table = Table(title=f"Gate for version {found.version} (champion: {found.standing or 'none'})")
    for name in ("check", "", "why"):
        table.add_column(name)
    for check in found.checks:
        table.add_row(check.name, "[green]yes[/green]" if check.passed else "[red]no[/red]", check.words)
    out = console or _console()
    out.print(table)
    stays = f"version {found.standing}" if found.standing else "nobody"
    out.print(f"@champion is version {found.version}" if found.promoted else f"@champion stays: {stays}")


def examined(found: "Examined", console: Console | None = None) -> None:
    """Figures, segments and slices of a version."""
    out = console or _console()
    out.print(_figures(f"{found.model.name} version {found.model.version}, {found.rows} rows", found.figures))
    for title, frame in (("Segments", found.segments), ("Slices", found.slices)):
        table = Table(*map(str, frame.columns), title=title)
        for row in frame.itertuples(index=False):
            table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
        out.print(table)


def published(days: list[dict[str, Any]], console: Console | None = None) -> None:
    """OULAD beside the publication."""
    from training.oulad import NOTE

    table = Table("split", "t", "n", "ROC-AUC", "PR-AUC", title="OULAD, out of time")
    for day in days:
        other = {"published XGBoost": day["published"], "as published": day, "as of": day["as_of"]}
        for name, row in other.items():
            table.add_row(name, str(day["t"]), str(row["n"]), f"{row['roc_auc']:.3f}", f"{row['pr_auc']:.3f}")
        for row in day["as_of"]["presentations"]:
            name = f"as of, {row['presentation']} alone"
            table.add_row(name, str(day["t"]), str(row["n"]), f"{row['roc_auc']:.3f}", f"{row['pr_auc']:.3f}")
    out = console or _console()
    out.print(table)
    out.print(NOTE)


def _console() -> Console:
    """The terminal as wide as it is, a file as wide as the tables need."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _figures(title: str, figures: Mapping[str, "Interval"]) -> Table:
    table = Table("figure", "value [90 % interval]", title=title)
    for key, figure in figures.items():
        table.add_row(NAMES[key], _range(figure))
    return table


def _range(figure: "Interval") -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]".replace("[", r"\[")
