"""A revocation that kills its own process: `python -m tests.serving.revoke_child HOME KEY what.is.called.then`."""

import sys
from pathlib import Path
from unittest.mock import patch

from feature_repo.erasing.leaked_key import revoke
from feature_repo.settings import Settings
from tests.serving.erase_child import die

if __name__ == "__main__":
    with patch(sys.argv[3], die):
        revoke(Settings(home=Path(sys.argv[1]), domain="saas"), sys.argv[2], progress=False)
