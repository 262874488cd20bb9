"""The steps of a run that are always done: decide over HTTP, replay, parity, and the weekly report."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from feature_repo.progress import Bars
from monitoring import distributed, evidently_pages, failures, live
from monitoring.parity import Parity, parity
from monitoring.steps import LOG, Figures, Run, now_of


@contextmanager
def service(run_: Run, port: int | None) -> Iterator[live.Starting]:
    """The service, at the time that it is now: it starts while other steps are done."""
    with ExitStack() as held:
        with failures.explained("decide", run_.settings.state / LOG):
            starting = held.enter_context(live.starting(run_.settings, port, now_of(run_)))
        yield starting


def decide(run_: Run, service: live.Starting) -> None:
    """The live part."""

    def do() -> Figures:
        people = _people(run_, now_of(run_))
        found = live.decide_live(run_.settings, service, people, run_.console, evidently_pages.load)
        return {"decisions": found.figures(), "live": found.relived.figures() | distributed.figures(run_.settings)}

    run_.figures |= run_.step("decide", do)


def compare(run_: Run) -> Parity:
    """Everything that was served, made again: decisions from their receipts, and features from the lake."""
    compared = list[Parity]()

    def do() -> Figures:
        compared.append(found := parity(run_.settings))
        run_.console.print(found.table())
        return {"vectors": found.vectors, "not_comparable": found.not_comparable, "wrong": found.wrong}

    run_.figures["replay"] = run_.step("replay", lambda: _replayed(run_))
    run_.figures["parity"] = run_.step("parity", do)
    return compared[0]


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


def weekly_report(run_: Run, compared: Parity) -> None:
    """The report of the week that ends with the newest event or decision. compared: all that was served."""

    def do() -> Figures:
        from monitoring.report import report

        written = report(run_.settings, compared=compared)
        for verdict in written.figures["verdicts"]:
            run_.console.print(f"  {verdict['title']}")
        return {"report": str(written.page)}

    run_.figures |= run_.step("report", do)
