"""Who sends a request: which write key, whether browsers hold it, and whether user ids have to be signed.

A key that browsers hold is public. Whoever reads it in a page could send events as any user; so where there is a secret
(FIRSTMILE_USER_HASH_SECRETS), events with a user id that come by such a key need the id's HMAC in `userHash`.
"""

import hmac

import msgspec

from feature_repo.contract.events import Event, Reason, Refusal
from feature_repo.contract.origin import USER_HASH, Origin, fingerprint, note, take_user_hash, user_hash

BROWSER = "FIRSTMILE_BROWSER_KEYS"
SECRETS = "FIRSTMILE_USER_HASH_SECRETS"


class Sender(msgspec.Struct, frozen=True):
    """Who sends a request. key: the write key; None: none was needed. browser: whether browsers hold it.

    secrets: what user ids have to be signed with, any of them; none: they need no signature.
    """

    key: str | None = None
    browser: bool = False
    secrets: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """What stands for the key in events, accepted or refused; None: none was needed."""
        return None if self.key is None else fingerprint(self.key)

    def judge(self, event: Event) -> Event | Refusal:
        """The event with its origin in its context and without the signature; or why it is refused."""
        given = take_user_hash(event.context, event.traits, event.properties)
        if (key := self.fingerprint) is None:
            return event
        verified = None
        if self.browser and event.user_id is not None:
            verified = bool(self.secrets) and given is not None and _signed(event.user_id, given, self.secrets)
            if self.secrets and not verified:
                return _refusal(event.user_id, given)
        note(event.context, Origin(key, self.browser, verified))
        return event


NOBODY = Sender()


def _signed(user_id: str, given: str, secrets: tuple[str, ...]) -> bool:
    """Whether a signature is right by any of the secrets; takes as long for a wrong one as for a right one."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given.encode(errors="replace"), user_hash(secret, user_id).encode())
    return found


def _refusal(user_id: str, given: str | None) -> Refusal:
    if given is None:
        told = f"{USER_HASH}: expected the HMAC-SHA256 of userId, as this write key is one that browsers hold"
        return Refusal(Reason.UNSIGNED_USER_ID, f"{told}; it is missing")
    told = f"{USER_HASH}: expected the HMAC-SHA256 of userId with one of the secrets in {SECRETS}"
    return Refusal(Reason.WRONG_USER_HASH, f"{told}; came another")
