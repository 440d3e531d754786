"""SIGHUP: other heads without a restart, and what cannot be loaded changes nothing."""

from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from models.fusion.head import Head
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, WeightsError
from pipeline.ports import State
from pipeline.types import Record
from tests.graph.conftest import CONFIG
from workers.bus.site_configs import ConfigHistory, heads_of, read_configs
from workers.config import loader
from workers.graph import Node
from workers.reload import reload_heads
from workers.runtime.supervisor import Supervisor
from workers.stages.fusion import FusionStage

ROOT = Path(__file__).resolve().parents[2]
TWO_SITES = "version: 1\nsites:\n  office: {fusion: {head: new}}\n  yard: {fusion: {head: rules}}\n"


class Named:
    """A head that is nothing but its name."""

    threshold = 0.5

    def __init__(self, version: str) -> None:
        self.version = version

    def score(self, question: HeadQuery) -> float:
        return 0.0

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        return [Verdict(score=0.0, label="", contributions={}) for _ in batch]


class Swapped(FusionStage):
    """Fusion that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__({})
        self.given: list[Mapping[str, Head]] = []

    def swap(self, heads: Mapping[str, Head]) -> None:
        self.given.append(heads)


class Plain:
    """A stage that has no heads."""

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> State:
        raise NotImplementedError


@pytest.fixture
def nodes() -> list[Node]:
    """A stage without heads and one with."""
    return [
        Node(name="text", topic=topics.REPORTS, out=topics.OBSERVATIONS, stage=Plain()),
        Node(name="fusion", topic=topics.OBSERVATIONS, out=topics.ANOMALIES, stage=Swapped()),
    ]


def given(nodes: Sequence[Node]) -> list[Mapping[str, Head]]:
    return [heads for n in nodes if isinstance(n.stage, Swapped) for heads in n.stage.given]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sites.yaml"
    path.write_text(TWO_SITES)
    return path


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What is logged, also after a view that kept it for itself."""
    monkeypatch.setattr(logging.getLogger("fusewatch"), "propagate", True)
    caplog.set_level(logging.INFO, "fusewatch")
    return caplog


def load(settings: Config) -> dict[str, Head]:
    """A head for the sites that name one."""
    return {
        name: Named(f"{site.fusion.head} 2")
        for name, site in settings.sites.items()
        if site.fusion.head != "rules"
    }


def test_the_heads_that_the_config_names_now_are_swapped_in_and_told(
    path: Path, nodes: list[Node], log: pytest.LogCaptureFixture
) -> None:
    reload_heads(path, nodes, load)
    ((site, head),) = given(nodes)[0].items()
    assert (site, head.version) == ("office", "new 2")
    assert "reload: heads are now office: new 2, yard: rules" in log.text


def test_a_config_that_was_changed_is_read_again(path: Path, nodes: list[Node]) -> None:
    reload_heads(path, nodes, load)
    path.write_text(TWO_SITES.replace("new", "newer"))
    reload_heads(path, nodes, load)
    path.write_text(TWO_SITES.replace("new", "rules"))
    reload_heads(path, nodes, load)
    versions = [{name: head.version for name, head in heads.items()} for heads in given(nodes)]
    assert versions == [{"office": "new 2"}, {"office": "newer 2"}, {}]


@pytest.mark.parametrize(
    "error",
    [
        WeightsError("sites.office.fusion.head: new holds no fusion head"),
        ConfigError("sites.office.fusion.head: no such head"),
        PermissionError(13, "Permission denied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_head_that_cannot_be_loaded_changes_nothing(
    path: Path, nodes: list[Node], log: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails(settings: Config) -> dict[str, Head]:
        raise error

    reload_heads(path, nodes, fails)
    assert given(nodes) == []
    (told,) = log.records
    assert told.getMessage() == f"reload: {error}; the heads that are loaded stay"
    assert told.levelno == logging.ERROR


@pytest.mark.parametrize("text", ["version: 1\nsites: {office: {fusoin: {}}}\n", "{", None])
def test_a_config_that_is_wrong_or_gone_changes_nothing(
    path: Path, nodes: list[Node], log: pytest.LogCaptureFixture, text: str | None
) -> None:
    path.unlink() if text is None else path.write_text(text)
    reload_heads(path, nodes, load)
    assert given(nodes) == []
    assert "; the heads that are loaded stay" in log.text


def test_a_worker_without_heads_says_that_there_is_nothing_to_reload(
    path: Path, nodes: list[Node], log: pytest.LogCaptureFixture
) -> None:
    path.unlink()  # it does not even look
    reload_heads(path, nodes[:1], load)
    reload_heads(path)
    assert log.text.count("reload: there is nothing to reload here") == 2
    assert {record.levelno for record in log.records} == {logging.INFO}


def test_the_heads_of_a_real_config_are_loaded(
    tmp_path: Path, nodes: list[Node], log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "office.yaml"
    path.write_text(CONFIG)
    reload_heads(path, nodes)
    assert "reload: heads are now office: " in log.text


def test_sighup_asks_for_a_reload_once_and_ends_nothing() -> None:
    supervisor, seen = Supervisor(), list[bool]()
    before = signal.getsignal(signal.SIGHUP)

    def body() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        seen.extend((supervisor.asked(), supervisor.asked(), supervisor.stop.is_set()))

    assert supervisor.run(body, lambda: None) == 0
    assert seen == [True, False, False]
    assert signal.getsignal(signal.SIGHUP) == before


def test_sighup_of_a_terminal_that_is_gone_is_an_end() -> None:
    """A terminal window that is closed leaves no daemon behind that holds the cameras."""
    code = (
        "from workers.runtime.supervisor import Supervisor\n"
        "supervisor = Supervisor()\n"
        "def body():\n"
        "    print('up', flush=True)\n"
        "    while not supervisor.stop.wait(0.05):\n"
        "        if supervisor.asked():\n"
        "            print('reload', flush=True)\n"
        "supervisor.run(body, lambda: None)\n"
        "print('ended', flush=True)\n"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "reload\n"
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(10) == 0


def test_new_heads_are_published_and_the_same_again_are_not(path: Path, nodes: list[Node]) -> None:
    settings, bus, now = loader.load(path), MemoryBus(), 7
    configs = ConfigHistory(settings, bus, (), recorded=False)

    def swap() -> None:
        reload_heads(path, nodes, load, lambda heads: configs.publish(heads, now))

    configs.publish({}, now)
    swap()
    swap()
    told = list(read_configs(bus.values(topics.CONFIGS)))
    assert [(each.site, each.head) for each in told] == [
        ("office", "rules"),
        ("yard", "rules"),
        ("office", "new 2"),
    ]
    again = ConfigHistory(settings, bus, told, recorded=False)
    again.publish(load(settings), now + 1)
    assert len(bus.values(topics.CONFIGS)) == len(told), "a restart changes nothing"
    again.publish(load(settings), now - 1)
    assert len(bus.values(topics.CONFIGS)) == len(told) + 2, "a recording of an earlier time"
    assert heads_of([FusionStage({}, {})]) == {}
    assert heads_of([]) is None
