"""Attacks with a write key that browsers hold, end to end: whose device it is stays true whoever says otherwise."""

import base64
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ibis
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from feature_repo.__main__ import main as feature_repo
from feature_repo.contract.events import ids_of
from feature_repo.contract.origin import fingerprint, user_hash
from feature_repo.erasing import leaked_key
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.intact import check
from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.settings import Settings, now_us
from feature_repo.storage import BusyError, DamagedFile
from serving.__main__ import main as serving
from serving.app import App
from serving.auth import Keys
from serving.collect.routes import Options
from tests import brokers
from tests.serving.test_users import ROOT, SAAS, Service, event, features, until

PUBLIC, SERVER, LEAKED, SECRET = "b" * 32, "w" * 32, "l" * 32, "secret-" * 4
DEVICE, VICTIM, ATTACKER = "device-of-victim", "victim", "attacker"


class Keyed(Service):
    """The whole service in this process, with a browser's key and a server's."""

    def __init__(self, settings: Settings, *secrets: str) -> None:
        super().__init__(settings)
        options = Options(Keys((SERVER, LEAKED)), Keys((PUBLIC,)), secrets)
        app = App(Keys(()), self.engine, self.app.door, options)
        app.users, self.app = self.app.users, app

    def sent(self, key: str, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
        """What became of the events, as (status, reason)."""
        basic = {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}
        answer = self.ask("POST", "/v1/batch", json={"batch": list(events)}, headers=basic)
        return [(r["status"], r.get("reason")) for r in answer.json()["receipts"]]

    def copies(self, key: str, *events: dict[str, Any]) -> list[str | None]:
        """What the receipts say became of copies of accepted events."""
        basic = {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}
        answer = self.ask("POST", "/v1/batch", json={"batch": list(events)}, headers=basic)
        assert {r["status"] for r in answer.json()["receipts"]} == {"duplicate"}
        return [r.get("copy") for r in answer.json()["receipts"]]

    def held(self, user: str) -> list[str]:
        """The message ids of a user's export."""
        user_id, anonymous_id = ids_of(user)
        path = f"/v1/users/{user_id}" if user_id is not None else f"/v1/anonymous/{anonymous_id}"
        answer = self.ask("GET", path)
        return sorted(e["messageId"] for e in answer.json()["events"]) if answer.status_code == 200 else []


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Callable[..., Keyed]]:
    made: list[Keyed] = []

    def make(*secrets: str, settings: Settings | None = None) -> Keyed:
        made.append(Keyed(settings or Settings(home=tmp_path, domain="saas"), *secrets))
        return made[-1]

    yield make
    for service in made:
        service.close()


PAGES = [event(n, None, DEVICE) for n in range(1, 6)]
CLAIM = event(10, VICTIM, DEVICE, "identify")
TAKEOVER = event(9, ATTACKER, DEVICE, "identify")


def signed(sent: dict[str, Any], user: str) -> dict[str, Any]:
    return sent | {"context": {"userHash": user_hash(SECRET, user)}}


def clicks(service: Keyed, user: str) -> int:
    service.decide(user)
    return (features(service, user) or {}).get("interactions", 0)


@pytest.mark.parametrize("kind", ["identify", "alias"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_device_that_is_claimed_is_not_taken_over_with_a_public_key(
    keyed: Callable[..., Keyed], kind: str, restarted: bool
) -> None:
    service = keyed()
    service.sent(PUBLIC, *PAGES, CLAIM)
    if restarted:
        service.close()
        service = keyed()
    takeover = TAKEOVER | {"type": kind} | ({"previousId": DEVICE} if kind == "alias" else {})
    assert service.sent(PUBLIC, takeover, event(11, None, DEVICE)) == [("accepted", None)] * 2
    assert service.held(f"anon:{DEVICE}") == sorted(e["messageId"] for e in [*PAGES, event(11)])
    assert service.ask("GET", f"/v1/users/{VICTIM}").json()["profile"]["unverified"] == [DEVICE]
    assert service.held(ATTACKER) == ["message-9"]
    assert (clicks(service, VICTIM), clicks(service, ATTACKER)) == (6, 0)


def test_the_key_and_the_link_that_was_not_made_can_be_seen_in_the_export(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(PUBLIC, CLAIM, TAKEOVER)
    (kept,) = service.ask("GET", f"/v1/users/{ATTACKER}").json()["events"]
    assert kept["anonymousId"] is None
    noted = {"key": fingerprint(PUBLIC), "browser": True, "verified": False, "unlinked": DEVICE}
    assert kept["context"] == {"firstmile": noted}


def test_a_signed_user_or_a_server_may_claim_a_device_that_is_claimed(keyed: Callable[..., Keyed]) -> None:
    service = keyed(SECRET)
    service.sent(PUBLIC, *PAGES, signed(CLAIM, VICTIM))
    assert service.sent(PUBLIC, signed(event(12, "sister", DEVICE, "identify"), "sister")) == [("accepted", None)]
    assert service.sent(SERVER, event(14, "brother", DEVICE, "identify")) == [("accepted", None)]
    service.sent(PUBLIC, event(13, None, DEVICE), event(15, None, DEVICE))
    assert clicks(service, VICTIM) == 5
    assert "message-13" in service.held("brother") and "message-15" in service.held("brother")


def test_with_a_secret_nobody_speaks_for_another_user_with_a_public_key(keyed: Callable[..., Keyed]) -> None:
    service = keyed(SECRET)
    assert service.sent(PUBLIC, *PAGES, TAKEOVER)[-1] == ("refused", "unsigned_user_id")
    assert service.sent(PUBLIC, signed(TAKEOVER, VICTIM)) == [("refused", "wrong_user_hash")]
    assert service.sent(PUBLIC, event(12, VICTIM)) == [("refused", "unsigned_user_id")]
    service.sent(PUBLIC, signed(CLAIM, VICTIM))
    assert service.held(VICTIM) == sorted(e["messageId"] for e in [*PAGES, CLAIM])
    assert service.held(ATTACKER) == []


def test_erasing_a_user_leaves_a_device_that_only_a_public_key_gave_them(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(PUBLIC, *PAGES, TAKEOVER)  # before its owner has signed up: nobody had claimed it
    assert clicks(service, ATTACKER) == 5 and service.held(ATTACKER) == ["message-9"]
    report = service.ask("DELETE", f"/v1/users/{ATTACKER}").json()
    assert (report["status"], report["aliases"], report["unverified"]) == ("erased", 0, [DEVICE])
    assert service.held(f"anon:{DEVICE}") == sorted(e["messageId"] for e in PAGES)
    assert (clicks(service, f"anon:{DEVICE}"), clicks(service, ATTACKER)) == (5, 0)
    assert service.sent(PUBLIC, event(11, None, DEVICE), CLAIM) == [("accepted", None)] * 2
    assert clicks(service, VICTIM) == 6


def test_opting_out_does_not_mute_a_device_that_only_a_public_key_gave_them(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(PUBLIC, *PAGES, TAKEOVER)
    assert clicks(service, ATTACKER) == 5
    assert service.ask("PUT", f"/v1/users/{ATTACKER}/opt-out").status_code == 204
    assert service.sent(PUBLIC, event(11, None, DEVICE), event(12, ATTACKER)) == [
        ("accepted", None), ("refused", "opted_out"),
    ]  # fmt: skip


def test_an_erasure_and_an_opt_out_follow_what_a_server_or_a_signature_says(keyed: Callable[..., Keyed]) -> None:
    service = keyed(SECRET)
    service.sent(PUBLIC, *PAGES, signed(CLAIM, VICTIM))
    service.sent(SERVER, event(21, "other", "device-2", "identify"), event(22, None, "device-2"))
    service.decide("other")
    service.ask("PUT", "/v1/users/other/opt-out")
    assert service.sent(PUBLIC, event(23, None, "device-2")) == [("refused", "opted_out")]
    report = service.ask("DELETE", f"/v1/users/{VICTIM}").json()
    assert (report["aliases"], report["unverified"]) == (1, [])
    assert service.sent(PUBLIC, event(24, None, DEVICE)) == [("refused", "erased")]


def test_an_attacker_who_came_first_does_not_stop_the_owners_erasure(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(PUBLIC, *PAGES, TAKEOVER)
    service.sent(SERVER, CLAIM)
    assert service.held(VICTIM) == sorted(e["messageId"] for e in [*PAGES, CLAIM])
    report = service.ask("DELETE", f"/v1/users/{VICTIM}").json()
    assert (report["status"], report["aliases"]) == ("erased", 1)
    assert clicks(service, ATTACKER) == 0 and service.held(ATTACKER) == ["message-9"]


def test_a_device_that_stayed_can_be_erased_by_itself(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(PUBLIC, *PAGES, TAKEOVER)
    report = service.ask("DELETE", f"/v1/anonymous/{DEVICE}").json()
    assert report["status"] == "erased"
    assert service.held(f"anon:{DEVICE}") == [] and clicks(service, ATTACKER) == 0


def test_a_copy_by_a_public_key_does_not_replace_what_is_held(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    order = event(5, VICTIM, None, properties={"feature": "true"})
    early = {"timestamp": "2025-01-01T00:00:00Z", "properties": {"feature": "forged"}}
    for key, mine in ((SERVER, order), (PUBLIC, event(6, VICTIM, None, properties={"feature": "true"}))):
        assert service.sent(key, mine) == [("accepted", None)]
        clicks(service, VICTIM)
        assert service.sent(PUBLIC, mine | early)[0][0] == "duplicate"
    events = service.ask("GET", f"/v1/users/{VICTIM}").json()["events"]
    assert [e["properties"]["feature"] for e in events] == ["true", "true"]


def test_the_receipt_says_which_copy_counts(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    order = event(5, VICTIM, None, properties={"feature": "sent"})
    early = {"timestamp": "2025-01-01T00:00:00Z", "properties": {"feature": "early"}}
    assert service.sent(PUBLIC, order) == [("accepted", None)]
    clicks(service, VICTIM)  # waits until it is applied
    assert service.copies(PUBLIC, order, order | early) == ["same", "unused"]
    assert service.copies(SERVER, order | early)[0] in ("replaced", None)  # None: the copies before are not applied yet
    clicks(service, VICTIM)
    assert service.copies(SERVER, order | early, order) == ["same", "unused"]
    (kept,) = service.ask("GET", f"/v1/users/{VICTIM}").json()["events"]
    assert kept["properties"]["feature"] == "early"


@pytest.mark.parametrize("compacted", [False, True])
def test_what_a_leaked_key_sent_can_be_found_and_taken_back(
    keyed: Callable[..., Keyed], tmp_path: Path, compacted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [*PAGES, CLAIM, event(30, "other"), event(33, "both", properties={"feature": "good"})]
    unknown = event(36, "other", event=f'"key":"{fingerprint(LEAKED)}"')
    bad = [event(31, "other"), event(32, "forged"), event(34, "brother", DEVICE, "identify"), event(35, None, DEVICE)]
    homes = {"clean": tmp_path / "clean", "leaked": tmp_path / "leaked"}
    for name, home in homes.items():
        service = keyed(settings=Settings(home=home, domain="saas"))
        service.sent(SERVER, *good)
        service.sent(SERVER, unknown)
        if name == "leaked":
            assert service.sent(LEAKED, *bad, unknown)[-1] == ("refused", "unknown_event")
        for user in USERS:
            service.decide(user)
        service.close()
        if compacted or name == "clean":
            backfill(service.settings, progress=False)
            materialize(service.settings, now_us(), progress=False)
    leaked = Settings(home=homes["leaked"], domain="saas")
    found = leaked_key.sent_by(leaked, fingerprint(LEAKED))
    assert [(sent.user, sent.events) for sent in found] == [
        (f"anon:{DEVICE}", 1), ("brother", 1), ("forged", 1), ("other", 1),
    ]  # fmt: skip
    monkeypatch.setenv("FIRSTMILE_HOME", str(leaked.home))
    listed = CliRunner().invoke(feature_repo, ["events", "--key", fingerprint(LEAKED)]).output
    assert f"anonymous {DEVICE}\n" in listed and "  other\n" in listed and "anon:" not in listed
    assert "\n       1  refused: unknown_event\n" in listed
    assert leaked_key.revoke(leaked, fingerprint(LEAKED), progress=False) == (4, 4, 4, 1)
    assert [q.key for q in Quarantine(leaked.quarantine).read()] == [fingerprint(SERVER)]
    assert leaked_key.sent_by(leaked, fingerprint(LEAKED)) == []
    assert leaked_key.revoke(leaked, fingerprint(LEAKED), progress=False) == (0, 0, 0, 0)
    for held in (messages, offline, online):
        assert held(leaked) == held(Settings(home=homes["clean"], domain="saas")), held
    after = {name: keyed(settings=Settings(home=home, domain="saas")) for name, home in homes.items()}
    for service in after.values():
        assert service.sent(SERVER, event(40, None, DEVICE)) == [("accepted", None)]
        until(lambda s=service: s.live.lag() == 0 and not s.live.pending.history.waiting(now_us()))
    for user in USERS:
        assert clicks(after["leaked"], user) == clicks(after["clean"], user), user
    assert [after["leaked"].held(user) for user in USERS] == [after["clean"].held(user) for user in USERS]


def test_a_revocation_that_is_killed_again_and_again_goes_on(keyed: Callable[..., Keyed], tmp_path: Path) -> None:
    good, bad = [*PAGES, CLAIM], [event(31, "forged"), event(34, "brother", DEVICE, "identify")]
    homes = {"clean": tmp_path / "clean", "leaked": tmp_path / "leaked"}
    for name, home in homes.items():
        service = keyed(settings=Settings(home=home, domain="saas"))
        service.sent(SERVER, *good)
        if name == "leaked":
            service.sent(LEAKED, *bad)
        service.close()
        backfill(service.settings, progress=False)
        materialize(service.settings, now_us(), progress=False)
    leaked, clean = (Settings(home=homes[name], domain="saas") for name in ("leaked", "clean"))
    assert online(leaked) != online(clean)
    for called in (
        "feature_repo.log.sqlite_log.SqliteLog.erase", "feature_repo.lake.lake.Lake.erase",
        "feature_repo.lake.lake_index.LakeIndex.refresh", "feature_repo.rebuild.materialize",
    ):  # fmt: skip
        child = [sys.executable, "-m", "tests.serving.revoke_child", str(leaked.home), fingerprint(LEAKED), called]
        assert subprocess.run(child, cwd=ROOT, check=False).returncode == -signal.SIGKILL, called
        with pytest.raises(DamagedFile, match=f"revoke-key {fingerprint(LEAKED)} --domain saas"):
            check(leaked)  # so no service starts
    leaked_key.revoke(leaked, fingerprint(LEAKED), progress=False)
    check(leaked)
    for held in (messages, offline, online):
        assert held(leaked) == held(clean), held


def test_a_key_is_revoked_where_the_online_rows_are_on_redis(keyed: Callable[..., Keyed], tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as redis:
        service = keyed(settings=Settings(home=tmp_path, domain="saas", online=f"redis://{redis.address}/5"))
        service.sent(SERVER, *PAGES, CLAIM)
        service.sent(LEAKED, event(31, "forged"))
        assert (clicks(service, VICTIM), clicks(service, "forged")) == (5, 1)
        service.close()
        assert leaked_key.revoke(service.settings, fingerprint(LEAKED), progress=False)[:3] == (1, 1, 1)
        rows = dict(zip(USERS, online(service.settings), strict=True))
        assert rows["forged"] is None and rows[VICTIM]["interactions"] == 5


@pytest.mark.parametrize("where", [{"LOG": "kafka://localhost:9092/events"}, {"HISTORY": "redis://localhost:6379/0"}])
def test_where_events_cannot_be_taken_back_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, str]
) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    for name, address in where.items():
        monkeypatch.setenv(f"FIRSTMILE_{name}", address)
        refused = CliRunner().invoke(serving, ["revoke-key", fingerprint(LEAKED)])
        assert refused.exit_code == 1 and f"FIRSTMILE_{name}: expected sqlite" in refused.output, refused.output
        assert "FIRSTMILE_WRITE_KEYS" in refused.output and "DELETE /v1/users/{id}" in refused.output


def test_a_key_is_not_revoked_while_a_service_runs(keyed: Callable[..., Keyed]) -> None:
    service = keyed()
    service.sent(SERVER, *PAGES)
    with pytest.raises(BusyError):
        leaked_key.revoke(service.settings, fingerprint(SERVER))
    assert len(service.held(f"anon:{DEVICE}")) == len(PAGES)


USERS = [VICTIM, "other", "both", "forged", "brother", f"anon:{DEVICE}"]


def messages(settings: Settings) -> list[tuple[str, str]]:
    rows = Lake(settings.lake).events(ibis.duckdb.connect()).to_pyarrow()
    return sorted(zip(rows["message_id"].to_pylist(), rows["context"].to_pylist(), strict=True))


def offline(settings: Settings) -> list[str]:
    files = settings.features.glob("*.parquet")
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted(str({k: v for k, v in row.items() if k != "created"}) for row in rows)


def online(settings: Settings) -> list[Any]:
    return read_online(feature_store(settings, lineage=False), SAAS, USERS, list(SAAS.feature_types))
