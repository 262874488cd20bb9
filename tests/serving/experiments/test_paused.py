from pathlib import Path

import pytest

from serving.experiments import paused
from serving.experiments.paused import Paused


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert paused.read(tmp_path / "new") == {}
    paused.write(tmp_path / "new", {"a": Paused("errors", 5)})
    assert paused.read(tmp_path / "new") == {"a": Paused("errors", 5)}
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["paused.json"]


def test_a_damaged_file_is_an_error_not_nothing_paused(tmp_path: Path) -> None:
    (tmp_path / "paused.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"paused.json: .*write \{\} to pause nothing"):
        paused.read(tmp_path)
