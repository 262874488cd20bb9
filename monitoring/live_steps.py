"""The steps of a run that are always done: decide over HTTP, replay, parity, and the weekly report."""

from feature_repo.progress import Bars
from monitoring import distributed
from monitoring.live import Live, decide_live
from monitoring.parity import parity
from monitoring.steps import Figures, Run, now_of


def decide(run_: Run, port: int | None) -> None:
    """The live part: always done, at the time that it is now."""

    def live() -> Figures:
        at_us = now_of(run_)
        found: Live = decide_live(run_.settings, _people(run_, at_us), at_us, port, run_.console)
        return {"decisions": found.figures(), "live": found.relived.figures() | distributed.figures(run_.settings)}

    def compared() -> Figures:
        found = parity(run_.settings)
        run_.console.print(found.table())
        return {"vectors": found.vectors, "not_comparable": found.not_comparable, "wrong": found.wrong}

    run_.figures |= run_.step("decide", live)
    run_.figures["replay"] = run_.step("replay", lambda: _replayed(run_))
    run_.figures["parity"] = run_.step("parity", compared)


def _replayed(run_: Run) -> Figures:
    """Every decision of the run made again from its receipt."""
    from serving import replay

    with Bars(console=run_.console, transient=True) as progress:
        bar = progress.add_task("making decisions again", total=None)
        done = replay.replayer(run_.settings).all(
            replay.rows(run_.settings.decisions), lambda n: progress.update(bar, advance=n)
        )
    run_.console.print("\n".join(replay.table(done)))
    return {"decisions": done.count, "equal": done.equal, "different": done.different}


def _people(run_: Run, at_us: int, most: int = 500) -> list[str]:
    """Whose onboarding is under way, the newest first, at most so many."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    now = people[(people["anchor_us"] <= at_us) & (at_us < people["end_us"])]
    return list(now.sort_values(["anchor_us", "user_id"], ascending=False)["user_id"].head(most))


def weekly_report(run_: Run) -> None:
    """The report of the week that ends with the newest event or decision."""

    def do() -> Figures:
        from monitoring.report import report

        written = report(run_.settings)
        for verdict in written.figures["verdicts"]:
            run_.console.print(f"  {verdict['title']}")
        return {"report": str(written.page)}

    run_.figures |= run_.step("report", do)
