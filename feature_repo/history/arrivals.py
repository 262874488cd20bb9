"""What arriving events change in a history. Pure: the stores look up what is asked for here, and write what it says.

rows + copies ─► changes: kept, new, replaced ─► + users of their hands ─► touched ─► + checkpoints ─► broken
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from feature_repo.contract.events import ANONYMOUS
from feature_repo.history.history_store import UNNUMBERED, Row

Users = Mapping[str, Mapping[str, int]]
"""By anonymous id: the users that it was ever said to be, each with the earliest time of that, µs."""


class Changes(NamedTuple):
    """kept: rows to write, new or better copies; new: the first of their message; replaced: what they take the place
    of."""

    kept: list[Row]
    new: list[Row]
    replaced: list[Row]


def numbered(rows: Sequence[Row], reached: int, copies: Mapping[tuple[str, str], Row]) -> list[Row]:
    """The rows after position `reached`; those without a position get the next ones, but for exact copies."""
    found, seen = list[Row](), {(held.key, held.rank[:-1]) for held in copies.values()}
    for row in rows:
        copy = (row.key, row.rank[:-1])
        if row.position > reached:
            found.append(row)
        elif row.position == UNNUMBERED and copy not in seen:
            seen.add(copy)
            reached += 1
            found.append(row._replace(position=reached))
    return found


def changes(rows: Iterable[Row], copies: Mapping[tuple[str, str], Row]) -> Changes:
    """Of all copies of each message the one that counts.

    copies: what is kept of the messages of these rows.
    """
    kept: dict[tuple[str, str], Row] = {}
    for row in rows:
        held = kept.get(row.key) or copies.get(row.key)
        if held is None or row.rank < held.rank:
            kept[row.key] = row
    new = [row for key, row in kept.items() if key not in copies]
    return Changes(list(kept.values()), new, [copies[key] for key in kept if key in copies])


def hands(rows: Iterable[Row]) -> set[str]:
    """The anonymous ids whose events these rows can make change hands, or which own them."""
    return {row.hand for row in rows if row.hand is not None}


def persons(row: Row, users: Users) -> set[str]:
    """Whose features a row, new or replaced, can change."""
    found = set() if row.user_id is None else {row.user_id}
    return found | ({f"{ANONYMOUS}{row.hand}", *users.get(row.hand, ())} if row.hand else set())


def touched(changed: Changes, users: Users) -> set[str]:
    """Whose features the changes can change.

    users: of the hands of all changed rows, the new edges among them.
    """
    return {person for row in (*changed.kept, *changed.replaced) for person in persons(row, users)}


def broken(changed: Changes, through_us: Mapping[str, int], users: Users, first_us: Mapping[str, int]) -> set[str]:
    """Whose checkpoint no longer stands for their past.

    through_us: the checkpoints of touched persons. first_us: the earliest event of anonymous senders; may be too early,
    and NEVER where their past is not here.
    """
    if not through_us:
        return set()
    found = {p for row in changed.replaced for p in persons(row, users) if p in through_us}
    for row in changed.kept:
        found |= {p for p in persons(row, users) if p in through_us and _breaks(row, through_us[p], users, first_us)}
    return found


def _breaks(row: Row, through_us: int, users: Users, first_us: Mapping[str, int]) -> bool:
    """An event of the folded time does, and an edge that can make events of that time change hands."""
    if row.ts_us <= through_us:
        return True
    if row.edge is None:
        return False
    anonymous, user = row.edge
    if first_us.get(f"{ANONYMOUS}{anonymous}", through_us + 1) > through_us:
        return False
    told = users[anonymous]
    return not (told.keys() == {user} and told[user] <= through_us)
