"""Every detector adapter keeps one promise; and the ONNX one reads each family of exports."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.vision.boxes import suppress
from models.vision.detector import Detector
from models.vision.letterbox import Letterbox, Preprocess
from pipeline.config.fields import OBJECTS
from pipeline.errors import ConfigError, OutsideError, WeightsError
from pipeline.types import Box

Detect = Callable[[Sequence[np.ndarray]], list[tuple[Box, ...]]]
YOLOX = "yolox_nano/yolox_nano.onnx"
NANODET = "nanodet_plus_m_416/nanodet_plus_m_416.onnx"


@pytest.fixture(scope="module")
def pictures(media: Path) -> list[np.ndarray]:
    """Two shapes at least: ultralytics' test pictures where the package is, and real footage."""
    found = []
    package = importlib.util.find_spec("ultralytics")
    if package and package.origin:
        assets = Path(package.origin).parent / "assets"
        found += [cv2.imread(str(assets / name)) for name in ("bus.jpg", "zidane.jpg")]
    for name, at in (("office_a.mp4", 80), ("vtest_first25s.mp4", 0), ("Retail02_short.mp4", 0)):
        capture = cv2.VideoCapture(str(media / "video" / name))
        for _ in range(at):
            capture.grab()
        good, picture = capture.read()
        assert good
        found.append(picture)
    return found


@pytest.fixture(scope="module", params=["yolox", "nanodet", "ultralytics"])
def detect(request: pytest.FixtureRequest, weights: Path) -> Detect:
    """One adapter after the other."""
    if request.param != "ultralytics":
        return Detector(weights / {"yolox": YOLOX, "nanodet": NANODET}[request.param], threads=2)
    return ultralytics(weights)


def ultralytics(weights: Path) -> Detect:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is not installed: its adapter is NOT tested here")
    from models.vision.ultralytics_detector import UltralyticsDetector

    return UltralyticsDetector(weights / "yolo11n_int8_openvino_model")


def iou(a: Box, b: Box) -> float:
    wide = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    high = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    areas = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1)
    return wide * high / (areas - wide * high)


# --- what both adapters promise ---------------------------------------------------------------


def test_persons_are_found_in_every_picture(detect: Detect, pictures: list[np.ndarray]) -> None:
    for found in detect(pictures):
        assert any(box.label == "person" and box.score > 0.5 for box in found)


def test_boxes_are_fractions_rounded_and_best_first(
    detect: Detect, pictures: list[np.ndarray]
) -> None:
    for found in detect(pictures):
        assert found == tuple(sorted(found, key=lambda box: -box.score))
        for box in found:
            assert 0 <= box.x1 < box.x2 <= 1
            assert 0 <= box.y1 < box.y2 <= 1
            assert 0.1 <= box.score <= 1
            for value in (box.score, box.x1, box.y1, box.x2, box.y2):
                assert value == round(value, 3)
                assert type(value) is float


def test_a_batch_gives_what_single_pictures_give(
    detect: Detect, pictures: list[np.ndarray]
) -> None:
    assert detect(pictures) == [detect([picture])[0] for picture in pictures]


def test_a_picture_on_each_core_gives_what_one_after_the_other_gives(
    weights: Path, pictures: list[np.ndarray]
) -> None:
    many, one = Detector(weights / YOLOX), Detector(weights / YOLOX, threads=1)
    for count in range(1, 8):
        some = [pictures[n % len(pictures)] for n in range(count)]
        assert many(some) == one(some)


def test_an_empty_batch_gives_nothing(detect: Detect) -> None:
    assert detect([]) == []


def test_the_same_picture_gives_the_same_boxes(detect: Detect, pictures: list[np.ndarray]) -> None:
    assert detect([pictures[0]] * 3) == [detect([pictures[0]])[0]] * 3


def test_a_grey_picture_holds_no_person(detect: Detect) -> None:
    (found,) = detect([np.full((240, 320, 3), 114, np.uint8)])
    assert not [box for box in found if box.label == "person" and box.score > 0.3]


def test_a_sliver_of_a_picture_is_looked_at_too(detect: Detect) -> None:
    assert len(detect([np.zeros((1, 2000, 3), np.uint8), np.zeros((3000, 2, 3), np.uint8)])) == 2


def test_the_adapters_agree_on_who_is_there(weights: Path, pictures: list[np.ndarray]) -> None:
    ours, theirs = Detector(weights / YOLOX, threads=2), ultralytics(weights)
    for one, other in zip(ours(pictures), theirs(pictures), strict=True):
        sure = [box for box in one if box.label == "person" and box.score > 0.8]
        people = [box for box in other if box.label == "person"]
        assert all(max(iou(box, person) for person in people) > 0.5 for box in sure)


# --- wrong files and machines -----------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.onnx"):
        Detector(tmp_path / "nowhere.onnx")


def test_a_truncated_file_is_refused(tmp_path: Path, weights: Path) -> None:
    half = (weights / YOLOX).read_bytes()[:1_000_000]
    (tmp_path / "half.onnx").write_bytes(half)
    with pytest.raises(WeightsError, match=r"half\.onnx"):
        Detector(tmp_path / "half.onnx")


def test_a_model_of_something_else_is_refused(weights: Path) -> None:
    with pytest.raises(WeightsError, match="not a detector"):
        Detector(weights / "all-MiniLM-L6-v2-int8/model.onnx")


def test_an_unknown_provider_is_a_config_error(weights: Path) -> None:
    with pytest.raises(ConfigError, match="cpu, cuda, tensorrt, openvino"):
        Detector(weights / YOLOX, providers=("gpu",))


def test_a_provider_that_is_not_there_is_never_replaced(weights: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(OutsideError, match=r"'cuda' is not in this onnxruntime; it has: cpu"):
        Detector(weights / YOLOX, providers=("cuda", "cpu"))


# --- families of exports, by graphs that answer the same to every picture ---------------------


def graph(
    path: Path,
    answer: np.ndarray,
    *,
    batch: int | str = 1,
    size: int = 64,
    labels: Sequence[str] = (),
    kind: int = TensorProto.FLOAT,
    **meta: str,
) -> Path:
    """An ONNX file whose output is `answer` for every picture of the batch."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "nought"], ["zero"]),
        helper.make_node("Add", ["zero", "answer"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["output0"], to=kind),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "constant",
            [helper.make_tensor_value_info("images", kind, [batch, 3, size, size])],
            [helper.make_tensor_value_info("output0", kind, [batch, *answer.shape])],
            [
                numpy_helper.from_array(np.array([3], np.int64), "last"),
                numpy_helper.from_array(np.array(0, np.float32), "nought"),
                numpy_helper.from_array(answer[None].astype(np.float32), "answer"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    if labels:
        meta["names"] = str(dict(enumerate(labels)))
    helper.set_model_props(model, meta)
    onnx.save(model, str(path))
    return path


CELLS = 84  # of a 64 x 64 input: 8*8 + 4*4 + 2*2
WIDE = np.zeros((32, 64, 3), np.uint8)  # lies in the middle of a 64 x 64 input, or at its top
CAT = Box(label="cat", score=0.9, x1=0.25, y1=0.25, x2=0.75, y2=1.0)


def test_yolox_is_read(tmp_path: Path) -> None:
    answer = np.zeros((CELLS, 5 + 2), np.float32)
    # cell (x 2, y 2) of stride 8: centre 32, 20, size 32 x 24
    answer[2 * 8 + 2] = [2.0, 0.5, np.log(32 / 8), np.log(24 / 8), 0.9, 0.0, 1.0]
    path = graph(tmp_path / "x.onnx", answer)
    with pytest.raises(WeightsError, match="2 classes but 0 names"):
        Detector(path)
    answer = np.zeros((CELLS, 5 + 80), np.float32)
    answer[2 * 8 + 2, :5] = [2.0, 0.5, np.log(32 / 8), np.log(24 / 8), 0.9]
    answer[2 * 8 + 2, 5 + OBJECTS.index("cat")] = 1.0
    assert Detector(graph(tmp_path / "x.onnx", answer))([WIDE]) == [(CAT,)]


def test_a_yolox_of_one_named_class_is_no_list_of_boxes(tmp_path: Path) -> None:
    answer = np.zeros((CELLS, 5 + 1), np.float32)
    answer[2 * 8 + 2] = [2.0, 0.5, np.log(32 / 8), np.log(24 / 8), 0.9, 1.0]
    assert Detector(graph(tmp_path / "x.onnx", answer, labels=("cat",)))([WIDE]) == [(CAT,)]


@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_ultralytics_without_nms_is_read(tmp_path: Path, batch: int | str, kind: int) -> None:
    answer = np.zeros((4 + 2, CELLS), np.float32)
    answer[:, 5] = [32, 36, 32, 24, 0.0, 0.9]
    answer[:, 6] = [33, 36, 32, 24, 0.0, 0.6]  # the same cat once more
    answer[:, 7] = [32, 36, 32, 24, 0.5, 0.0]  # a dog in the same place stays
    path = graph(tmp_path / "u.onnx", answer, batch=batch, kind=kind, labels=("dog", "cat"))
    found = Detector(path, max_batch=2)([WIDE] * 3)
    assert [[(box.label, box.score) for box in one] for one in found] == [
        [("cat", 0.9), ("dog", 0.5)]
    ] * 3
    assert found[0][0] == CAT


def test_ultralytics_with_nms_is_read(tmp_path: Path) -> None:
    answer = np.zeros((300, 6), np.float32)
    answer[0] = [16, 24, 48, 48, 0.9, 1]
    answer[1] = [16, 24, 48, 48, 0.05, 0]
    path = graph(tmp_path / "n.onnx", answer, labels=("dog", "cat"), task="detect")
    assert Detector(path)([WIDE]) == [(CAT,)]


def rf_detr(path: Path, size: int | str, **meta: str) -> Path:
    """An RF-DETR as Hugging Face exports it: a person whose logit is the mean of the input."""
    logits = np.full((1, 2, 91), -20, np.float32)
    is_person = np.zeros((1, 2, 91), np.float32)
    logits[0, 0, 1], is_person[0, 0, 1] = 0, 1  # 1: the id of persons in COCO
    boxes = np.array([[[0.5, 0.5, 0.5, 1.0], [0, 0, 0, 0]]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "is_person"], ["shown"]),
        helper.make_node("Add", ["shown", "base"], ["logits"]),
        helper.make_node("Mul", ["mean", "nought"], ["zero"]),
        helper.make_node("Add", ["zero", "boxes"], ["pred_boxes"]),
    ]
    kind = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "rf-detr",
            [helper.make_tensor_value_info("pixel_values", kind, ["batch", 3, size, size])],
            [
                helper.make_tensor_value_info("pred_boxes", kind, [1, 2, 4]),
                helper.make_tensor_value_info("logits", kind, [1, 2, 91]),
            ],
            [
                numpy_helper.from_array(logits, "base"),
                numpy_helper.from_array(is_person, "is_person"),
                numpy_helper.from_array(boxes, "boxes"),
                numpy_helper.from_array(np.array(0, np.float32), "nought"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    helper.set_model_props(model, meta)
    onnx.save(model, str(path))
    return path


def test_rf_detr_by_hugging_face_has_ids_of_coco_and_its_own_colours(tmp_path: Path) -> None:
    white = np.full((32, 64, 3), 255, np.uint8)
    (found,) = Detector(rf_detr(tmp_path / "r.onnx", 64))([white])
    (box,) = found
    # (255 - 123.675) / 58.395 and so on: the mean is 2.439, of which the logistic function is .920
    assert (box.label, box.score) == ("person", 0.92)
    assert (box.x1, box.y1, box.x2, box.y2) == (0.25, 0.0, 0.75, 1.0)


def test_rf_detr_of_open_size_needs_to_be_told_its_own(tmp_path: Path) -> None:
    path = rf_detr(tmp_path / "r.onnx", "side")
    with pytest.raises(WeightsError, match="put `imgsz`, like"):
        Detector(path)
    assert Detector(path, side=384).size == (384, 384)
    assert Detector(rf_detr(path, "side", imgsz="[448, 448]")).size == (448, 448)


def test_what_is_not_a_number_is_no_box(tmp_path: Path) -> None:
    answer = np.zeros((4 + 2, CELLS), np.float32)
    answer[:, 1] = [np.nan, 36, 32, 24, 0.9, 0]
    answer[:, 2] = [32, 36, np.inf, 24, 0.9, 0]
    answer[:, 3] = [32, 36, 32, 24, np.nan, 0.0]
    answer[:, 4] = [32, 36, -32, 24, 0.9, 0.0]
    path = graph(tmp_path / "nan.onnx", answer, labels=("dog", "cat"))
    assert Detector(path)([WIDE]) == [()]


@pytest.mark.parametrize(
    ("shape", "meta", "why"),
    [
        ((7, 7), {}, "neither YOLOX"),
        ((6, CELLS), {"task": "pose"}, "'pose'"),
        ((6, CELLS), {"names": "{0: 'dog'}"}, "2 classes but 1 names"),
        ((6, CELLS), {"names": "__import__('os')"}, "`names` is not a list"),
    ],
)
def test_a_foreign_graph_is_refused(
    tmp_path: Path, shape: tuple[int, int], meta: dict[str, str], why: str
) -> None:
    path = graph(tmp_path / "f.onnx", np.zeros(shape, np.float32), **meta)
    with pytest.raises(WeightsError, match=why):
        Detector(path)


# --- the parts --------------------------------------------------------------------------------


def test_letterbox_leaves_no_trace_of_the_picture_before() -> None:
    box = Letterbox(64, 64, Preprocess("centre", rgb=True, spread=(255.0,) * 3))
    out = np.zeros((3, 64, 64), np.float32)
    box.place(np.full((64, 64, 3), 255, np.uint8), out)
    fit = box.place(WIDE, out)
    assert (fit.left, fit.top) == (0, 16)
    assert np.all(out[:, 16:48] == 0)
    assert np.allclose(np.delete(out, slice(16, 48), 1), 114 / 255)


def test_letterbox_swaps_blue_and_red() -> None:
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 0] = 255
    out = np.zeros((3, 64, 64), np.float32)
    Letterbox(64, 64, Preprocess("centre", rgb=True, spread=(255.0,) * 3)).place(blue, out)
    assert out[:, 0, 0].tolist() == [0, 0, 1]


def test_what_was_suppressed_suppresses_nothing() -> None:
    corners = np.array([(0, 0, 10, 10), (3, 0, 13, 10), (6, 0, 16, 10)], np.float32)
    assert suppress(corners, np.zeros(3, np.int64), 0.5).tolist() == [0, 2]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50), st.integers(0, 50), st.integers(1, 40), st.integers(1, 40),
            st.integers(0, 2),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_suppression_keeps_what_no_better_one_of_its_class_covers(
    rows: list[tuple[int, int, int, int, int]],
) -> None:
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
    classes = np.array([row[4] for row in rows], np.int64)
    stays: list[int] = []
    for index, (x1, y1, x2, y2) in enumerate(corners):
        overlaps = False
        for other in stays:
            if classes[other] != classes[index]:
                continue
            a1, b1, a2, b2 = corners[other]
            common = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common
            overlaps |= bool(common > np.float32(0.5) * union)
        if not overlaps:
            stays.append(index)
    assert suppress(corners, classes, 0.5).tolist() == stays
