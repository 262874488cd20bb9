"""Following the README: its feature and its domain work as it says, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project's rooms with the README's domain `shop` beside the others."""
    folder = tmp_path_factory.mktemp("copy")
    for room in ("feature_repo", "training", "serving", "monitoring"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (code,) = (b for b in blocks() if "DOMAIN = Domain(" in b)
    (folder / "feature_repo/domains/shop.py").write_text(code)
    return folder


def blocks() -> list[str]:
    """The README's Python blocks."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def command(copy: Path, *words: str, domain: str) -> str:
    """What a room's command prints."""
    environment = os.environ | {
        "FIRSTMILE_DOMAIN": domain,
        "FIRSTMILE_HOME": str(copy / "var"),
        "PYTHONPATH": str(copy),
    }
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_domain_is_one_module(copy, tmp_path):
    lines = [
        {"type": "track", "event": name, "messageId": f"{user}-{hours}", "userId": user, "properties": {"price": 4.99},
         "timestamp": (START + timedelta(hours=hours)).isoformat()}
        for user in ("a", "b") for hours, name in ((0, "Shop Opened"), (2, "Product Listed"), (30, "Sold"))
    ]  # fmt: skip
    lines[0]["properties"] = {}
    lines.append(lines[1] | {"messageId": "wrong", "properties": {"price": "a lot"}})
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = command(copy, "feature_repo", "ingest", "--data", str(tmp_path), domain="shop")
    assert "7 accepted, 0 refused" in taken and "kept and flagged: properties.price 1" in taken
    assert command(copy, "feature_repo", "ingest", "--data", str(tmp_path), domain="shop") == taken
    assert "online: 2 rows written" in command(copy, "feature_repo", "backfill", domain="shop")
    assert "online: 0 rows written" in command(copy, "feature_repo", "backfill", domain="shop")
    assert "since_opening" in command(copy, "feature_repo", "features", domain="shop")


def test_a_feature_is_one_entry(copy):
    (entry,) = (b for b in blocks() if "since=2" in b)
    features = copy / "feature_repo/domains/saas/features.py"
    features.write_text(features.read_text().replace("FEATURES = (", f"FEATURES = (\n    {entry.strip()},", 1))
    assert "errors_24h" in command(copy, "feature_repo", "features", domain="saas")
    command(copy, "feature_repo", "apply", domain="saas")
    services = "from feature_repo.feature_store.store import feature_store; " \
        "from feature_repo.settings import Settings; " \
        "print([s.name for s in feature_store(Settings()).list_feature_services()])"  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", services], cwd=copy, capture_output=True, text=True,
        env=os.environ | {"FIRSTMILE_HOME": str(copy / "var"), "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert set(re.findall(r"saas_v\d", run.stdout)) == {"saas_v1", "saas_v2"}, run.stderr
