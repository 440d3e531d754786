"""Who may import whom: the gate of the design's section 2. What it allows stands in this file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("pipeline", "models", "workers")  # each may import itself and those before it
FILES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

HEAVY = {
    "cv2": {
        "models/letterbox.py",
        "workers/camera.py",
        "workers/evidence.py",
        "workers/jpeg.py",
        "workers/quality.py",
        "workers/spoilt.py",
    },
    "simplejpeg": {"workers/decode.py"},
    "pyaudio": {"workers/microphone.py"},
    "av": {"models/sound_clips.py", "workers/media.py", "workers/tape.py"},  # the first: to learn
    "onnxruntime": {"models/detector.py", "models/fusion/learned.py", "models/text.py"},
    "ai_edge_litert": {"models/sound.py"},
    "faster_whisper": {"models/speech.py", "models/voice.py"},
    "ctranslate2": set(),
    "torch": {
        "models/fusion/nets.py",
        "models/fusion/shipping.py",
        "models/fusion/train.py",
        "models/openai_speech.py",
        "models/ultralytics_detector.py",
    },
    "safetensors": {"models/fusion/shipping.py"},
    "ultralytics": {"models/ultralytics_detector.py"},
    "whisper": {"models/openai_speech.py"},
    "sklearn": {"models/fusion/figures.py", "models/fusion/metrics.py"},  # these three: to judge
    "scipy": {"models/fusion/metrics.py"},  # what was trained
    "matplotlib": {"models/fusion/figures.py"},
    "kafka": {
        "pipeline/bus/kafka.py",
        "pipeline/bus/kafka_connect.py",  # the bus is five files, an idea each: connections,
        "pipeline/bus/kafka_writer.py",  # publishing,
        "pipeline/bus/kafka_reader.py",  # reading,
        "pipeline/bus/kafka_member.py",  # being in a group,
        "pipeline/bus/kafka_monitor.py",  # and looking on from beside
        "pipeline/bus/kafka_admin.py",  # the same library's other half: topics and groups
    },
    "faust": {"workers/faust_app.py", "workers/faust_consumer.py"},  # its use, and its insides
}
ARRAYS = {"pipeline/track.py", "pipeline/zones.py"}  # numpy, inside pipeline
CLOCKS = {"time", "threading", "asyncio", "multiprocessing", "socket", "random", "secrets", "uuid"}
NOW = {"now", "utcnow", "today"}  # of datetime: a clock, without a module of that name
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions and by name."""
    for node in ast.walk(ast.parse((ROOT / path).read_bytes(), str(path))):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, level=level):
                assert level == 0, f"{path}: a relative import hides its layer"
                yield module or ""
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


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
    calls = [node for node in ast.walk(ast.parse((ROOT / path).read_bytes())) if _asks_now(node)]
    assert not calls


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
    code = "import sys, pipeline.types, pipeline.host, pipeline.align; print(*sys.modules)"
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
