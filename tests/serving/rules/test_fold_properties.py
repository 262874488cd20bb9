import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from serving.rules import Facts, Rules, State, advance, fold, step
from serving.rules.fold import Row
from tests.serving.rules.made_up import each_moment, lives, looked_at_always, rules

EXAMPLES = settings.get_profile(settings.get_current_profile_name()).max_examples
MANY, MORE = settings(max_examples=EXAMPLES * 4), settings(max_examples=EXAMPLES * 20)


@MORE
@given(rules(), lives())
def test_a_fold_finds_what_looking_at_every_microsecond_finds(found: Rules, rows: list[Row]) -> None:
    state, moves = looked_at_always(found, rows)
    folded = fold(found, rows)
    event(f"{min(len(moves), 5)} moves")
    assert list(folded.moves) == moves
    assert folded.state == state


@MANY
@given(rules(), lives())
def test_a_step_again_changes_nothing_and_one_of_a_group_holds(found: Rules, rows: list[Row]) -> None:
    state, inside = State(), set[str]()
    for moment, values in each_moment(rows):
        first = step(found, state, Facts(values, moment))
        again = step(found, first.state, Facts(values, moment))
        assert (again.state, again.held, again.moves, again.due_us) == (first.state, first.held, (), first.due_us)
        for move in first.moves:
            assert (move.segment in inside) is not move.entered
            inside ^= {move.segment}
        assert inside == set(first.held) == set(first.state.held)
        groups = [found.declared[n].group for n in first.held if found.declared[n].group]
        assert len(groups) == len(set(groups))
        state = first.state


@MANY
@given(rules(), lives())
def test_nothing_changes_before_the_due_moment(found: Rules, rows: list[Row]) -> None:
    state = State()
    for at, values, until in rows:
        assert until is not None
        due: int | None = at
        for moment in range(at, until):
            result = step(found, state, Facts(values, moment))
            if due is None or moment < due:
                assert result.state == state
                assert due is None or result.due_us is None or result.due_us >= due
            assert result.due_us is None or result.due_us > moment
            state, due = result.state, result.due_us


@MANY
@given(rules(), lives(), st.sets(st.integers(0, 70)))
def test_more_steps_do_not_matter(found: Rules, rows: list[Row], extra: set[int]) -> None:
    state, moves = State(), []
    for at, values, until in rows:
        assert until is not None
        moments = sorted({at, until - 1} | {m for m in extra if at <= m < until})
        for begin, end in zip([at, *moments], moments, strict=False):
            result = advance(found, state, Facts(values, begin), end)
            state = result.state
            moves += result.moves
    assert (state, tuple(moves)) == (fold(found, rows).state, fold(found, rows).moves)


@MANY
@given(rules(), lives(), st.integers(0, 70))
def test_a_fold_can_be_taken_up_again(found: Rules, rows: list[Row], cut: int) -> None:
    before = [(at, v, min(until or 0, cut)) for at, v, until in rows if at < cut]
    after = [(max(at, cut), v, until) for at, v, until in rows if until is not None and until > cut]
    first = fold(found, before)
    stored = msgspec.json.decode(msgspec.json.encode(first.state), type=State)
    rest = fold(found, after, state=stored)
    whole = fold(found, rows)
    assert (rest.state, first.moves + rest.moves) == (whole.state, whole.moves)


@MANY
@given(rules(), lives())
def test_the_same_rules_come_out_of_their_content(found: Rules, rows: list[Row]) -> None:
    again = Rules.from_content(found.content)
    assert (again.content, again.version, again.segments) == (found.content, found.version, found.segments)
    assert fold(again, rows) == fold(found, rows)


@MANY
@given(rules(), lives())
def test_rows_that_repeat_their_values_change_nothing(found: Rules, rows: list[Row]) -> None:
    split: list[Row] = []
    for at, values, until in rows:
        assert until is not None
        middle = (at + until + 1) // 2
        split += [(at, values, middle), (middle, dict(values), until)] if at < middle < until else [(at, values, until)]
    assert fold(found, split) == fold(found, rows)
