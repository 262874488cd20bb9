"""Who has opted out: known by hashes only, across processes, and as long as the file can be read or was once."""

import logging
from pathlib import Path

import pytest

from feature_repo.storage import DamagedFile
from serving.consent import Consent
from tests import searching

WHO, DEVICE = "optout-xyzzy-9", "anon:anonopt-xyzzy-9"


def test_the_file_holds_no_id(tmp_path: Path) -> None:
    consent, other = Consent(tmp_path), Consent(tmp_path)
    assert not consent.opted_out(WHO) and not consent.out()
    consent.opt_out([WHO, DEVICE], 1)
    for known in (consent, other, Consent(tmp_path)):
        assert known.opted_out(WHO) and DEVICE in known.out() and not known.opted_out("u-1")
    assert searching.found(tmp_path, [WHO, "anonopt-xyzzy-9"]) == []
    other.opt_in([WHO])
    assert not consent.opted_out(WHO) and consent.opted_out(DEVICE)


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_a_damaged_file_takes_nobody_back_in(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    consent = Consent(tmp_path)
    consent.opt_out([WHO], 1)
    assert consent.opted_out(WHO)
    file = tmp_path / "opted_out.db"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert [consent.opted_out(w) for w in (WHO, "u-1", WHO)] == [True, False, True]
    assert len(caplog.records) == 1 and str(file) in caplog.text


def test_without_the_key_nobody_would_be_recognised(tmp_path: Path) -> None:
    Consent(tmp_path).opt_out([WHO], 1)
    (tmp_path / "erased.key").unlink()
    with pytest.raises(
        DamagedFile, match=r"erased\.key: expected the 32 bytes of the key of .*opted_out\.db; it is missing"
    ):
        Consent(tmp_path)
