"""The shape of the project: four rooms, one direction, and what the files may not contain."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["feature_repo", "training", "serving", "monitoring"]


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_to_its_left(room):
    right = set(ROOMS[ROOMS.index(room) + 1 :]) | {"tests"}
    wrong = {str(p.relative_to(ROOT)): imports(p) & right for p in (ROOT / room).rglob("*.py")}
    assert {p: found for p, found in wrong.items() if found} == {}


def test_only_training_talks_to_mlflow():
    others = [p for room in ROOMS if room != "training" for p in (ROOT / room).rglob("*.py")]
    assert [str(p.relative_to(ROOT)) for p in others if "mlflow" in imports(p)] == []


def test_no_relative_imports_and_no_other_package():
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages == {*ROOMS, "tests"}


def tracked() -> list[Path]:
    """The project's text files."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout: there is no list of the project's files")
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).suffix not in {".png", ".parquet"}]


def test_no_package_index_is_named():
    hosts = re.compile(r"https?://[^\s)\"']*(pypi|pythonhosted|/simple\b|npmjs)")
    wrong = [str(p.relative_to(ROOT)) for p in tracked() if p.exists() and hosts.search(p.read_text(errors="replace"))]
    assert wrong == []


def test_the_lock_file_is_hashed_and_pins_every_package():
    lines = [line for line in (ROOT / "requirements.lock").read_text().split("\n") if line and not line.startswith(" ")]
    assert len(lines) > 50
    assert [line for line in lines if "==" not in line or not line.endswith("\\")] == []
