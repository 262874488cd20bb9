"""`python -m feature_repo` says what it can do at once."""

import subprocess
import sys

from feature_repo.settings import SOURCE


def test_help_imports_nothing_that_only_commands_need() -> None:
    code = "import sys; import feature_repo.__main__; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True)
    modules = found.stdout.split()
    assert "click" in modules
    assert {"pyarrow", "fsspec", "rich.console", "pandas", "duckdb", "ibis", "feast"}.isdisjoint(modules)
