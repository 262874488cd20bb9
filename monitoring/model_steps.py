"""The steps of a run that make a model: train, the gate, evaluation, published figures."""

from importlib.util import find_spec

from monitoring import inputs
from monitoring.steps import Figures, Run, labels_known_us


def train_candidates(run_: Run) -> int:
    """Train the candidates; gives the version of the best one."""
    from training import registry

    def do() -> Figures:
        from training.progress import Bar
        from training.tables import candidates
        from training.train import train

        with Bar("training") as bar:
            trained = train(run_.settings, labels_known_us(run_), progress=bar)
        candidates(trained)
        return {"version": trained.version, "candidates": {r.kind: r.metrics["roc_auc"] for r in trained.results}}

    made_from = lambda: run_.data | {"code": inputs.code("training")}  # noqa: E731
    found = run_.step("train", do, made_from, lambda done: registry.held(run_.settings, done["version"]))
    run_.figures["candidates"] = found["candidates"]
    return int(found["version"])


def ask_the_gate(run_: Run, version: int) -> int:
    """Ask the gate about a version that it has not judged; gives the version of the champion that stands now."""
    from training import registry

    def do() -> Figures:
        from training.promote import promote
        from training.tables import verdict

        found = promote(run_.settings)
        verdict(found)
        if not found.promoted and found.standing is None:
            raise ValueError(
                f"the gate refused version {found.version}, and there is no champion to go on with: {found.reason}. "
                f"More people make a better model; `make promote VERSION={found.version}` takes it all the same"
            )
        return {"promoted": found.promoted}

    standing = lambda done: registry.champion_version(run_.settings) is not None  # noqa: E731
    run_.step("promote", do, lambda: {"version": version}, standing)
    champion = registry.champion_version(run_.settings)
    assert champion is not None, "the step ends with one"
    return champion


def evaluate(run_: Run, champion: int) -> None:
    """The champion's figures on the newest holdout, and, where a simulator knows, what is attainable."""

    def do() -> Figures:
        from training.examine import examine

        examined = examine(run_.settings, labels_known_us(run_))
        figures: Figures = {name: round(i.value, 4) for name, i in examined.figures.items()}
        model = {"name": examined.model.name, "version": examined.model.version}
        return {"model": model} | figures | {"attainable_roc_auc": _attainable(run_)}

    made_from = lambda: run_.data | {"champion": champion, "code": inputs.code("training")}  # noqa: E731
    run_.figures |= run_.step("evaluate", do, made_from)


def _attainable(run_: Run) -> float | None:
    if run_.domain.attainable is None:
        return None
    from sklearn.metrics import roc_auc_score

    from training import dataset, splits
    from training.plan import Plan

    known = dataset.matured(dataset.observations(run_.settings, labels_known_us(run_)))
    held = splits.newest_holdout(known, Plan().holdout, Plan().gap_us).holdout
    truth = run_.domain.attainable(run_.settings, held)
    return round(float(roc_auc_score(held["label"].astype(int), truth)), 4)


def compare_with_published(run_: Run) -> None:
    """Where a domain has published figures, training has a module of its name that compares with them."""
    if find_spec(f"training.{run_.domain.name}") is None:
        return

    def do() -> Figures:
        from importlib import import_module

        from training.progress import Bar
        from training.tables import published

        with Bar("comparing") as bar:
            found = import_module(f"training.{run_.domain.name}").compare(run_.settings, progress=bar)
        published(found)
        return {"out_of_time": found}

    run_.figures |= run_.step("published figures", do, lambda: run_.data | {"code": inputs.code("training")})
