"""A wait is logged when it begins and when it ends, whoever waits and however often."""

from __future__ import annotations

import threading

import pytest

from pipeline.bus import waits
from pipeline.bus.waits import Waits
from pipeline.errors import FileBusy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(waits, "PAUSE", 0.001)
    monkeypatch.setattr(waits.log, "propagate", True)


def busy(times: int) -> list[int]:
    """A work that fails so often; then it works."""
    return [times]


def work(left: list[int]) -> str:
    if left[0]:
        left[0] -= 1
        msg = "the file is locked (database is locked)"
        raise FileBusy(msg)
    return "done"


def test_a_wait_ends_with_the_result(caplog: pytest.LogCaptureFixture) -> None:
    left = busy(5)
    assert Waits().retried(lambda: work(left), FileBusy, "the file is locked") == "done"
    assert [record.getMessage() for record in caplog.records] == [
        "the file is locked (database is locked); what is to be written waits",
        "the file is locked no longer, after 0 s: all goes on",
    ]


def test_work_without_a_wait_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert Waits().retried(lambda: work(busy(0)), FileBusy, "it") == "done"
    assert not caplog.records


def test_who_gives_up_again_and_again_has_one_wait(caplog: pytest.LogCaptureFixture) -> None:
    these, left = Waits(), busy(4)
    for _ in range(4):
        with pytest.raises(FileBusy):
            these.retried(lambda: work(left), FileBusy, "it", longest=0)
    assert len(caplog.records) == 1
    these.retried(lambda: work(left), FileBusy, "it")
    these.retried(lambda: work(left), FileBusy, "it")
    assert len(caplog.records) == 2
    assert "it no longer" in caplog.text


def test_many_threads_share_one_wait(caplog: pytest.LogCaptureFixture) -> None:
    these, opened = Waits(), threading.Event()

    def until_open() -> str:
        return work(busy(0 if opened.is_set() else 1))

    threads = [
        threading.Thread(target=these.retried, args=(until_open, FileBusy, "it")) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    threading.Timer(0.05, opened.set).start()
    for thread in threads:
        thread.join(10)
    assert len([r for r in caplog.records if "what is to be written waits" in r.getMessage()]) == 1
    assert len([r for r in caplog.records if "no longer" in r.getMessage()]) == 1


def test_a_wait_ends_with_the_process() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(FileBusy):
        Waits(stop).retried(lambda: work(busy(9)), FileBusy, "it")
