"""Fixtures over `world`."""

from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa
import pytest

from feature_repo import domains
from feature_repo.settings import Settings
from tests.training.world import Shop, make_rows, shop, shop_features, shop_people, write_features


@pytest.fixture(scope="session")
def make() -> Callable[..., pd.DataFrame]:
    """`make_rows`."""
    return make_rows


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """1,200 people over ten weeks, two rows each."""
    return make_rows()


@pytest.fixture(scope="session")
def shop_state(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with 500 people, its feature rows written and applied to Feast."""
    from feature_repo.feature_store.store import apply

    people = shop_people()
    table = pa.Table.from_pandas(people.drop(columns="skill"), preserve_index=False)
    domain = shop(lambda _: table)
    settings = Settings(home=tmp_path_factory.mktemp("home"), domain="shop", online="sqlite")
    frame = shop_features(people)
    write_features(settings, frame)
    apply(settings, domain)
    return Shop(settings, domain, people, frame, int(people["end_us"].max()))


@pytest.fixture(scope="module")
def a_shop(shop_state: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, known to `domains.load`, in an empty working folder; MLflow is SQLite in the shop's state folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        patch.setattr(domains, "load", lambda name: shop_state.domain)
        yield shop_state
