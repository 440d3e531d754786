"""Which file may import which: layers, rooms, heavy packages, and how large a room may be."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("pipeline", "models", "workers")  # each may import itself and those before it
FILES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

FLOORS = (  # a room imports itself and the floors below it; a room ends in `/*`, a file in `.py`
    ("pipeline/*",),
    ("pipeline/config/*",),
    ("pipeline/tracking/*",),
    ("pipeline/judge/*", "pipeline/bus/*"),
    ("pipeline/behaviour/*",),
    ("pipeline/bus/kafka/*",),
    ("models/*",),
    ("models/vision/*", "models/hearing/*", "models/language/*", "models/behaviour/*"),
    ("models/fusion/*",),
    ("models/training/*",),
    ("workers/config/*", "workers/media/*", "workers/schemas/*"),
    ("workers/runtime/*",),
    ("workers/capture/*", "workers/stages/*", "workers/delivery/*"),
    ("workers/bus/*",),
    ("workers/recordings/*",),
    ("workers/graph.py",),
    ("workers/stored/*",),
    ("workers/replay/*",),
    ("workers/explain/*",),
    ("workers/training/*",),
    ("workers/tuning/*",),
    ("workers/recorder/*",),
    ("workers/setup/*", "workers/demo/*"),
    ("workers/*",),
    ("workers/commands/*",),
    ("workers/cli.py",),
)
MOST_FILES, MOST_LINES = 16, 400  # of a folder, of a file

HEAVY = {
    "cv2": {
        "models/vision/letterbox.py",
        "models/vision/person_crop.py",
        "workers/capture/camera.py",
        "workers/media/jpeg.py",
        "workers/delivery/snapshots.py",
        "workers/media/image_quality.py",
        "workers/media/motion.py",
        "workers/training/corruptions.py",
    },
    "jinja2": {"workers/explain/html.py"},
    "simplejpeg": {"workers/media/jpeg.py"},
    "pyaudio": {"workers/capture/microphone.py"},
    "av": {
        "models/training/sound_clips.py",
        "workers/capture/av_stream.py",
        "workers/capture/stream_opening.py",
        "workers/media/containers.py",
        "workers/media/picture_decoder.py",
    },  # the first: to learn
    "onnxruntime": {
        "models/onnx_session.py",
        "models/vision/detector.py",
        "models/vision/convert.py",
        "models/language/text.py",
    },
    "ai_edge_litert": {"models/tflite_file.py"},
    "faster_whisper": {"models/hearing/speech.py", "models/hearing/voice_activity.py"},
    "ctranslate2": set(),
    "torch": {
        "models/training/networks.py",
        "models/training/export_head.py",
        "models/training/fit.py",
        "models/hearing/openai_speech.py",
        "models/vision/ultralytics_detector.py",
    },
    "safetensors": {"models/training/export_head.py"},
    "ultralytics": {"models/vision/ultralytics_detector.py"},
    "whisper": {"models/hearing/openai_speech.py"},
    "sklearn": {
        "models/training/figures.py",
        "models/training/metrics.py",
    },  # these three: to judge
    "scipy": {"models/training/metrics.py"},  # what was trained
    "matplotlib": {"models/training/figures.py"},
    "kafka": {
        "pipeline/bus/kafka/bus.py",
        "pipeline/bus/kafka/connection.py",  # the bus is five files, an idea each: connections,
        "pipeline/bus/kafka/writer.py",  # publishing,
        "pipeline/bus/kafka/reader.py",  # reading,
        "pipeline/bus/kafka/group_member.py",  # being in a group,
        "pipeline/bus/kafka/monitor.py",  # and looking on from beside
        "pipeline/bus/kafka/admin.py",  # the same library's other half: topics and groups
    },
    "mcap": {
        "workers/recordings/mcap_writer.py",
        "workers/recordings/chunk_reader.py",
        "workers/recordings/file_index.py",
        "workers/recordings/recording.py",
    },
    "faust": {
        "workers/bus/faust_app.py",
        "workers/bus/faust_consumer.py",
    },  # its use, and its insides
}
ARRAYS = {  # numpy, inside pipeline
    "pipeline/tracking/active_track.py",
    "pipeline/tracking/appearance.py",
    "pipeline/tracking/track.py",
    "pipeline/zones.py",
}
CLOCKS = {"time", "threading", "asyncio", "multiprocessing", "socket", "random", "secrets", "uuid"}
NOW = {"now", "utcnow", "today"}  # of datetime: a clock, without a module of that name
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree; each file is parsed once."""
    return tuple(ast.walk(ast.parse((ROOT / path).read_bytes(), str(path))))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions and by name."""
    for node in nodes(path):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=level):
                assert level == 0, f"{path}: a relative import hides its layer"
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__" | "load" | "_of_extra")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


MODULES = {".".join(path.with_suffix("").parts): path for path in FILES}


def ours(path: Path) -> set[Path]:
    """The files of ours that a file imports; `from a.b import c` is `a/b/c.py` or `a/b.py`."""
    names = [name.split(".") for name in imports(path)]
    found = {MODULES.get(".".join(n)) or MODULES.get(".".join(n[:-1])) for n in names}
    return {file for file in found if file is not None}


def floor(path: Path) -> int:
    """The floor that a file is on; a file that is named stands apart from its room."""
    room = f"{path.parent}/*"
    named = [i for i, rooms in enumerate(FLOORS) if str(path) in rooms]
    return named[0] if named else next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def room(path: Path) -> str:
    return str(path) if any(str(path) in rooms for rooms in FLOORS) else f"{path.parent}/*"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_room_imports_itself_and_the_floors_below(path: Path) -> None:
    above = {
        str(other)
        for other in ours(path)
        if floor(other) >= floor(path) and room(other) != room(path)
    }
    assert not above


def test_no_file_imports_itself_in_a_circle() -> None:
    left = {path: ours(path) - {path} for path in FILES}
    while free := {path for path, wanted in left.items() if not wanted & left.keys()}:
        left = {path: wanted for path, wanted in left.items() if path not in free}
    assert not left


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=str)
def test_a_room_is_small_and_says_what_it_is_for(folder: Path) -> None:
    files = [path for path in FILES if path.parent == folder and path.name != "__init__.py"]
    assert len(files) <= MOST_FILES
    said = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_bytes()))
    assert said is not None
    assert "May import: " in said


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_short(path: Path) -> None:
    assert len((ROOT / path).read_bytes().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_layer_imports_itself_and_those_below(path: Path) -> None:
    above = set(LAYERS[LAYERS.index(path.parts[0]) + 1 :]) | {"tests", "benchmarks", "deploy"}
    assert not roots(path) & above


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_is_imported_only_where_the_list_says(package: str) -> None:
    assert {str(path) for path in FILES if package in roots(path)} <= HEAVY[package]


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] == "pipeline"], ids=str)
def test_the_pipeline_imports_the_standard_library_and_msgspec(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "msgspec", "pipeline"}
    allowed |= {"numpy"} if str(path) in ARRAYS else set()
    allowed |= {package for package, files in HEAVY.items() if str(path) in files}
    assert roots(path) <= allowed


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parts[0] == "pipeline" and "bus" not in p.parts], ids=str
)
def test_the_pure_part_has_no_clock_no_thread_and_no_chance(path: Path) -> None:
    assert not roots(path) & CLOCKS
    assert not [node for node in nodes(path) if _asks_now(node)]


def _asks_now(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=attribute)):
            return attribute in NOW
    return False


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_module_has_a_name_that_says_nothing(path: Path) -> None:
    assert not VAGUE & set(path.with_suffix("").parts)


def test_the_core_loads_no_numpy() -> None:
    """What an edge box or a test of the core pays for."""
    code = "import sys, pipeline.types, pipeline.host, pipeline.judge.align; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", *HEAVY}


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "import cv2.dnn\n"
        "from torch.nn import Linear\n"
        "def late():\n    import kafka as k\n"
        "import_module('faust')\nimportlib.import_module('av')\n__import__('whisper')\n"
    )
    assert roots(file) == {"cv2", "torch", "kafka", "faust", "av", "whisper"}
