"""Whose device goes with whom: by links that can be trusted, whatever a public key says beside them."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.origin import Origin, note
from feature_repo.contract.wire import canonical_json
from feature_repo.erasing.devices import Use, devices_of

USERS, IDS = ["u1", "u2", "u3"], ["a", "b"]


def context(origin: Origin) -> str:
    noted: dict = {}
    note(noted, origin)
    return canonical_json(noted).decode()


PUBLIC = context(Origin("0" * 12, browser=True, verified=False))
TRUSTED = [context(o) for o in (Origin(), Origin("1" * 12), Origin("0" * 12, browser=True, verified=True))]


@st.composite
def uses(draw: st.DrawFn, contexts: list[str]) -> list[Use]:
    found = []
    for n in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["track", "identify", "alias"]))
        user = draw(st.sampled_from(USERS if kind != "track" else [*USERS, None]))
        noted = draw(st.sampled_from(contexts))
        found.append(Use(draw(st.sampled_from(IDS)), user, f"m{n}", draw(st.integers(0, 9)), kind, noted))
    return found


@given(uses(TRUSTED), uses([PUBLIC]))
def test_nothing_that_a_public_key_says_adds_to_what_goes_or_takes_from_it(
    trusted: list[Use], public: list[Use]
) -> None:
    anonymous = [use for use in public if use.user_id is None]
    said = [use._replace(message_id=f"p{use.message_id}") for use in public if use.user_id is not None]
    without, found = devices_of("u1", [*trusted, *anonymous]), devices_of("u1", [*trusted, *anonymous, *said])
    assert (found.aliases, found.shared, found.messages) == (without.aliases, without.shared, without.messages)


@given(uses([*TRUSTED, PUBLIC]))
def test_each_device_is_in_one_place_and_whoever_has_a_link_to_it_is_touched(events: list[Use]) -> None:
    found = devices_of("u1", events)
    places = [*found.aliases, *found.shared, *found.unverified]
    assert sorted(places) == sorted({use.anonymous_id for use in events})
    assert {u.user_id for u in events if u.links} - {"u1"} <= set(found.touched)
    assert not {m for _, m in found.messages} - {u.message_id for u in events if u.user_id is None}
