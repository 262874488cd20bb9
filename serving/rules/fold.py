"""Rules as a fold over a person's facts: one step at a moment, and all the moments in between.

    rows (at, values, until) -> [advance: step at `at`, then at every due moment before `until`] -> state, moves

A segment is out, `in`, `excluded` (it would be in, and one that comes first holds) or `waiting` (expired):

    out      --- enter, and not exit -----------------------> in, or excluded
    in       --- exit, and it was held for the minimum stay -> out
    in       --- held until it expires ---------------------> waiting; out where `enter` does not hold
    in       --- one that comes first holds ----------------> excluded, at once; out where `exit` holds
    excluded --- exit -> out;  none that comes first holds --> in, and stay and expiry begin anew
    waiting  --- enter does not hold ----------------------> out
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from serving.rules.compiled import reason
from serving.rules.conditions import duration
from serving.rules.facts import Facts, Membership, MissingFeature, Move, Scene, State, Step
from serving.rules.ruleset import Plan, Rules
from serving.values import Value

Row = tuple[int, Mapping[str, Value], int | None]
"""A change point (µs), the values from then on, and until when they hold (µs, not included); null: for good."""
FOREVER = 2**62
OUT = State()
Judge = Callable[[int, Mapping[str, Value]], tuple[float | None, str | None]]
"""(moment, values) -> score and engagement segment; null where there is none."""


def unjudged(at_us: int, values: Mapping[str, Value]) -> tuple[None, None]:
    """Nobody has a score or an engagement segment."""
    return None, None


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of somebody: the state at the end, every move in order of time, and the next due moment (µs)."""

    state: State
    moves: tuple[Move, ...]
    due_us: int | None


def step(rules: Rules, state: State, facts: Facts) -> Step:
    """One step of the fold, at facts.at_us. Again at the same facts changes nothing.

    A step that comes after a due moment would take that moment for now: use `advance` then.
    Of several moves those out come first.

    Raises:
        MissingFeature: the facts lack a feature that the rules read.
    """
    scene = Scene(facts.values, facts.at_us, facts.score, facts.engagement, facts.persona)
    try:
        return _step(rules, state, scene)
    except KeyError as e:
        raise MissingFeature(
            f"rules {rules.version} read feature {e}, which the facts do not hold: `make apply backfill` writes it"
        ) from e


def _step(rules: Rules, state: State, scene: Scene) -> Step:
    before, after, held = state.segments, dict[str, Membership](), scene.held
    moves, due = _undeclared(rules, state, scene.at_us), None
    for plan in _asked(rules, before, scene):
        was = before.get(plan.name)
        if was is None and not plan.admit(scene):
            when = None if plan.admit_due is None else plan.admit_due(scene)
        else:
            now = _admitted(plan, scene) if was is None else _TRANSITIONS[was.phase](plan, was, scene)
            if now is not None:
                after[plan.name] = now
                if now.phase == "in":
                    held[plan.name] = now.since_us
            if now is not was:
                moves += _moves(plan, was, now, scene)
            when = _due(plan, now, scene)
        if when is not None and (due is None or when < due):
            due = when
    kept = state if after == before else State(after)
    order = tuple(sorted(held, key=rules.rank.__getitem__))
    return Step(kept, order, tuple(sorted(moves, key=lambda m: m.entered)) if len(moves) > 1 else tuple(moves), due)


def _asked(rules: Rules, before: Mapping[str, Membership], scene: Scene) -> Iterable[Plan]:
    """The plans of which anything is to be said: most segments, most of the time, somebody is out of and stays so."""
    numbers = rules.awake(scene)
    if before:
        numbers = sorted({*numbers, *(rules.place[name] for name in before if name in rules.place)})
    return map(rules.plans.__getitem__, numbers)


def _undeclared(rules: Rules, state: State, at_us: int) -> list[Move]:
    """Segments that newer rules no longer declare are left."""
    gone = [n for n, m in state.segments.items() if n not in rules.declared and m.phase == "in"]
    return [Move(name, False, at_us, f"rules {rules.version} do not declare it") for name in gone]


def _admitted(plan: Plan, scene: Scene) -> Membership:
    excluded = plan.excluders and not scene.held.keys().isdisjoint(plan.excluders)
    return Membership("excluded" if excluded else "in", scene.at_us)


def _in(plan: Plan, was: Membership, scene: Scene) -> Membership | None:
    stayed = scene.at_us - was.since_us
    leaves = plan.leave(scene)
    if leaves and stayed >= plan.segment.stay_us:
        return None
    if plan.segment.expires_us is not None and stayed >= plan.segment.expires_us:
        return Membership("waiting", scene.at_us) if plan.enter(scene) else None
    if plan.excluders and not scene.held.keys().isdisjoint(plan.excluders):
        return None if leaves else Membership("excluded", scene.at_us)
    return was


def _excluded(plan: Plan, was: Membership, scene: Scene) -> Membership | None:
    if plan.leave(scene):
        return None
    now = _admitted(plan, scene)
    return was if now.phase == "excluded" else now


def _waiting(plan: Plan, was: Membership, scene: Scene) -> Membership | None:
    return was if plan.enter(scene) else None


_TRANSITIONS = {"in": _in, "excluded": _excluded, "waiting": _waiting}


def _due(plan: Plan, now: Membership | None, scene: Scene) -> int | None:
    """When the segment's phase may change next with time alone; changes of other segments are theirs to foresee."""
    if now is None:
        return plan.admit_due and plan.admit_due(scene)
    if now.phase == "in":
        return _due_in(plan, now, scene)
    foreseen = plan.enter_due if now.phase == "waiting" else plan.leave_due
    return foreseen and foreseen(scene)


def _due_in(plan: Plan, now: Membership, scene: Scene) -> int | None:
    kept_until = now.since_us + plan.segment.stay_us
    leaves = kept_until if kept_until > scene.at_us and plan.leave(scene) else None
    if leaves is None and plan.leave_due and (foreseen := plan.leave_due(scene)) is not None:
        leaves = max(foreseen, kept_until)
    if plan.segment.expires_us is None:
        return leaves
    expires = now.since_us + plan.segment.expires_us
    return expires if leaves is None else min(leaves, expires)


def _moves(plan: Plan, was: Membership | None, now: Membership | None, scene: Scene) -> list[Move]:
    entered, left = now is not None and now.phase == "in", was is not None and was.phase == "in"
    if entered == left:
        return []
    cause = _why_entered(plan, was, scene) if entered else _why_left(plan, was, now, scene)
    return [Move(plan.name, entered, scene.at_us, cause)]


def _why_entered(plan: Plan, was: Membership | None, scene: Scene) -> str:
    if was is None:
        return reason(plan.segment.enter, scene)
    still = plan.segment.enter if plan.enter(scene) else plan.segment.leave
    return f"nothing that comes first holds any more; {reason(still, scene)}"


def _why_left(plan: Plan, was: Membership | None, now: Membership | None, scene: Scene) -> str:
    segment, since = plan.segment, was.since_us if was else scene.at_us
    first = [n for n in plan.excluders if n in scene.held]
    stayed = scene.at_us - since
    if plan.leave(scene) and stayed >= segment.stay_us:
        return reason(segment.leave, scene)
    if segment.expires_us is not None and stayed >= segment.expires_us:
        return f"expires after {duration(segment.expires_us)}"
    return f"{first[0]} comes first"


def advance(rules: Rules, state: State, facts: Facts, at_us: int) -> Step:
    """From facts.at_us, when these facts came into force, to `at_us`: a step at facts.at_us and at each due moment.

    So the moves have the moments at which they were due, whenever this is asked.

    Raises:
        ValueError: at_us is before facts.at_us. MissingFeature: see `step`.
    """
    if at_us < facts.at_us:
        raise ValueError(f"advance to {at_us} from facts of {facts.at_us}: the facts came into force after it")
    result = step(rules, state, facts)
    moves = list(result.moves)
    while result.due_us is not None and result.due_us <= at_us:
        result = step(rules, result.state, replace(facts, at_us=result.due_us))
        moves += result.moves
    return Step(result.state, result.held, tuple(moves), result.due_us)


def fold(
    rules: Rules, rows: Iterable[Row], until_us: int | None = None, state: State = OUT, judge: Judge = unjudged
) -> Folded:
    """The rules over a person's change points, in order of time.

    until_us: up to which moment (included) they are followed; rows after it are left out. None: to the end of the last
    row; where that holds for good, to its beginning. judge: the model, asked once at each change point.
    """
    moves, due = list[Move](), None
    for at_us, values, ends_us in rows:
        if until_us is not None and at_us > until_us:
            break
        last = min((t for t in (until_us, None if ends_us is None else ends_us - 1) if t is not None), default=at_us)
        result = advance(rules, state, Facts(values, at_us, *judge(at_us, values)), max(at_us, last))
        state, due = result.state, result.due_us
        moves += result.moves
    return Folded(state, tuple(moves), due)
