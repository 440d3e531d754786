"""Where tests find weights and media; without them a test is skipped, and says so.

No test depends on the default port of the endpoint: it is taken while tests run.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.config.schema import Api
from tests.held import Holding, documents_in
from tests.live.brokers import _lone_broker, kafka, lone_broker, secure_kafka

# pytest finds fixtures by these names, in every folder
__all__ = ["_lone_broker", "kafka", "lone_broker", "secure_kafka"]

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _folder(name: str) -> Path:
    folder = Path(os.environ.get("FUSEWATCH_SHARED", ROOT / "../shared")).resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: real media and weights are needed here", allow_module_level=True)
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of default model files."""
    return _folder("weights")


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips."""
    return _folder("media")


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of composited scenes with truth."""
    return _folder("scenes")


@pytest.fixture(scope="session")
def default_port() -> Iterator[socket.socket | None]:
    """A listener on the default port; None where a daemon or another session listens already.

    Whoever starts a daemon without a port of its own fails here as on a machine with a daemon.
    """
    host, _, port = Api().listen.rpartition(":")
    try:
        listener = socket.create_server((host, int(port)))
    except OSError:
        yield None
        return
    with listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(autouse=True)
def nobody_calls_the_default_port(default_port: socket.socket | None) -> Iterator[None]:
    """Fails a test that connects to the default port, itself or by a process."""
    yield
    if default_port is None:
        return
    try:
        default_port.accept()[0].close()
    except BlockingIOError:
        return
    pytest.fail(f"a client came to {Api().listen}: give daemons and clients a port of their own")


@pytest.fixture(scope="session")
def _holding() -> Iterator[Holding]:
    holding = Holding()
    with pytest.MonkeyPatch.context() as patch:
        holding.install(patch)
        yield holding


@pytest.fixture(autouse=True)
def documents_are_as_their_schemas_say(
    _holding: Holding, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Fails a test in which an alert, a test event or a config contradicts its schema.

    Also an alert that a process of its own wrote. The mark `no_schema` is for alerts that no stage
    of today makes.
    """
    used = "tmp_path" in request.fixturenames
    folder = request.getfixturevalue("tmp_path") if used else None
    yield
    faults, _holding.faults = _holding.faults, []
    if folder is not None:
        faults += documents_in(folder)
    if faults and request.node.get_closest_marker("no_schema") is None:
        pytest.fail("\n".join(list(dict.fromkeys(faults))[:20]))


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command that is called within a test leaves a log handler on a stderr that is closed."""
    log = logging.getLogger("fusewatch")
    before = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate, level = before
    log.setLevel(level)
