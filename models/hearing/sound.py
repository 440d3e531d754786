"""Classifies sounds with YAMNet (AudioSet, 521 classes; LiteRT) and a head for our labels.

YAMNet alone is not enough: on our clips its best threat class separates threat from benign with an
AUC of .71. `models/training/sound_fit.py` fits `SoundHead` on these scores;
docs/explanations/sound.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.hearing.waveform import RATE
from models.hearing.yamnet_features import CLASSES, Floats, features
from models.tflite_file import open_tflite
from pipeline.config.fields import SOUNDS
from pipeline.config.schema import Model
from pipeline.errors import WeightsError

YAMNET_FILE = "yamnet_spectra_in.tflite"
SHIPPED_HEAD = Path(__file__).with_name("sound_head.npz")  # the head that comes with Fusewatch
PATCH_FRAMES, BANDS = 96, 64
WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms every 10 ms
PATCH = WINDOW + (PATCH_FRAMES - 1) * HOP  # 15,600 samples, 0.975 s
PATCH_STEP = RATE // 2  # samples between the patches of a longer waveform
MAX_REMEMBERED_PATCHES = 256  # size of the cache of patch scores


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


# A band is a triangle over two neighbouring segments between 66 edges: an FFT bin counts in two
# bands at most. Sums over segments need no BLAS, whose threads fight those of the other models.
_EDGES = np.linspace(_mel(125.0), _mel(7500.0), BANDS + 2)
_BINS = _mel(np.arange(FFT // 2 + 1) * RATE / FFT)
_STARTS = np.searchsorted(_BINS, _EDGES)  # the first bin of each segment, and the end of the last
_EMPTY = _STARTS[1:] == _STARTS[:-1]
_SEGMENT = np.repeat(np.arange(BANDS + 1), np.diff(_STARTS))
_RISE = (_BINS[_STARTS[0] : _STARTS[-1]] - _EDGES[_SEGMENT]) / (_EDGES[1] - _EDGES[0])
_RISE = _RISE.astype(np.float32)
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def _bands(magnitude: Floats) -> Floats:
    """Maps `[frames, 257]` to `[frames, 64]`: HTK mel triangles, 125 to 7500 Hz."""
    inside = magnitude[:, _STARTS[0] : _STARTS[-1]]
    starts = np.minimum(_STARTS[:-1] - _STARTS[0], inside.shape[1] - 1)
    rising = np.add.reduceat(inside * _RISE, starts, axis=1)
    falling = np.add.reduceat(inside * (1 - _RISE), starts, axis=1)
    rising[:, _EMPTY] = falling[:, _EMPTY] = 0
    return rising[:, :-1] + falling[:, 1:]


def log_mel(waveform: Floats, offset: float = 0.001) -> Floats:
    """Returns the log-mel patch, `[96, 64]`, of the first 15,600 samples of 16 kHz mono, -1 to 1.

    STFT 512 with a periodic Hann window of 400 every 160 samples, magnitude, 64 HTK mel bands from
    125 to 7500 Hz, log(x + offset). Hershey et al., CNN Architectures for Large-Scale Audio
    Classification, 2017, as in TensorFlow's YAMNet. Raises ValueError for a shorter waveform.
    """
    if waveform.ndim != 1 or len(waveform) < PATCH:
        msg = f"a patch needs {PATCH} samples of one channel, not {waveform.shape}"
        raise ValueError(msg)
    frames = np.lib.stride_tricks.sliding_window_view(waveform[:PATCH], WINDOW)[::HOP]
    magnitude = np.abs(np.fft.rfft(frames * _HANN, FFT)).astype(np.float32)
    return np.log(_bands(magnitude) + np.float32(offset))


def load(path: Path, settings: Model) -> Yamnet:
    """The model that a config names."""
    return Yamnet(path, threads=settings.threads)


class Yamnet:
    """YAMNet on spectra: maps waveforms to AudioSet scores with LiteRT. Not thread-safe.

    A batch is waveforms of 16 kHz mono float32, -1 to 1, at least 15,600 samples each. The result
    is `[521]` float32 each, 0 to 1: the highest score over its patches, one every 8,000 samples.
    `path` is the .tflite file or its folder; with `threads` 0 LiteRT chooses the number. Raises
    WeightsError if the file is missing or is another model.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        path = Path(path)
        file = path / YAMNET_FILE if path.is_dir() else path
        self._interpreter = open_tflite(file, threads)
        takes = self._interpreter.get_input_details()[0]
        gives = self._interpreter.get_output_details()[0]
        if tuple(takes["shape"]) != (1, PATCH_FRAMES, BANDS) or tuple(gives["shape"]) != (
            1,
            CLASSES,
        ):
            msg = f"{file} takes {takes['shape']} and gives {gives['shape']}: it is not this YAMNet"
            raise WeightsError(msg)
        self._in, self._out = takes["index"], gives["index"]
        # The patches of one second include the last patch of the second before: cache them.
        self._held: dict[bytes, Floats] = {}

    def __call__(self, batch: Sequence[Floats]) -> list[Floats]:
        return [self.patches(waveform).max(axis=0) for waveform in batch]

    def patches(self, waveform: Floats) -> Floats:
        """Returns the scores of every patch, `[n, 521]`."""
        starts = range(0, max(len(waveform) - PATCH, 0) + 1, PATCH_STEP)
        return np.stack([self._scores(waveform[start:]) for start in starts])

    def _scores(self, waveform: Floats) -> Floats:
        key = blake2b(waveform[:PATCH].tobytes(), digest_size=16).digest()
        if key not in self._held:
            self._interpreter.set_tensor(self._in, log_mel(waveform)[None])
            self._interpreter.invoke()
            self._held[key] = self._interpreter.get_tensor(self._out)[0].copy()
            if len(self._held) > MAX_REMEMBERED_PATCHES:
                del self._held[next(iter(self._held))]
        return self._held[key]


class SoundHead:
    """YAMNet's 521 scores to calibrated probabilities of our labels, by a few coefficients.

    A softmax regression over SOUNDS and "nothing"; each label's margin over all that competes with
    it goes through its own sigmoid (Platt), whose middle is the operating point: 0.5 is where to
    alarm, and no two labels reach it at once. Rounded to 1e-3.
    """

    def __init__(self, weights: Floats, bias: Floats, slope: Floats, middle: Floats) -> None:
        """`weights` [521, 6] and `bias` [6]: "nothing" first; `slope`, `middle` [5], >= 0."""
        self._weights, self._bias, self._slope, self._middle = weights, bias, slope, middle

    @classmethod
    def read(cls, path: Path) -> SoundHead:
        """Loads the coefficients that `models/training/sound_fit.py` wrote."""
        with np.load(path) as held:
            return cls(held["weights"], held["bias"], held["slope"], held["middle"])

    @classmethod
    def shipped(cls) -> SoundHead:
        """Loads the head that comes with Fusewatch."""
        return cls.read(SHIPPED_HEAD)

    def __call__(self, scores: Floats) -> dict[str, float]:
        logits = features(scores) @ self._weights + self._bias
        sure = 1 / (1 + np.exp(-self._slope * (margins(logits[None])[0] - self._middle)))
        return {label: round(float(p), 3) for label, p in zip(SOUNDS, sure, strict=True)}


def margins(logits: Floats) -> Floats:
    """Returns each label's margin over all other classes together, `[n, 6]` to `[n, 5]`, in
    log odds."""
    others = [np.delete(logits, 1 + label, axis=1) for label in range(len(SOUNDS))]
    return np.stack(
        [logits[:, 1 + label] - _log_sum(rest) for label, rest in enumerate(others)], axis=1
    )


def _log_sum(values: Floats) -> Floats:
    top = values.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(values - top).sum(axis=1))
