"""Evidently's own pages hold what users sent."""

from pathlib import Path

import pandas as pd

from monitoring import evidently_pages

EVIL = "</script><script>window.PWNED=1</script><!--"


def test_a_value_ends_no_script_block(tmp_path: Path) -> None:
    """Evidently writes categories into a script block as they are: a role could run its own script in the report."""
    values = pd.DataFrame({"role": [EVIL, "designer", None, "engineer"] * 20})
    psi, pages = evidently_pages.write(
        values, values, {"role": "string"}, {"role": "string"}, False, tmp_path, lambda said: None
    )
    assert psi["role"] == 0 and {page.file for page in pages} == {"drift-features.html", "missing-values.html"}
    texts = [(tmp_path / page.file).read_text() for page in pages]
    assert not any("<script>window.PWNED" in text for text in texts)
    assert any("window.PWNED" in text for text in texts)  # it is shown nevertheless
