"""Apache Kafka while tests run: for the session, with TLS and passwords, or a cluster to break.

Not called `kafka.py`: pytest puts this folder on the path, where that would hide kafka-python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.servers import missing, need

if TYPE_CHECKING:  # a fixture's file must load where kafka-python is not installed
    from pipeline.bus.kafka.bus import KafkaBus

SCRIPT = Path(__file__).parents[2] / "deploy" / "kafka" / "kafka.sh"
STARTED = 180  # seconds for three brokers on a busy machine, the first time with Maven's download


def need_kafka() -> None:
    """Skip aloud where no broker can be started; in CI that is a failure."""
    need(
        "java",
        "mvn",
        "openssl",
        reason="for deploy/kafka/kafka.sh; or set FUSEWATCH_KAFKA=host:port",
    )
    fetched = subprocess.run([SCRIPT, "fetch"], capture_output=True, text=True, check=False)
    if fetched.returncode:
        missing(f"no Apache Kafka: {fetched.stderr[-500:]}")


class Brokers:
    """A cluster of `count` brokers with its data in `folder`; a test may break it.

    Numbers count from 1. Every method returns when what it names has happened: `start` when each
    broker answers, `stop` and `kill` when the process is gone. `addresses` is `host:port,...`.
    """

    def __init__(self, folder: Path, count: int = 1, *, secure: bool = False) -> None:
        need_kafka()
        self.folder, self.count = folder, count
        self._options = ["--brokers", str(count), *(["--secure"] if secure else [])]
        self.addresses = ""

    def start(self, number: int | None = None) -> None:
        """One broker, or all that are down. A stopped cluster has kept its data and its ports."""
        if number is None:
            self.addresses = self._run("start", *self._options).strip()
        else:
            self._run("start-one", str(number))

    def stop(self, number: int | None = None) -> None:
        """By SIGTERM: brokers take leave of each other and write everything."""
        self._run("stop") if number is None else self._run("stop-one", str(number))

    def kill(self, number: int) -> None:
        """By SIGKILL."""
        self._run("kill-one", str(number))

    def pid(self, number: int) -> int:
        """Of a broker that runs."""
        return int((self.folder / str(number) / "pid").read_text())

    def log(self, number: int) -> str:
        """What a broker has written since it last started."""
        return (self.folder / str(number) / "log").read_text()

    def close(self) -> None:
        """Stop what runs, however far `start` came."""
        if (self.folder / "settings").exists():
            self.stop()

    def __enter__(self) -> Brokers:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        # pytest keeps the folders of three runs: the logs may be wanted, gigabytes of records not
        for data in self.folder.glob("*/data"):
            shutil.rmtree(data)

    def _run(self, command: str, *options: str) -> str:
        # Files, not pipes: a broker that outlives the script must not hold one open
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [SCRIPT, command, self.folder, *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=STARTED,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            assert done.returncode == 0, f"{command}: {err.read()}"
            return out.read()


@dataclass(frozen=True)
class SecureKafka:
    """A broker that asks who you are. Paths are of PEM files."""

    sasl: str  # host:port of SASL over TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512
    mutual: str  # host:port of TLS where the client, too, shows a certificate
    plain: str  # host:port without either
    ca: Path
    cert: Path
    key: Path
    username: str
    password: str


def lag(bus: KafkaBus, topic: str, group: str) -> int:
    """Records still held that `group` has not committed past."""
    commits, oldest = bus.committed(topic, group), bus.oldest(topic)
    return sum(
        max(0, end - max(oldest[number], commits[number][0] if number in commits else 0))
        for number, end in bus.end(topic).items()
    )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker that all tests share: let each use names of its own.

    The one that FUSEWATCH_KAFKA names; else one that starts here and ends with the session.
    """
    if there := os.environ.get("FUSEWATCH_KAFKA"):
        yield there
        return
    with Brokers(tmp_path_factory.mktemp("kafka")) as brokers:
        yield brokers.addresses


@pytest.fixture(scope="session")
def _lone_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("lone") / "kafka") as brokers:
        yield brokers


@pytest.fixture
def lone_broker(_lone_broker: Brokers) -> Brokers:
    """A broker that a test may stop and kill. It runs when the test begins; its topics stay."""
    _lone_broker.start()
    return _lone_broker


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with TLS, SASL and mutual TLS, with an authority of its own."""
    folder = tmp_path_factory.mktemp("secure-kafka")
    with Brokers(folder, secure=True) as brokers:
        secrets, port = folder / "secrets", int(brokers.addresses.rpartition(":")[2])
        yield SecureKafka(
            sasl=f"127.0.0.1:{port + 20}",
            mutual=f"127.0.0.1:{port + 30}",
            plain=brokers.addresses,
            ca=secrets / "ca.pem",
            cert=secrets / "client.crt",
            key=secrets / "client.key",
            username="fusewatch",
            password=(secrets / "password").read_text().strip(),
        )
