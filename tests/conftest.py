"""Settings of every test: how many examples hypothesis tries, and no telemetry."""

import os

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

for name in ("BENTOML_HOME", "FIRSTMILE_HOME", "FIRSTMILE_DOMAIN", "FIRSTMILE_ONLINE", "FIRSTMILE_NOW"):
    os.environ.pop(name, None)  # `make` sets them for the commands; a test says what it needs
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("FEAST_USAGE", "False")

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("short", max_examples=15, deadline=None, suppress_health_check=SLOW, print_blob=True)
settings.register_profile("soak", max_examples=400, deadline=None, suppress_health_check=SLOW, print_blob=True)
settings.load_profile(os.environ.get("FIRSTMILE_HYPOTHESIS") or "short")


PROCESSES = (
    "bench/", "contracts/", "e2e/", "feature_repo/test_kafka", "feature_repo/test_kinesis", "feature_repo/test_rabbit",
    "serving/test_service", "serving/segments/test_broker", "monitoring/test_distributed",
)  # fmt: skip
"""Where services and brokers are started: one after the other, so that none starves another."""


class ByFile(LoadScopeScheduling):
    """A file is one worker's, and so are all tests that start services."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::")[0].removeprefix("tests/")
        return "processes" if file.startswith(PROCESSES) else file


def pytest_xdist_make_scheduler(config, log):
    """How tests are given to several workers (`-n 2`)."""
    return ByFile(config, log)


def pytest_addoption(parser):
    """`--golden-update` writes what came out into the golden files instead of comparing: read the difference after."""
    parser.addoption("--golden-update", action="store_true", help="write the golden files' outcomes anew")


@pytest.fixture(autouse=True)
def _no_tracking_address_left_behind():
    """MLflow puts its address into the environment, where the next test's processes would find it."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_sessionfinish(session, exitstatus):
    """In CI a skipped test is a failed one: everything that a test needs is there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("FIRSTMILE_CI"):
        for report in skipped:
            reporter.write_line(f"skipped, which CI does not accept: {report.nodeid}: {report.longrepr[-1]}", red=True)
        session.exitstatus = 1
