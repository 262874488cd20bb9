import json
import socket
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from feature_repo.contract.events import Event
from feature_repo.settings import Settings
from feature_repo.stream.embedded import Embedded
from serving.__main__ import main
from tests import searching


@pytest.fixture(autouse=True)
def environment(state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up state folder, and an environment that is as before afterwards."""
    monkeypatch.setenv("FIRSTMILE_HOME", str(state.settings.home))
    for name in ("FIRSTMILE_DOMAIN", "FIRSTMILE_MODE", "FIRSTMILE_WORKERS", "BENTOML_HOME", "BENTOML_DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("FIRSTMILE_SERVER_KEYS", "FIRSTMILE_ONLINE", "FIRSTMILE_POLICY", "BENTOML_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("must not start"))


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["build"], ["decide"], ["policy"], ["experiments"], ["export"], ["erase"], ["webhooks"]]
)
def test_help_has_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"])
    assert shown.exit_code == 0
    assert f"python -m serving {' '.join(command)}".strip() in shown.output


@pytest.mark.parametrize(
    ("arguments", "keys", "says"),
    [
        (["--host", "0.0.0.0"], "", "refusing to listen on 0.0.0.0 without server keys"),
        (["--host", "::"], "", "refusing to listen on :: without server keys"),
        ([], "short", "key 1 has 5 characters"),
        (["--workers", "2"], "", "FIRSTMILE_WORKERS=2 over embedded stores"),
        (["--workers", "0"], "", "expected a whole number from 1"),
    ],
)
def test_serve_refuses_before_it_starts(
    arguments: list[str], keys: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTMILE_SERVER_KEYS", keys)
    refused = CliRunner().invoke(main, ["serve", *arguments])
    assert refused.exit_code == 1
    assert says in refused.output


def test_serve_refuses_a_policy_that_does_not_fit(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path_factory.mktemp("policy") / "mine.yaml"
    file.write_text("domain: saas\n")
    monkeypatch.setenv("FIRSTMILE_POLICY", str(file))
    for command in ("serve", "policy"):
        refused = CliRunner().invoke(main, [command])
        assert refused.exit_code == 1
        assert f"{file}:1: key 'elements' is missing" in refused.output


def test_serve_hands_over_to_bento(state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, arguments: started.append(arguments))
    monkeypatch.setattr("os.chdir", lambda _: None)
    for mode, target in (("registry", "serving.service:Firstmile"), ("bundled", "firstmile_saas:latest")):
        done = CliRunner().invoke(main, ["serve", "--mode", mode, "--port", "4000"])
        assert done.exit_code == 0, done.output
        assert started[-1][1:5] == ["-m", "bentoml", "serve", target]
        assert started[-1][-6:-4] == ["--timeout-graceful-shutdown", "10"]
        assert started[-1][-4:] == ["--host", "127.0.0.1", "--port", "4000"]


@pytest.mark.parametrize(("host", "keys", "refused"), [("0.0.0.0", (), True), ("127.0.0.1", (), False)])
def test_bentoml_serve_refuses_too(host: str, keys: tuple[str, ...], refused: bool) -> None:
    from bentoml.exceptions import BentoMLException

    from serving import service

    check: Any = vars(service)["Firstmile"].inner._check

    with click.Context(click.Command("serve")) as context:
        context.params["host"] = host
        if refused:
            with pytest.raises(BentoMLException, match="without server keys"):
                check()
        else:
            check()


def test_policy_shows_what_each_segment_sees() -> None:
    shown = CliRunner().invoke(main, ["policy"])
    assert shown.exit_code == 0
    assert "of saas" in shown.output
    assert "racing         publish_banner, invite_teammates" in shown.output
    assert "activated      nothing: the first project is published, so onboarding is over" in shown.output
    assert "comeback_mail     message, for at_risk; at most 3 ever, once in 2 days" in shown.output
    assert "boundaries: 4 at once, 20 a session, 40 a day" in shown.output


def test_decide_without_a_model_or_a_person_still_decides(state: SimpleNamespace) -> None:
    shown = CliRunner().invoke(main, ["decide", "nobody"])
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert (answer["known"], answer["elements"]) == (False, ["welcome_tour", "checklist"])
    assert not list(state.settings.decisions.glob("*.parquet"))


def test_a_person_is_exported_and_erased_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    settings, at = Settings(home=tmp_path, domain="saas"), 1_750_000_000_000_000
    events = [
        Event("page", f"m{n}", user, None, at, at, None, {}, {}, {}) for n, user in enumerate(["person-1", "you"])
    ]
    live = Embedded(settings).start()
    live.append(events).result()
    running = CliRunner().invoke(main, ["erase", "person-1", "--domain", "saas"])
    assert running.exit_code == 1 and "DELETE /v1/users/person-1" in running.output
    exported = CliRunner().invoke(main, ["export", "person-1", "--domain", "saas"])
    assert json.loads(exported.output)["events"][0]["messageId"] == "m0"
    live.close()
    erased = CliRunner().invoke(main, ["erase", "person-1", "--domain", "saas"])
    assert (erased.exit_code, json.loads(erased.output)["status"]) == (0, "erased"), erased.output
    assert searching.found(tmp_path, ["person-1"]) == []
    assert CliRunner().invoke(main, ["export", "person-1", "--domain", "saas"]).exit_code == 1
    assert CliRunner().invoke(main, ["export", "you", "--domain", "saas"]).exit_code == 0


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = CliRunner().invoke(main, ["serve", "--port", str(port)])
    assert refused.exit_code == 1
    assert f"port {port} of 127.0.0.1 is in use" in refused.output and f"PORT={port + 1}" in refused.output
    refused = CliRunner().invoke(
        main, ["serve", "--host", "no.such.host.invalid"], env={"FIRSTMILE_SERVER_KEYS": "k" * 32}
    )
    assert refused.exit_code == 1 and "expected an address of this machine" in refused.output


@pytest.mark.parametrize("room", ["feature_repo", "training", "serving", "monitoring"])
def test_a_wrong_domain_is_one_sentence_in_every_command(room: str) -> None:
    group = import_module(f"{room}.__main__").main
    asked = [name for name, command in group.commands.items() if any(p.name == "domain" for p in command.params)]
    assert asked
    for name in asked:
        refused = CliRunner().invoke(group, [name, *["x"] * _arguments(group.commands[name]), "--domain", "sass"])
        assert refused.exit_code == 1, name
        assert "no domain 'sass': there are" in refused.output and "did you mean saas?" in refused.output, name
        assert "Traceback" not in refused.output, name


def _arguments(command: click.Command) -> int:
    return sum(isinstance(p, click.Argument) for p in command.params)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("RATE", "abc", "FIRSTMILE_RATE='abc': expected a number above 0"),
        ("ONLINE", "mysql://x", "FIRSTMILE_ONLINE='mysql://x': expected sqlite, or redis://"),
        ("LOG", "nats://x", "FIRSTMILE_LOG='nats://x': expected sqlite, kafka://"),
        ("LAKE", "s3://bucket/lake", "FIRSTMILE_LAKE: s3:// cannot be opened: Install s3fs"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "decide", "export"])
def test_a_wrong_setting_is_one_sentence(
    command: str, variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FIRSTMILE_{variable}", value)
    refused = CliRunner().invoke(main, [command, *([] if command == "serve" else ["u-1"])])
    assert (refused.exit_code, refused.output.startswith(f"Error: {says}")) == (1, True)


def test_nothing_to_export_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path / "empty"))
    refused = CliRunner().invoke(main, ["export", "u-1"])
    assert refused.exit_code == 1 and "no users yet in" in refused.output
