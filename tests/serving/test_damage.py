"""A service on damaged files: it ends with words instead of starting again for ever, or goes on without one of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.settings import SOURCE, Settings
from feature_repo.storage import DamagedFile
from serving import decision_log, wiring
from serving.consent import Consent
from tests.brokers import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path, domain="saas", log="sqlite", history="sqlite", online="sqlite")
    found.state.mkdir()
    return found


def test_what_it_needs_is_named_before_it_starts(settings: Settings) -> None:
    assert wiring.intact(settings) is None
    Consent(settings.state).opt_out(["u-1"], 1)
    assert wiring.intact(settings) is None
    for name in ("opted_out.db", "segments.db", "log.db"):
        (settings.state / name).write_bytes(b"no database" * 500)
    with pytest.raises(DamagedFile) as said:
        wiring.intact(settings)
    lines = str(said.value).splitlines()
    assert [
        str(settings.state / n) == line.split(":")[0]
        for n, line in zip(("log.db", "opted_out.db", "segments.db"), lines, strict=True)
    ] == [True] * 3
    assert "from a backup" in lines[1] and "python -m serving segments" in lines[2]


def test_a_damaged_file_of_decisions_is_a_warning_and_named_by_whoever_reads_it(settings: Settings) -> None:
    settings.decisions.mkdir()
    file = settings.decisions / "1.parquet"
    file.write_bytes(b"PAR1 and then nothing")
    assert str(wiring.intact(settings)).startswith(f"{file}: expected a whole Parquet file")
    with pytest.raises(DamagedFile, match=f"{file}: expected decisions as Parquet"):
        decision_log.read(settings.decisions)


def test_bento_ends_and_says_why(settings: Settings) -> None:
    (settings.state / "history.db").write_bytes(b"no database" * 500)
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "FIRSTMILE_HOME": str(settings.home)}
    command = [sys.executable, "-m", "serving", "serve", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -signal.SIGTERM) and "Traceback" not in said
    assert f"{settings.state / 'history.db'}: expected a SQLite database" in said and "rebuild history" in said
