"""Which devices go with a user who is erased or exported, and which events of a device that others use too.

Only identity links that can be trusted are followed (see origin.Origin.trusted): whoever names somebody's device with a
key that every browser holds must not be able to have the device's events removed, or to read them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from feature_repo.contract.events import ANONYMOUS
from feature_repo.contract.origin import origin_of
from feature_repo.history.history_store import EDGES

Link = tuple[int, str, str]
"""(timestamp µs, message id, user): from then on an anonymous id is that user."""


class Use(NamedTuple):
    """An event that names an anonymous id. context: canonical JSON."""

    anonymous_id: str
    user_id: str | None
    message_id: str
    ts_us: int
    type: str
    context: str

    @property
    def links(self) -> bool:
        """Whether it says that the anonymous id is the user's."""
        return self.user_id is not None and self.type in EDGES

    @property
    def trusted(self) -> bool:
        """Whether its word on whose device it is can be relied on."""
        return origin_of(self.context).trusted


class Devices(NamedTuple):
    """The anonymous ids that were said to be a user's, each in one of the first three.

    aliases: theirs alone. shared: others use them too; only `messages` of it, as (sender, message id), are the user's.
    unverified: no link to them can be trusted; nothing of them is taken to be the user's. touched: others whose
    features change when what is the user's goes.
    """

    aliases: tuple[str, ...]
    shared: tuple[str, ...]
    unverified: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    touched: tuple[str, ...]


def devices_of(user: str, uses: Iterable[Use]) -> Devices:
    """The devices of a user, by every event that names one of the anonymous ids that were said to be theirs."""
    by_id: dict[str, list[Use]] = {}
    for use in uses:
        by_id.setdefault(use.anonymous_id, []).append(use)
    aliases, shared, unverified = list[str](), list[str](), list[str]()
    messages, touched = list[tuple[str, str]](), set[str]()
    for anonymous, of_id in sorted(by_id.items()):
        touched |= {str(use.user_id) for use in of_id if use.links} - {user}
        if not any(use.user_id == user and use.links and use.trusted for use in of_id):
            unverified.append(anonymous)
            touched.add(f"{ANONYMOUS}{anonymous}")
        elif any(use.user_id not in (None, user) and use.trusted for use in of_id):
            shared.append(anonymous)
            touched.add(f"{ANONYMOUS}{anonymous}")
            links = sorted((u.ts_us, u.message_id, str(u.user_id)) for u in of_id if u.links and u.trusted)
            theirs = sorted(u.message_id for u in of_id if u.user_id is None and _owner(links, u.ts_us) == user)
            messages += [(f"{ANONYMOUS}{anonymous}", message_id) for message_id in theirs]
        else:
            aliases.append(anonymous)
    return Devices(tuple(aliases), tuple(shared), tuple(unverified), tuple(messages), tuple(sorted(touched)))


def _owner(links: Sequence[Link], ts_us: int) -> str:
    """Whose an anonymous event is in the end, by the links of its id in order: the next one's, else the last one's.

    >>> _owner([(10, "m1", "u1"), (20, "m2", "u2")], 11), _owner([(10, "m1", "u1")], 11)
    ('u2', 'u1')
    """
    following = bisect_left(links, ts_us, key=lambda link: link[0])
    return links[min(following, len(links) - 1)][2]
