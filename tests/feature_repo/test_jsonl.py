"""Files of events that grow, are cut off, or are written anew: each event once, and no line begins within another."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import ibis
import pytest

from feature_repo.domain import Domain, Ingested
from feature_repo.lake import jsonl
from feature_repo.lake.jsonl import take_in_files
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.storage import DamagedFile


def line(n: int, **more: Any) -> bytes:
    event = {"type": "track", "event": "Uploaded", "messageId": f"m{n}", "userId": f"u{n % 9}"}
    return json.dumps(event | {"timestamp": "2026-05-01T09:30:00Z", "properties": {"bytes": n}} | more).encode()


def lines(*numbers: int) -> bytes:
    return b"".join(line(n) + b"\n" for n in numbers)


class Source:
    """A folder with one file, and the state that it is taken into."""

    def __init__(self, home: Path, domain: Domain) -> None:
        self.settings, self.domain = Settings(home=home / "var", domain="saas"), domain
        self.file = home / "data" / "shop.jsonl"
        self.file.parent.mkdir()

    def take(self, content: bytes | None = None, **options: Any) -> Ingested:
        if content is not None:
            self.file.write_bytes(content)
        return take_in_files(self.settings, self.domain, self.file.parent, progress=False, **options)

    def held(self) -> list[int]:
        """The numbers of the messages in the lake."""
        ids = Lake(self.settings.lake).events(ibis.duckdb.connect()).message_id.to_pyarrow().to_pylist()
        return sorted(int(i[1:]) for i in ids)


@pytest.fixture
def source(tmp_path: Path, tiny_domain: Domain) -> Source:
    return Source(tmp_path, tiny_domain)


def test_a_file_that_grows_is_read_on(source: Source) -> None:
    assert source.take(lines(1, 2)) == Ingested(2, {})
    assert source.take() == Ingested(2, {})
    assert source.take(lines(1, 2, 3)) == Ingested(3, {})
    assert source.held() == [1, 2, 3]


@pytest.mark.parametrize(
    "anew",
    [lines(7, 8, 9, 10, 11, 12), lines(1), lines(1, 9, 3), b"", lines(1, 2, 4, 5)],
    ids=["longer", "shorter", "as long", "empty", "only its end"],
)
def test_a_file_written_anew_is_refused_or_read_anew(anew: bytes, source: Source) -> None:
    source.take(lines(1, 2, 3))
    with pytest.raises(
        ValueError, match=f"{source.file}: expected what was read before.*has changed.*--changed reread"
    ):
        source.take(anew)
    assert source.held() == [1, 2, 3]
    new = [json.loads(raw)["properties"]["bytes"] for raw in anew.splitlines()]
    assert source.take(changed="reread") == Ingested(3 + len(new), {})
    assert source.held() == sorted({1, 2, 3, *new})
    assert source.take() == Ingested(3 + len(new), {})


def test_a_last_line_without_an_end_counts_once_it_is_whole(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    whole = lines(1) + line(2)
    for cut in range(len(lines(1)) + 1, len(whole)):
        with caplog.at_level(logging.WARNING):
            assert source.take(whole[:cut]) == Ingested(1, {})
    assert "its last line has no end" in caplog.text
    assert source.take(whole) == source.take() == Ingested(2, {})
    assert source.take(whole + b"\n") == Ingested(2, {})
    assert source.take(whole + b"\n\r\n" + line(3)) == Ingested(3, {})
    assert source.held() == [1, 2, 3]


def test_lines_are_whole_whatever_the_pieces(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    content = lines(*range(40)) + b"no event\n" + line(40)
    for piece in (1, 7, 100, 1_000, len(content)):
        with monkeypatch.context() as patch:
            patch.setattr(jsonl, "PIECE", piece)
            source.file.write_bytes(content)
            found = [line for lines, _ in jsonl._pieces(source.file, 0) for line in lines]
        assert b"\n".join(found) == content
    monkeypatch.setattr(jsonl, "PIECE", 300)
    assert source.take(content) == Ingested(41, {"not_json": 1})
    assert source.held() == list(range(41))


def test_a_line_without_end_does_not_fill_the_memory(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "PIECE", 1_000)
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 5_000)
    with pytest.raises(ValueError, match=f"{source.file}: expected an event a line; from byte {len(lines(1))} on"):
        source.take(lines(1) + b"x" * 50_000)


def test_a_damaged_bookmark_is_named(source: Source) -> None:
    source.take(lines(1))
    (source.settings.state / jsonl.BOOKMARK).write_text('{"fi')
    with pytest.raises(DamagedFile, match=r"intake\.json: expected how far each file was read; .*Remove it"):
        source.take()


@pytest.mark.soak
def test_a_large_file_is_taken_in_fast_and_in_bounded_memory(source: Source) -> None:
    import psutil

    with source.file.open("wb") as out:
        for first in range(0, 2_000_000, 10_000):
            out.write(lines(*range(first, first + 10_000)))
    began, before = time.monotonic(), psutil.Process().memory_info().rss
    assert source.take().accepted == 2_000_000
    print(f"{2_000_000 / (time.monotonic() - began):,.0f} events/s of {source.file.stat().st_size / 1e6:,.0f} MB")
    assert psutil.Process().memory_info().rss - before < 1.5e9
