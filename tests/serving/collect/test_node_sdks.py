"""Unmodified SDKs for Node against a served collector; versions are pinned in npm/."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.serving.collect.test_sdks import AT_US, NEAR_US, by_id, check

NPM = Path(__file__).parent / "npm"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDKs."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no Node.js: install the Debian packages nodejs and npm")
    folder = tmp_path_factory.mktemp("npm")
    for file in ("package.json", "package-lock.json", "send.mjs"):
        shutil.copy(NPM / file, folder)
    subprocess.run(
        ["npm", "install", "--no-save", "--no-audit", "--no-fund"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder


def send(folder: Path, sdk: str, service: SimpleNamespace) -> None:
    done = subprocess.run(
        ["node", "send.mjs", sdk, service.url, service.key], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sdk", ["segment", "rudderstack"])
def test_segment_and_rudderstack_for_node(installed: Path, service: SimpleNamespace, sdk: str) -> None:
    send(installed, sdk, service)
    if sdk == "segment":
        check(service)
        return
    # RudderStack's gives events ids of its own
    found = {e.type: e for e in service.events()}
    assert sorted(found) == ["alias", "group", "identify", "page", "track"]
    assert found["identify"].traits["plan"] == "pro"
    assert (found["track"].name, found["track"].properties["feature"]) == ("Feature Used", "board")
    assert (found["alias"].user_id, found["alias"].anonymous_id) == ("u-1", "a-0")
    assert all(abs(e.ts_us - AT_US) < NEAR_US for e in found.values())
    assert service.refused() == []


def test_mixpanel_for_node(installed: Path, service: SimpleNamespace) -> None:
    send(installed, "mixpanel", service)
    found = by_id(service)
    assert (found["m1"].type, found["m1"].name, found["m1"].user_id) == ("track", "Clicked", "u-1")
    (profile,) = [e for e in found.values() if e.message_id != "m1"]
    assert (profile.type, profile.user_id, profile.traits["plan"]) == ("identify", "u-1", "pro")
