"""One configuration for Feast's own commands, for programs and for every product."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typeguard
import yaml

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.feature_store import store
from feature_repo.settings import Settings
from feature_repo.vocabulary import Feature, LastTime


@pytest.fixture(scope="module")
def domain() -> Domain:
    return domains.load("saas")


def settings_at(folder: Path, **options: Any) -> Settings:
    return Settings(home=folder, **({"domain": "saas", "online": "sqlite"} | options))


def rows_of(domain: Domain, users: list[str], event_us: int = 5, created_us: int = 1) -> pa.Table:
    """A row a person: the n-th feature of the n-th type is n, n / 7 or its name."""
    stamp, n = pa.timestamp("us", "UTC"), len(users)
    made = {"int64": lambda i, f: i, "float64": lambda i, f: i / 7, "string": lambda i, f: f"«{f}»"}
    types = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    features = {
        f: pa.array([made[t](i, f)] * n, types[t]) for i, (f, t) in enumerate(domain.feature_types.items(), start=1)
    }
    keys = {"user_id": users, "event_timestamp": pa.array([event_us] * n, stamp)}
    times = {"created": pa.array([created_us] * n, stamp), "valid_until_us": pa.array([None] * n, pa.int64())}
    times["applied_position"] = pa.array([created_us] * n, pa.int64())
    return pa.table({**keys, **times, **features})


def test_the_default_settings_render_the_yaml_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRSTMILE_HOME", "FIRSTMILE_DOMAIN", "FIRSTMILE_ONLINE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    rendered = store.repo_config(Settings(home=store.FOLDER.parent / "var"))
    base = yaml.safe_load(store.BASE.read_text())
    assert rendered["offline_store"].pop("temp_directory") == str(store.FOLDER.parent / "var" / "saas" / "tmp")
    rendered["registry"] = os.path.relpath(rendered["registry"], store.FOLDER)
    rendered["online_store"]["path"] = os.path.relpath(rendered["online_store"]["path"], store.FOLDER)
    home = str(store.FOLDER.parent / "var")
    rendered["mlflow"]["tracking_uri"] = rendered["mlflow"]["tracking_uri"].replace(home, "../var")
    assert rendered == base


@pytest.mark.parametrize(
    ("url", "connection"),
    [
        ("redis://cache:6380/3", "cache:6380,db=3"),
        ("redis://cache", "cache:6379,db=0"),
        ("rediss://me:secret@cache:1/0", "cache:1,db=0,username=me,password=secret,ssl=true"),
    ],
)
def test_redis_is_named_by_its_url(url: str, connection: str, tmp_path: Path) -> None:
    online = store.repo_config(settings_at(tmp_path, online=url))["online_store"]
    assert online == {
        "type": "feature_repo.feature_store.online.OrderedRedisOnlineStore",
        "connection_string": connection,
    }


def test_another_online_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FIRSTMILE_ONLINE='memcached://x': expected sqlite, or redis://"):
        store.repo_config(settings_at(tmp_path, online="memcached://x"))


def registered(settings: Settings) -> dict[str, Any]:
    fs = store.feature_store(settings, lineage=False)
    listed: list[Any] = [
        *fs.list_feature_services(),
        *fs.list_on_demand_feature_views(),
        *fs.list_batch_feature_views(),
    ]
    return {found.name: found for found in [*listed, *fs.list_data_sources(), *fs.list_entities()]}


def test_apply_twice_is_apply_once(tmp_path: Path, domain: Domain) -> None:
    settings = settings_at(tmp_path)
    written = store.apply(settings)
    text, first = written.read_text(), registered(settings)
    fs = store.feature_store(settings, lineage=False)
    store.write_online(fs, domain, rows_of(domain, ["u"]))
    store.apply(settings)
    assert written.read_text() == text
    assert registered(settings) == first
    assert store.read_online(fs, domain, ["u"])[0] is not None


def test_what_is_no_longer_declared_goes(tmp_path: Path, domain: Domain) -> None:
    settings = settings_at(tmp_path)
    extra = Feature("one_more_us", LastTime(), "one more", since=domain.version + 1)
    store.apply(settings, replace(domain, features=(*domain.features, extra)))
    newest = f"saas_v{domain.version + 1}"
    assert newest in registered(settings)
    store.apply(settings, replace(domain, elapsed=(), said={}))
    left = registered(settings)
    assert newest not in left
    assert "saas_elapsed" not in left
    assert "one_more_us" not in [f.name for f in left["saas_user"].features]


def test_rows_written_in_bulk_are_read_back(tmp_path: Path, domain: Domain) -> None:
    settings = settings_at(tmp_path)
    store.apply(settings)
    fs = store.feature_store(settings, lineage=False)
    users = [f"user-{i}" for i in range(25)]
    steps: list[int] = []
    rows = rows_of(domain, users)
    store.write_online(fs, domain, rows, progress=steps.append, batch=10)
    expected = rows.drop_columns(["user_id", "event_timestamp", "created"]).to_pylist()[0]
    assert steps == [10, 10, 5]
    assert store.read_online(fs, domain, [*users, "nobody"]) == [expected] * 25 + [None]
    store.write_online(fs, domain, rows_of(domain, users, event_us=4, created_us=9))
    assert store.read_online(fs, domain, ["user-3"], [domain.features[0].name]) == [{domain.features[0].name: 1}]
    store.delete_online(fs, domain, ["user-3"])
    assert store.read_online(fs, domain, ["user-3"]) == [None]


def test_a_missing_column_is_named(tmp_path: Path, domain: Domain) -> None:
    settings = settings_at(tmp_path)
    store.apply(settings)
    fs = store.feature_store(settings, lineage=False)
    with pytest.raises(ValueError, match="rows for saas_user: no column created"):
        store.write_online(fs, domain, rows_of(domain, ["u"]).drop_columns(["created"]))


def test_the_folders_own_yaml_is_refused_for_another_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    monkeypatch.delenv("FEAST_FS_YAML_FILE_PATH", raising=False)
    with pytest.raises(ValueError, match=rf"feast -f {tmp_path}/saas/feature_store.yaml"):
        store.settings_in_effect()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as in a fresh checkout, with nothing in it but sources."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(store.FOLDER, folder / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").touch()
    return folder


def feast(checkout: Path, *arguments: str) -> str:
    """The real command, in the folder, as Feast's docs say."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FIRSTMILE_", "FEAST_", "MLFLOW_"))}
    command = [str(Path(sys.executable).parent / "feast"), *arguments]
    done = subprocess.run(
        command,
        cwd=checkout / "feature_repo",
        env=kept | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_feasts_own_commands_work_in_the_folder(checkout: Path, domain: Domain) -> None:
    assert "saas_user" in feast(checkout, "apply")
    assert "saas_user" in feast(checkout, "feature-views", "list")
    assert (checkout / "var" / "saas" / "registry.db").exists()
    assert [p.name for p in (checkout / "var").iterdir() if "mlflow" not in p.name] == ["saas"]
    fs = store.feature_store(settings_at(checkout / "var"), lineage=False)
    assert len(fs.list_feature_services()) == domain.version


def test_feasts_own_commands_take_another_product_by_its_yaml(checkout: Path, tmp_path: Path) -> None:
    written = store.apply(settings_at(tmp_path, domain="oulad"))
    (tmp_path / "oulad" / "registry.db").unlink()
    assert "oulad_user" in feast(checkout, "-f", str(written), "apply")
    assert "oulad_user" in registered(settings_at(tmp_path, domain="oulad"))


@pytest.mark.parametrize(("before", "checked"), [("import feast", True), ("import feature_repo.feature_store", False)])
def test_feasts_classes_are_not_compiled_anew_to_check_arguments(before: str, checked: bool) -> None:
    """Which takes most of the time that importing it takes."""
    asked = f"{before}; import feast, typeguard; print(feast.FeatureView.__init__.__code__.co_names)"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert ("check_argument_types" in found) == checked


def test_typeguard_checks_everybody_else() -> None:
    @typeguard.typechecked
    def double(n: int) -> int:
        return 2 * n

    with pytest.raises(typeguard.TypeCheckError):
        double("2")  # type: ignore[arg-type]
