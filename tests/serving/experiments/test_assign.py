import msgspec
from hypothesis import given
from hypothesis import strategies as st

from serving.experiments.assign import Exposures, assign
from serving.experiments.declared import Experiment, Experiments, Step, Variant

ARMS = {"control": Variant(1, hide=("tour",)), "tour": Variant(1, show=("tour",))}
IDS = [f"u{i}" for i in range(2_000)]
NOW = 1_000


def experiment(name: str = "a", buckets: tuple[float, float] = (0, 1), share: float = 1, **changes) -> Experiment:
    found = Experiment(name, "?", "one", buckets, 100, 10_000, (Step(100, share),), ARMS, "activation")
    return msgspec.structs.replace(found, **changes)


def of(*experiments: Experiment, holdout: float = 0.0) -> Experiments:
    named = {e.name: e for e in experiments}
    return Experiments("saas", holdout, layers={e.layer: f"salt of {e.layer}" for e in experiments}, experiments=named)


def inside(experiments: Experiments, exposures: Exposures | None = None, at_us: int = NOW) -> dict[str, str]:
    """Variant of the first experiment for each id that has one."""
    found = {i: assign(experiments, i, (), exposures or {}, at_us).variants for i in IDS}
    return {i: v[0].variant for i, v in found.items() if v}


SHARES = st.floats(0, 1)


@given(SHARES, SHARES)
def test_a_ramp_only_adds_going_up_and_removes_going_down(one: float, two: float) -> None:
    low, high = (inside(of(experiment(share=s))) for s in sorted((one, two)))
    assert low.items() <= high.items(), "and nobody's variant changes"


@given(st.lists(SHARES, min_size=3, max_size=3), st.integers(0, 2), st.integers(0, 1_999))
def test_the_exposed_too_leave_when_the_ramp_goes_down_and_come_back_as_they_were(
    shares: list[float], seen: int, number: int
) -> None:
    """Whatever the id's own hash says: it may have changed since."""
    ramp = tuple(Step(100 * (i + 1), s) for i, s in enumerate(shares))
    many = of(experiment(ramp=ramp))
    exposed = {"a": ("tour", ramp[seen].at_us)}
    now = [bool(assign(many, IDS[number], (), exposed, s.at_us).variants) for s in ramp]
    for i, one in enumerate(shares):
        for j, two in enumerate(shares):
            assert not (one <= two and now[i]) or now[j]
    assert now[seen] == (shares[seen] > 0)
    for step, is_in in zip(ramp, now, strict=True):
        assert [v.variant for v in assign(many, IDS[number], (), exposed, step.at_us).variants] == ["tour"] * is_in


def test_a_ramp_back_to_a_tenth_leaves_a_tenth_of_the_exposed() -> None:
    many = of(experiment(ramp=(Step(100, 0.1), Step(200, 0.5), Step(300, 0.1))))
    before, after = inside(many, at_us=200), {}
    for i, variant in before.items():
        for assigned in assign(many, i, (), {"a": (variant, 250)}, 300).variants:
            after[i] = assigned.variant
    assert after == inside(many, at_us=300) and 120 < len(after) < 280


@given(st.floats(0.01, 0.99), st.floats(0, 0.9))
def test_experiments_of_one_layer_never_meet(cut: float, holdout: float) -> None:
    many = of(experiment("a", (0, cut)), experiment("b", (cut, 1)), holdout=holdout)
    for i in IDS[:300]:
        found = assign(many, i, (), {}, NOW)
        assert len(found.variants) == (not found.holdout)


def test_layers_are_independent_and_variants_of_bucket_and_ramp() -> None:
    many = of(experiment("a", share=0.5), experiment("b", (0, 0.5), layer="two"))
    found = [assign(many, i, (), {}, NOW).variants for i in IDS]
    cells = {(a, b): 0 for a in ("-", "control", "tour") for b in ("-", "control", "tour")}
    for variants in found:
        by = {v.experiment: v.variant for v in variants}
        cells[by.get("a", "-"), by.get("b", "-")] += 1
    expected = {"-": 0.5, "control": 0.25, "tour": 0.25}
    assert all(abs(n - 2_000 * expected[a] * expected[b]) < 80 for (a, b), n in cells.items())


def test_the_holdout_gets_nothing_and_says_so() -> None:
    many = of(experiment(), holdout=0.2)
    held = [i for i in IDS if assign(many, i, (), {}, NOW).holdout]
    assert 300 < len(held) < 500
    assert assign(many, held[0], (), {}, NOW).skipped == (("a", "in the permanent holdout"),)
    assert set(held) == {i for i in IDS if assign(of(experiment(kill=True), holdout=0.2), i, (), {}, NOW).holdout}


def test_who_has_seen_an_experiment_under_another_id_stays_out_of_the_holdout() -> None:
    found = assign(of(experiment(), holdout=1), "known", (), {"a": ("tour", 500)}, NOW)
    assert (found.holdout, [v.variant for v in found.variants]) == (False, ["tour"])


def test_an_exposure_beats_hash_slice_and_segment() -> None:
    many = of(experiment("a", (0, 0.5), segments=("cold",)), experiment("b", (0.5, 1)))
    for i in IDS[:50]:
        found = assign(many, i, ("warm",), {"a": ("tour", 500)}, NOW)
        assert [(v.experiment, v.variant) for v in found.variants] == [("a", "tour")]
        assert found.skipped == (("b", "already in a of layer one"),)


def test_of_two_exposures_in_a_layer_the_earliest_holds() -> None:
    many = of(experiment("a", (0, 0.5)), experiment("b", (0.5, 1)))
    found = assign(many, "u", (), {"a": ("tour", 700), "b": ("control", 600)}, NOW)
    assert [(v.experiment, v.variant) for v in found.variants] == [("b", "control")]


def test_killed_paused_and_not_running_beat_everything() -> None:
    exposed = {"a": ("tour", 500)}
    for changed, at_us, paused, why in (
        ({"kill": True}, NOW, (), "killed"),
        ({}, NOW, ("a",), "paused"),
        ({}, 99, (), "not begun"),
        ({}, 10_000, (), "ended"),
    ):
        found = assign(of(experiment(**changed)), "u", (), exposed, at_us, paused)
        assert (found.variants, found.skipped) == ((), (("a", why),))


def test_segments_slices_and_ramps_say_why_not() -> None:
    many = of(experiment(buckets=(0, 0.5), share=0.5, segments=("cold",)))
    said = {why for i in IDS[:200] for _, why in assign(many, i, ("cold",), {}, NOW).skipped}
    assert said == {"outside its buckets [0, 0.5) of layer one", "the ramp is at 50%"}
    found = assign(of(experiment(segments=("cold",))), "u", ("warm",), {}, NOW)
    assert found.skipped == (("a", "for cold only"),)


def test_an_exposure_to_a_variant_or_experiment_that_is_gone_counts_for_nothing() -> None:
    fresh = assign(of(experiment()), "u7", (), {}, NOW)
    assert assign(of(experiment()), "u7", (), {"a": ("old", 500), "gone": ("x", 1)}, NOW) == fresh


def test_a_replay_from_content_gives_the_same() -> None:
    many = of(experiment("a", (0, 0.5), 0.7), experiment("b", (0.5, 1)), holdout=0.1)
    again = Experiments.from_content(many.content)
    assert [assign(again, i, (), {}, NOW) for i in IDS] == [assign(many, i, (), {}, NOW) for i in IDS]
