"""GET /v1/users/{id}/why: the last decision about a person, told to them, as JSON or as a page.

The last logged decision, not a new one: what is explained is what was really shown. Until the log is flushed (0.4 s) it
is the one before.
"""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from feature_repo import domains
from feature_repo.contract.events import ids_of
from feature_repo.erasing import erasure
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.settings import Settings
from serving import decision_log
from serving.asgi import Answer, Refused
from serving.consent import Consent
from serving.decide import Model, Receipt
from serving.playbook import Playbook, Shelf
from serving.replay import NotReplayable, receipt_of
from serving.why import page, person
from serving.why.answers import Why
from serving.why.contributions import of_decision
from serving.why.explanation import Explainer

HTML = b"text/html; charset=utf-8"
HEADERS = ((b"cache-control", b"no-store"), (b"vary", b"accept"))


class Reasons:
    """Tells people why.

    model: the champion of now. known: whether features of somebody are stored.
    """

    def __init__(
        self,
        settings: Settings,
        tombstones: Tombstones,
        consent: Consent,
        model: Callable[[], Model | None],
        known: Callable[[str], bool],
    ) -> None:
        self._settings, self._tombstones, self._consent = settings, tombstones, consent
        self._model, self._known = model, known
        self._explainer, self._shelf = Explainer(domains.load(settings.domain)), Shelf(settings)

    def answer(self, who: str, accept: bytes) -> Answer:
        """The page where `accept`, the header, asks for HTML; else JSON.

        Raises:
            Refused: 404 nobody is known by that id, 410 the person was erased. KnownError: an anonymous id that was
                identified.
        """
        if self._tombstones.covers(who):
            raise Refused(410, "erased", "this person was erased; nothing is held", "id")
        why = self.why(who)
        if b"text/html" not in accept:
            return Answer(msgspec.json.encode(why), headers=HEADERS)
        policy = (b"content-security-policy", page.POLICY)
        return Answer(page.page(why).encode(), content_type=HTML, headers=(*HEADERS, policy))

    def why(self, who: str) -> Why:
        """What there is to tell.

        Raises:
            Refused: 404. KnownError: as above.
        """
        user_id, anonymous_id = ids_of(who)
        kind, written = ("users", user_id) if user_id is not None else ("anonymous", anonymous_id or "")
        path = f"/v1/{kind}/{quote(written, safe='')}"
        if self._consent.opted_out(who):
            return person.opted_out(path)
        row = self._last(erasure.plan(self._settings, who).senders)
        if row is None:
            if not self._known(who):
                raise Refused(404, "unknown_user", "nobody is known by that id", "id")
            return person.undecided(path)
        try:
            return self._of(receipt_of(row), path)
        except NotReplayable:
            return person.unexplained(path)

    def _of(self, receipt: Receipt, path: str) -> Why:
        model = self._model()
        same = model is not None and (model.name, model.version) == (receipt.model_name, receipt.model_version)
        decided = model if same else None
        effects = of_decision(decided, receipt)
        return person.why(self._explainer, receipt, self._playbook(receipt.playbook), decided, effects, path)

    def _playbook(self, version: str) -> Playbook | None:
        try:
            return self._shelf[version]
        except (KeyError, ValueError):
            return None

    def _last(self, senders: Sequence[str]) -> dict[str, Any] | None:
        """The newest decision about somebody by any of their ids."""
        rows = decision_log.of_users(self._settings.decisions, senders)
        return rows[-1] if rows else None
