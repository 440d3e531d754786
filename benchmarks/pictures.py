"""Whether the picture itself helps a fusion head: pooled features of the detector, by place.

    python -m benchmarks.pictures MEDIA [--scenes 60] [--seed 7]

A fusion head gets counts, postures and movements, but no picture. Here it gets one: the last and
widest feature map of YOLOX-Nano, averaged over the picture and over the frames of a window, as its
32 main components. Composed scenes are played as `make head` plays them. A logistic regression
learns from the windows of the training and validation splits, and is judged on those of the test
split, so no clip of the test was learned from.

`another place`: the windows of a video are judged by a regression that never saw that video. `known
place`: it has seen the video, with other clips. The average precision (AP) of all test windows
together. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models import weights
from models.fusion.features import SIZES
from models.fusion.labels import MODALITIES
from models.training.dataset import truth_of
from pipeline.config.model_needs import needed_encoders
from pipeline.types import FrameChunk, Record
from workers.config import loader
from workers.media.jpeg import decoded
from workers.replay.scene_file import load_scene
from workers.replay.scene_replay import ReplayOptions, replay
from workers.runtime.process_pool import pool
from workers.stages.encoders import load_encoders
from workers.training.compose import compose
from workers.training.feature_extraction import LOOK, RecordingHead, memoized
from workers.training.ground_truth import truth
from workers.training.video_cache import VideoCache

SIDE = 416  # px; of the detector's input
COMPONENTS = 32
STRENGTH = 0.01  # inverse of the penalty, for standardized numbers
SETS = {
    "vision": ("vision",),
    "vision and picture": ("vision", "picture"),
    "all": MODALITIES,
    "all and picture": (*MODALITIES, "picture"),
}


class Shown(NamedTuple):
    """A window of a scene."""

    video: str
    test: bool
    anomaly: bool
    parts: dict[str, np.ndarray]  # by modality, and `picture`


class Pooled:
    """Pictures to the mean over the widest of the last feature maps, each picture once."""

    def __init__(self, path: Path) -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        maps = {}
        for value in model.graph.value_info:
            shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            if len(shape) == 4 and shape[2:] == [SIDE // 32, SIDE // 32]:
                maps[value.name] = shape[1]
        made = [name for node in model.graph.node for name in node.output if name in maps]
        widest = max(maps[name] for name in made)
        self._name = next(name for name in reversed(made) if maps[name] == widest)
        model.graph.output.append(onnx.ValueInfoProto(name=self._name))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options)
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, frame: FrameChunk) -> np.ndarray:
        if frame.data not in self._known:
            picture = decoded(frame.data, frame.width, frame.height)
            fitted = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            given = fitted.transpose(2, 0, 1)[None].astype(np.float32)
            (found,) = self._session.run([self._name], {self._session.get_inputs()[0].name: given})
            self._known[frame.data] = found.mean(axis=(0, 2, 3))
        return self._known[frame.data]


_ours: list[Any] = []  # of this process


def _ready(config: str) -> None:
    settings = loader.load(Path(config))
    encoders = load_encoders(settings.models, recorded=True, needed=needed_encoders(settings))
    (file,) = sorted(weights.find("yolox_nano").glob("*.onnx"))
    _ours[:] = settings, memoized(encoders), VideoCache(), Pooled(file)


def _windows(path: str) -> list[Shown]:
    settings, encoders, films, pooled = _ours
    scene = load_scene(Path(path))
    spans, pictures, head = truth(scene), dict[int, np.ndarray](), RecordingHead()

    def see(record: Record) -> Record:
        if isinstance(record, FrameChunk):
            pictures[record.start] = pooled(record)
        return record

    study = ReplayOptions(heads={scene.site: head}, spoil=see, film=films, stages=LOOK)
    replay(settings, scene, encoders, study=study)
    made = []
    for window, tokens in head.asked:
        label = truth_of(window.start, window.end, spans)
        inside = [seen for at, seen in pictures.items() if window.start <= at < window.end]
        if label is None or not inside or not scene.start <= window.start < scene.end:
            continue
        none = {m: np.zeros(SIZES[m], np.float32) for m in MODALITIES}
        parts = {**none, **tokens.vectors, "picture": np.mean(inside, axis=0)}
        video = next(Path(camera.file).stem for camera in scene.cameras.values())
        made.append(Shown(video, Path(path).parent.name == "test", bool(label), parts))
    return made


def rows(shown: Sequence[Shown], parts: Sequence[str], main: PCA) -> np.ndarray:
    """The numbers of the windows."""
    columns = []
    for part in parts:
        values = np.array([one.parts[part] for one in shown])
        columns.append(main.transform(values) if part == "picture" else values)
    return np.hstack(columns)


def scores(learned: Sequence[Shown], judged: Sequence[Shown], parts: Sequence[str]) -> np.ndarray:
    """The log odds of a regression that learned from other windows."""
    main = PCA(COMPONENTS, random_state=0).fit(np.array([one.parts["picture"] for one in learned]))
    head = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=STRENGTH, max_iter=2000, class_weight="balanced"),
    )
    head.fit(rows(learned, parts, main), [one.anomaly for one in learned])
    return np.asarray(head.decision_function(rows(judged, parts, main)))


def main() -> None:
    """Prints the table."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("media", type=Path)
    ask.add_argument("--scenes", type=int, default=60)
    ask.add_argument("--seed", type=int, default=7)
    asked = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scenes"
        compose(asked.media, out, scenes=asked.scenes, seed=asked.seed)
        with pool(_ready, str(out / "config.yaml")) as workers:
            found = workers.map(_windows, [str(file) for file in sorted(out.glob("*/*.yaml"))])
            shown = [window for windows in found for window in windows]
    videos = sorted({one.video for one in shown})
    print(f"{len(shown)} windows of {asked.scenes} scenes, {len(videos)} videos")
    for name, parts in SETS.items():
        told = []
        for place in ("another place", "known place"):
            truths: list[bool] = []
            given: list[np.ndarray] = []
            for video in videos:
                learned = [
                    one
                    for one in shown
                    if not one.test and (place == "known place" or one.video != video)
                ]
                judged = [one for one in shown if one.test and one.video == video]
                truths += [one.anomaly for one in judged]
                given.append(scores(learned, judged, parts))
            told.append(f"{place} AP {average_precision_score(truths, np.concatenate(given)):.3f}")
        print(f"{name:20} {', '.join(told)}")


if __name__ == "__main__":
    main()
