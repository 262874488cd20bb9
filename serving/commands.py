"""The commands of the serving room. Each calls one function of a module, imported when it runs."""

import os
import sys

import click

from feature_repo.command import domain_option
from feature_repo.contract.events import ANONYMOUS, key_of
from feature_repo.settings import SOURCE, Settings

anonymous_option = click.option("--anonymous-id", help="An anonymous id, in place of USER_ID.")


def _user_key(user_id: str | None, anonymous_id: str | None) -> str:
    """The key of the user who is asked for by one of both ids."""
    if (user_id is None) == (anonymous_id is None):
        raise click.UsageError("expected either USER_ID or --anonymous-id")
    if user_id is not None and user_id.startswith(ANONYMOUS):
        raise click.UsageError(f"no user id begins with {ANONYMOUS!r}: ask for an anonymous user by --anonymous-id")
    return key_of(user_id, anonymous_id)


GRACE = ("--timeout-graceful-shutdown", "10")
"""How many seconds a stop waits for answers under way: a reader that has stalled would hold it up for ever."""


def _environment(settings: Settings) -> None:
    """What Bento reads from the environment: its store inside the state folder, and no tracking."""
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ.setdefault("BENTOML_HOME", str(settings.home / "bentoml"))
    os.environ.update(settings.environment())


@click.command()
@domain_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--mode",
    type=click.Choice(["registry", "bundled"]),
    default=lambda: Settings().mode or "registry",
    show_default="FIRSTMILE_MODE or registry",
    help="Which model: the registry's champion, also when it changes; or the one in the Bento that was built last.",
)
@click.option(
    "--workers",
    type=int,
    default=lambda: Settings().workers,
    show_default="FIRSTMILE_WORKERS or 1",
    help="Worker processes; several need FIRSTMILE_ONLINE=redis://...",
)
def serve(domain: str, host: str, port: int, mode: str, workers: int) -> None:
    """Start the service. Ctrl-C ends it.

    Keys for /v1/decide come from FIRSTMILE_SERVER_KEYS; without keys it listens on loopback only.

    \b
    python -m serving serve
    FIRSTMILE_SERVER_KEYS=... python -m serving serve --host 0.0.0.0 --port 8080
    curl localhost:3000/v1/decide -H 'Content-Type: application/json' -d '{"userId": "u-1842"}'
    """
    from serving import bento, ports, wiring
    from serving.auth import Keys, check_address

    try:
        settings = Settings(domain=domain, mode=mode, workers=workers)
        check_address(host, Keys(settings.server_keys))
        wiring.check(settings)
        ports.check(host, port)
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    _environment(settings)
    target = ["serving.service:Firstmile", "--working-dir", str(SOURCE)]
    if mode == "bundled":
        target = [f"{bento.bento_name(settings)}:latest"]
        os.chdir(settings.home)
    sys.stdout.flush()
    os.execv(
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", *target, *GRACE, "--host", host, "--port", str(port)],
    )


@click.command()
@domain_option
def build(domain: str) -> None:
    """Build a Bento that holds the champion, into the state folder's BentoML store.

    \b
    python -m serving build
    BENTOML_HOME=var/bentoml bentoml list
    BENTOML_HOME=var/bentoml bentoml containerize firstmile_saas:latest
    """
    settings = Settings(domain=domain)
    _environment(settings)
    from serving import bento

    try:
        tag = bento.build(settings)
    except (LookupError, FileNotFoundError) as e:
        raise click.ClickException(str(e)) from None
    click.echo(f"{tag} in {os.environ['BENTOML_HOME']}; run it with: python -m serving serve --mode bundled")


@click.command()
@click.argument("user_id", required=False)
@anonymous_option
@domain_option
@click.option("--explain", is_flag=True, help="Add why, in words, and the features that moved the score most.")
def decide(user_id: str | None, anonymous_id: str | None, domain: str, explain: bool) -> None:
    """Decide for one person, here and now, and print the decision. It is not logged.

    \b
    python -m serving decide u-1842
    python -m serving decide --anonymous-id b7c1a9
    """
    import asyncio

    import msgspec

    from serving import wiring

    key = _user_key(user_id, anonymous_id)
    try:
        engine = wiring.engine(Settings(domain=domain), logged=False)
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    try:
        if anonymous_id is not None:
            (key,), _ = asyncio.run(engine.user_keys([anonymous_id]))
        decision = asyncio.run(engine.decide(key, explain))
    finally:
        engine.close()
    click.echo(msgspec.json.format(msgspec.json.encode(decision), indent=2).decode())


@click.command()
@domain_option
def policy(domain: str) -> None:
    """Check the domain's policy and show its elements, its boundaries and each segment's journey.

    \b
    python -m serving policy
    FIRSTMILE_POLICY=new.yaml python -m serving policy
    """
    from serving import wiring
    from serving.policy import location
    from serving.policy.shown import shown

    try:
        product, book = wiring.check(Settings(domain=domain))
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    file = location(product)
    click.echo(
        f"policy {book.policy.version} of {product.name}, {file if file.exists() else 'the plain one: no file yet'}"
    )
    click.echo("\n".join(shown(book.policy)))


@click.command()
@domain_option
def experiments(domain: str) -> None:
    """Check the domain's experiments and show where each one stands now.

    \b
    python -m serving experiments
    FIRSTMILE_EXPERIMENTS=new.yaml python -m serving experiments
    """
    from rich.console import Console

    from feature_repo.settings import now_us
    from serving.experiments import listing

    settings = Settings(domain=domain)
    try:
        found = listing.of(settings)
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    console = Console(width=None if Console().is_terminal else 160)
    console.print(listing.table(found, listing.paused(settings), now_us()))
    console.print(f"experiments {found.version} of {domain}, {found.holdout:.0%} in the permanent holdout")


@click.command()
@click.argument("user_id")
def user_hash(user_id: str) -> None:
    """Print the signature of a user id, with the first secret in FIRSTMILE_USER_HASH_SECRETS.

    \b
    python -m serving user-hash u-1842
    """
    from feature_repo.contract import origin
    from serving.collect.identity import SECRETS

    secrets = Settings().user_hash_secrets
    if not secrets:
        raise click.ClickException(f"{SECRETS} is not set: expected the secret that user ids are signed with")
    click.echo(origin.user_hash(secrets[0], user_id))


@click.command()
@click.argument("user_id", required=False)
@anonymous_option
@domain_option
def erase(user_id: str | None, anonymous_id: str | None, domain: str) -> None:
    """Erase a person from every store of the state folder, while no service runs on it; again is as once.

    A service that runs has to do it: DELETE /v1/users/{id}.

    \b
    python -m serving erase u-1842
    python -m serving erase --anonymous-id b7c1a9
    curl -X DELETE localhost:3000/v1/users/u-1842
    """
    import msgspec

    from feature_repo.erasing.erasure import KnownError
    from feature_repo.lake.quarantine import Quarantine
    from feature_repo.storage import BusyError
    from feature_repo.stream.embedded import Embedded
    from serving.erasing import Erasing

    key, settings = _user_key(user_id, anonymous_id), Settings(domain=domain)
    try:
        live = Embedded(settings).start()
    except BusyError as e:
        path = f"/v1/users/{user_id}" if user_id is not None else f"/v1/anonymous/{anonymous_id}"
        raise click.ClickException(f"{e} While a service runs, ask it: DELETE {path}") from None
    try:
        report = Erasing(live, Quarantine(settings.quarantine).erase).erase(key)
    except KnownError as e:
        raise click.ClickException(str(e)) from None
    finally:
        live.close()
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


@click.command()
@click.argument("key")
@domain_option
def revoke_key(key: str, domain: str) -> None:
    """Remove every event that came by a write key, and compute all features anew, while no service runs.

    KEY is the key's fingerprint, or - to read the key itself from standard input.

    \b
    python -m feature_repo events --key 5e318f8cf9cb
    python -m serving revoke-key 5e318f8cf9cb
    """
    from feature_repo.erasing.leaked_key import fingerprint_of, revoke
    from feature_repo.storage import BusyError

    key = fingerprint_of(sys.stdin.readline().strip() if key == "-" else key)
    try:
        done = revoke(Settings(domain=domain), key)
    except (BusyError, ValueError) as e:
        raise click.ClickException(str(e)) from None
    click.echo(f"{done.lake:,} events of {done.users:,} users by the key {key} are removed; features are made anew")
    click.echo(f"{done.refused:,} refused events by it are removed")


@click.command()
@click.argument("user_id", required=False)
@anonymous_option
@domain_option
def export(user_id: str | None, anonymous_id: str | None, domain: str) -> None:
    """Print what is held of a person, as GET /v1/users/{id} gives it: JSON, a page a line.

    \b
    python -m serving export u-1842 > u-1842.jsonl
    """
    import msgspec

    from feature_repo.erasing.erasure import KnownError
    from feature_repo.erasing.tombstones import Tombstones
    from serving.consent import Consent
    from serving.users import MOST, Users

    key, settings = _user_key(user_id, anonymous_id), Settings(domain=domain)
    if not (settings.state / "registry.db").exists():
        raise click.ClickException(f"no users yet in {settings.state}: `make simulate backfill`, or send events first")
    held = Users(settings, Tombstones(settings.state), Consent(settings.state))
    try:
        page = held.export(key, limit=MOST)
        if page is None:
            raise click.ClickException(f"nobody is known as {user_id or anonymous_id}")
        while page:
            click.echo(msgspec.json.encode(page).decode())
            more = page.next
            page = held.export(key, more.after, more.decisions_after, MOST, more.refused_after) if more else None
    except KnownError as e:
        raise click.ClickException(str(e)) from None


@click.command()
@click.argument("decision_id", required=False)
@click.option("--all", "every", is_flag=True, help="All decisions of the log.")
@click.option("--sample", type=click.IntRange(1), help="With --all: so many of them, by chance.")
@click.option("--seed", default=0, show_default=True, help="Of the chance.")
@domain_option
def replay(decision_id: str | None, every: bool, sample: int | None, seed: int, domain: str) -> None:
    """Make decisions again from their receipts: equal, or what differs. Exits with 1 where any differs.

    \b
    python -m serving replay 0199a2b4c5d67e8f9a0b1c2d3e4f5a6b
    python -m serving replay --all --sample 10000
    """
    from serving import replay as again

    if (decision_id is not None) == every:
        raise click.UsageError("expected either a decision's id or --all")
    settings = Settings(domain=domain)
    ids = [decision_id] if decision_id else again.ids(settings.decisions)
    if not ids:
        raise click.ClickException(f"no decisions in {settings.decisions} yet")
    chosen = again.sample(ids, sample, seed) if sample else ids
    wanted = chosen if decision_id or sample else None
    steps = max(1, len(chosen) // 200)
    with click.progressbar(length=len(chosen), label="replaying", file=sys.stderr, update_min_steps=steps) as bar:
        done = again.replayer(settings).all(again.rows(settings.decisions, wanted), bar.update)
    if decision_id and not done.count:
        raise click.ClickException(f"no decision {decision_id} in {settings.decisions}")
    if decision_id and done.equal:
        click.echo(f"equal: {decision_id}")
    else:
        click.echo("\n".join(again.table(done)))
    if done.different or (decision_id and not done.equal):
        raise SystemExit(1)
