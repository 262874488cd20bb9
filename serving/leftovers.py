"""What other programs wrote about people as text: the report's pages, examples of parity.json, logs of processes."""

import json
from collections.abc import Collection
from pathlib import Path

from feature_repo.contract.events import key_of
from feature_repo.erasing.erasure import Plan
from feature_repo.erasing.tombstones import mentions
from feature_repo.settings import Settings

SURE = 6
"""From so many characters on, a value counts as the person's inside other words too, as in a page's escaped data."""


def erase(settings: Settings, erasing: Plan) -> int:
    """Remove a report that shows a person, examples and lines that name them; returns how many things went."""
    logs = [f for folder in {settings.state, settings.home} for f in folder.glob("*.log")]
    lines = sum(_without_lines(file, erasing.ids) for file in logs)
    return lines + _examples(settings.state / "parity.json", erasing) + _report(settings.report, erasing)


def _examples(path: Path, erasing: Plan) -> int:
    """Examples of features that differed; others' whom the person's events touched are no longer true either."""
    if not path.exists():
        return 0
    found, people = json.loads(path.read_text()), {*erasing.senders, *erasing.touched}
    kept = [
        example for example in found["examples"] if key_of(example["user_id"], example["anonymous_id"]) not in people
    ]
    gone = len(found["examples"]) - len(kept)
    if gone:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found | {"examples": kept}, indent=2) + "\n")
        part.replace(path)
    return gone


def _report(folder: Path, erasing: Plan) -> int:
    """All pages where one of them shows an id, or a value that only this person had: `make report` writes new ones."""
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.exists() else []
    wanted = erasing.ids | set(erasing.words)
    if not any(_shows(f.read_text(errors="replace"), wanted) for f in files):
        return 0
    for file in files:
        file.unlink()
    return len(files)


def _shows(text: str, wanted: Collection[str]) -> bool:
    there = frozenset(w for w in wanted if w in text)
    return any(len(w) >= SURE for w in there) or (bool(there) and mentions(text, there))


def _without_lines(file: Path, ids: frozenset[str]) -> int:
    """Take the lines that name somebody out of a log that another process may go on appending to."""
    lines = file.read_bytes().splitlines(keepends=True)
    encoded = [i.encode() for i in ids]
    kept = [li for li in lines if not (any(i in li for i in encoded) and mentions(li.decode(errors="replace"), ids))]
    if len(kept) < len(lines):
        with file.open("r+b") as out:
            out.write(b"".join(kept))
            out.truncate()
    return len(lines) - len(kept)
