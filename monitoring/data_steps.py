"""The steps of a run before and after the model: events, features, segments, the Bento, the simulated experiment."""

import os
from pathlib import Path
from typing import Any

from feature_repo.domains.saas.experiment import TEMPLATES
from feature_repo.lake.log_to_lake import ingest
from feature_repo.vocabulary import MINUTE
from monitoring import inputs
from monitoring.steps import Figures, Run, now_of


def events(run_: Run, data: Path | None, users: int) -> None:
    """Take in what is new in the source. A source that is as it was keeps the time as of which the run works."""

    def do() -> Figures:
        source: dict[str, Any] = {} if run_.domain.needs_data else {"users": users, "experiment": TEMPLATES}
        ingested = ingest(run_.settings, data, **source)
        run_.source = inputs.source(run_.settings)
        seen = run_.record.unchanged("as of", {"source": run_.source})
        if seen is None:
            at_us = now_of(run_) // MINUTE * MINUTE
            seen = run_.record.write("as of", {"source": run_.source}, {"at_us": at_us}, 0.0)
        run_.at_us = seen.result["at_us"]
        return {"accepted": ingested.accepted, "refused": dict(sorted(ingested.refused.items()))}

    run_.figures["events"] = run_.step("events", do)


def features(run_: Run, fresh: bool) -> None:
    """Feature rows for everybody whom new events touch, offline and online; fresh: for everybody."""
    from feature_repo.feature_store.backfill import backfill
    from feature_repo.feature_store.materialize import materialize
    from feature_repo.lake.lake import Lake

    def made_from() -> Figures:
        position = Lake(run_.settings.lake).last_position()
        online = {"online": run_.settings.online, "code": inputs.code("feature_repo")}
        return {"position": position, "as of": run_.at_us} | online

    def do() -> Figures:
        lost = fresh or inputs.offline_rows_lost(run_.settings, run_.record.last("features").get("files", 0))
        if lost or inputs.online_rows_lost(run_.settings):
            inputs.forget_rows(run_.settings, offline=lost)
        for found in backfill(run_.settings).at_limit:
            run_.console.print(found, markup=False)
        materialize(run_.settings, run_.at_us)
        return inputs.rows_of(run_.settings)

    def there(done: Figures) -> bool:
        lost = inputs.offline_rows_lost(run_.settings, done["files"]) or inputs.online_rows_lost(run_.settings)
        return not lost

    found = run_.step("features", do, made_from, there)
    declared = {"stored": len(run_.domain.features), "elapsed": len(run_.domain.elapsed)}
    run_.figures["features"] = declared | {"rows": found["rows"], "position": found["position"]}


def segments(run_: Run, champion: int) -> None:
    """Everybody's segments as of the run's time, into the journal."""
    from serving import playbook
    from serving.segments.journal import FILE as JOURNAL

    def do() -> Figures:
        from serving.segments.commands import followed

        return {"people": followed(run_.settings, run_.at_us, run_.console)}

    def made_from() -> Figures:
        decides = {"champion": champion, "policy and rules": playbook.for_domain(run_.domain).version}
        return run_.data | decides | {"history": run_.settings.history, "code": inputs.code("serving")}

    there = lambda done: (run_.settings.state / JOURNAL).exists()  # noqa: E731
    run_.figures["segments"] = run_.step("segments", do, made_from, there)["people"]


def build(run_: Run, champion: int) -> None:
    """The Bento that holds the champion."""

    def do() -> Figures:
        from serving import bento

        tag = str(bento.build(run_.settings))
        run_.console.print(tag)
        return {"bento": tag}

    made_from = lambda: {"champion": champion, "code": inputs.code("serving")}  # noqa: E731
    store = Path(os.environ["BENTOML_HOME"])
    there = lambda done: inputs.bento_there(store, done["bento"])  # noqa: E731
    run_.figures |= run_.step("build the Bento", do, made_from, there)


def experiment(run_: Run) -> None:
    """The experiment among simulated people, with its interval beside the simulator's truth."""
    if run_.domain.needs_data:
        return

    def do() -> Figures:
        from monitoring.simulated_experiment import simulated

        found = simulated(run_.settings, run_.at_us)
        if found is None:
            return {}
        run_.console.print(found.table())
        return {"experiment": found.figures()}

    def there(done: Figures) -> bool:
        picture = done.get("experiment", {}).get("picture")
        return not picture or Path(picture).exists()

    run_.figures |= run_.step("experiment", do, lambda: run_.data | {"code": inputs.code("monitoring")}, there)
