"""Where the embedded MLflow keeps its artifacts: in the state folder, also after that folder was moved or copied.

MLflow writes the absolute address of the artifact folder into `mlflow.db`: of each experiment, run, logged model and
model version. Left as they are, a copied state folder would load code from, and write into, the folder it was copied
from. So the addresses are rewritten where the database is found in another folder than they name.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from feature_repo.settings import Settings

FOLDER = "mlartifacts"
EXPERIMENTS = ("experiments", "artifact_location")
ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    EXPERIMENTS,
)
"""The tables and columns in which MLflow 3 keeps addresses of artifacts."""


def folder(settings: Settings) -> str:
    """The URI of the artifact folder of an MLflow on SQLite."""
    return (settings.home / FOLDER).as_uri()


def database(settings: Settings) -> Path:
    """The file of the embedded MLflow."""
    return settings.home / "mlflow.db"


def follow(settings: Settings) -> int:
    """Make the embedded MLflow's addresses name this state folder; returns how many experiments had named another.

    Addresses outside of an `mlartifacts` folder, such as those of a bucket, stay; so do all of them where MLflow is a
    server or its database lies elsewhere. Costs one short query where there is nothing to do.
    """
    embedded = settings.tracking_uri == f"sqlite:///{database(settings)}"
    if not embedded or not database(settings).exists():
        return 0
    here = folder(settings)
    with closing(sqlite3.connect(database(settings), timeout=60, isolation_level=None)) as con:
        if not (there := _elsewhere(con, here)):
            return 0
        con.execute("BEGIN IMMEDIATE")
        there = _elsewhere(con, here)  # another process may have been first
        for old in there:
            for table, column in ADDRESSES:
                con.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
        con.execute("COMMIT")
    return len(there)


def _elsewhere(con: sqlite3.Connection, here: str) -> list[str]:
    """The `mlartifacts` folders of other places that experiments name."""
    if not con.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'experiments'").fetchone():
        return []
    table, column = EXPERIMENTS
    found = con.execute(
        f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ? AND {column} != ?", (f"file:///%/{FOLDER}", here)
    )
    return [str(address) for (address,) in found]
