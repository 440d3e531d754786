"""Runs a learned fusion head: an ONNX file and a card, within fixed limits.

The limits are enforced here, whatever the head has learned. Words never lower a score: each window
is also judged without them, and the higher score counts. The head takes nothing from the rules:
`workers/stages/site_state.py` applies those too. A verdict gives each modality's share: how much
the score falls when the modality is removed (occlusion: Zeiler and Fergus, 2014). Smaller parts of
the window are removed likewise, to say in words what carried the verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.fusion import occlusion, verdict_words
from models.fusion.features import ANEW, SCHEMA, SIZES, Floats, Tokens, arrays, tokens
from models.fusion.labels import LABELS, MODALITIES
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from models.fusion.sound_words import class_names
from models.hearing.yamnet_features import CLASSES
from models.onnx_file import check_whole, read_regular
from models.onnx_session import open_session, session_options
from pipeline.config.rule_kinds import WORD_MODALITIES
from pipeline.errors import WeightsError
from pipeline.types import Presence

MODEL_FILE, CARD_FILE, WEIGHTS_FILE = "head.onnx", "card.json", "head.safetensors"
MAX_CARD_BYTES = 1 << 20  # bytes
SHIPPED_FOLDER = Path(__file__).with_name("shipped")
SCORE_DIGITS = 4  # of a score; thresholds with few false alarms are close to 1
MIN_THRESHOLD = 0.3  # a site may set a lower threshold than the head's own


def folder_of(head: str) -> Path:
    """Returns the folder of a head: `shipped`, or a path."""
    return SHIPPED_FOLDER if head == "shipped" else Path(head)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata that is checked before a head is used; `about` is free text for people."""

    name: str
    version: str
    schema: str  # features.SCHEMA of its training
    labels: tuple[str, ...]
    network: str  # attention | concat
    members: int = 1  # of an ensemble of them
    threshold: float
    per_hour: float  # false alarms per hour at which the threshold was chosen
    temperature: float
    sha256: str  # of head.onnx
    config: str  # hash of the settings, seed and data that made it
    about: dict[str, object] = {}


class LearnedHead:
    """A Model that maps queries to verdicts; one thread, so that a replay gives the same bytes.

    Raises WeightsError if the folder holds no head, if the head has another feature layout, if its
    file does not match its card, or if it does not return probabilities.
    """

    def __init__(self, card: Card, model: bytes) -> None:
        self.card = card
        class_names()  # a missing file is told at load time, not with the first verdict
        options = session_options(threads=1)
        options.inter_op_num_threads = 1
        try:
            check_whole(model)
            self._session = open_session(model, options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base class
            msg = f"{MODEL_FILE} cannot be loaded: {str(error)[:200]}"
            raise WeightsError(msg) from error
        takes = {each.name: each.shape[1:] for each in self._session.get_inputs()}
        wants = {**{m: [SIZES[m]] for m in MODALITIES}, "state": [len(MODALITIES), 3]}
        if takes != wants:
            msg = f"{MODEL_FILE} takes {takes}, not {wants}: train it again with this Fusewatch"
            raise WeightsError(msg)
        gives = {each.name: each.shape[1:] for each in self._session.get_outputs()}
        due: dict[str, list[int]] = {"score": [], "classes": [len(card.labels)]}
        if gives != due:
            msg = (
                f"{MODEL_FILE} gives {gives}, not {due} (the labels of {CARD_FILE}): train it again"
            )
            raise WeightsError(msg)
        self._try()

    @classmethod
    def read(cls, folder: Path) -> LearnedHead:
        """Loads the head in a folder that `fusewatch train` made. Raises WeightsError."""
        try:
            folder = folder.expanduser()
        except RuntimeError as error:  # ~nobody, or a service user without a home
            msg = f"{folder} holds no fusion head ({error})"
            raise WeightsError(msg) from error
        try:
            said = read_regular(folder / CARD_FILE, MAX_CARD_BYTES)
            card = msgspec.json.decode(said, type=Card)
            model = read_regular(folder / MODEL_FILE)
        except OSError as error:
            msg = f"{folder} holds no fusion head ({error.strerror}: {error.filename})"
            raise WeightsError(msg) from error
        except msgspec.MsgspecError as error:
            msg = f"{folder / CARD_FILE}: {error}"
            raise WeightsError(msg) from error
        if card.schema != SCHEMA:
            msg = (
                f"{folder}: this head was trained on features {card.schema}, and this Fusewatch "
                f"makes {SCHEMA}: {ANEW}"
            )
            raise WeightsError(msg)
        if card.labels != LABELS:
            msg = (
                f"{folder / CARD_FILE}: its labels are {', '.join(card.labels)}, and those of this "
                f"Fusewatch are {', '.join(LABELS)}: train it again"
            )
            raise WeightsError(msg)
        if not 0 < card.threshold <= 1:
            msg = f"{folder / CARD_FILE}: threshold {card.threshold} is not above 0 and at most 1"
            raise WeightsError(msg)
        if hashlib.sha256(model).hexdigest() != card.sha256:
            msg = (
                f"{folder / MODEL_FILE} is not the file that {CARD_FILE} speaks of: copy the whole "
                "folder"
            )
            raise WeightsError(msg)
        try:
            return cls(card, model)
        except WeightsError as error:
            msg = f"{folder}: {error}"
            raise WeightsError(msg) from error

    def _try(self) -> None:
        """Judges blank windows at load time, so that an unusable head fails at once."""
        lost = Tokens({}, dict.fromkeys(MODALITIES, Presence.LOST))
        blank = {m: np.zeros(SIZES[m], np.float32) for m in MODALITIES}
        full = Tokens(blank, dict.fromkeys(MODALITIES, Presence.PRESENT))
        try:
            answers = [
                self.scores(batch) for batch in ([lost], [full, full.without("sound"), lost])
            ]
        except Exception as error:  # as above
            msg = f"{MODEL_FILE} cannot judge windows: {str(error)[:200]}"
            raise WeightsError(msg) from error
        for score, classes in answers:
            if not (np.all((score >= 0) & (score <= 1)) and np.isfinite(classes).all()):
                msg = (
                    f"{MODEL_FILE} gives what is no probability (a score of {score[0]}): train it "
                    "again"
                )
                raise WeightsError(msg)

    @classmethod
    def shipped(cls) -> LearnedHead:
        """Loads the head that comes with Fusewatch."""
        return cls.read(SHIPPED_FOLDER)

    @property
    def version(self) -> str:
        """Name, version and the start of the file's hash, as alerts show it."""
        return f"{self.card.name} {self.card.version} ({self.card.sha256[:8]})"

    @property
    def sha256(self) -> str:
        """The hash of the head's file."""
        return self.card.sha256

    @property
    def threshold(self) -> float:
        """The head's own threshold."""
        return self.card.threshold

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        return [self.judge(tokens(question)) for question in batch]

    def score(self, question: HeadQuery) -> float:
        """Returns the score of the verdict on a window, without the rest of the verdict."""
        return self.probabilities(tokens(question))[0]

    def judge(self, window: Tokens) -> Verdict:
        """Returns the verdict on a window; contributions and words, which are slow, only for a
        likely anomaly."""
        way, score, classes = self._best(window)
        label = self.card.labels[int(np.argmax(classes))]
        told = round(score, SCORE_DIGITS)
        if told < min(self.card.threshold, MIN_THRESHOLD):
            return Verdict(score=told, label=label, contributions={})
        present = [m for m in MODALITIES if m in way.vectors]
        falls = self._falls(score, [way.without(m) for m in present])
        by_modality = dict(zip(present, falls.tolist(), strict=True))
        return Verdict(
            score=told,
            label=label,
            contributions=_shares(present, falls),
            why=self._why(way, score, by_modality),
        )

    def probabilities(self, window: Tokens) -> tuple[float, Floats]:
        """Returns P(anomaly), rounded as in `judge`, and P(label | anomaly)."""
        _, score, classes = self._best(window)
        return round(score, SCORE_DIGITS), classes

    def _best(self, window: Tokens) -> tuple[Tokens, float, Floats]:
        """Judges the window with all, some and no words; returns the one with the highest score.

        A window without any data scores 0, whatever the network returns.
        """
        if not window.vectors:
            return window, 0.0, np.zeros(len(self.card.labels), np.float32)
        said = [m for m in WORD_MODALITIES if m in window.vectors]
        ways = [window, *(window.without(m) for m in said)]
        if len(said) > 1:
            ways.append(window.without(*said))
        ways = [way for way in ways if way.vectors]
        scores, classes = self.scores(ways)
        best = int(np.argmax(scores))
        return ways[best], float(scores[best]), classes[best]

    def heard(self, windows: Sequence[Tokens], labels: Sequence[str]) -> str:
        """Returns which of `labels` a recording is, or "" for none of them.

        Compares the mean over its windows of P(anomaly) P(label), with only `labels` possible, with
        that of 1 - P(anomaly). Silent windows do not count.
        """
        # In a silent window all class scores are equal.
        sounding = [
            w for w in windows if "sound" in w.vectors and np.ptp(w.vectors["sound"][:CLASSES]) > 0
        ]
        if not sounding:
            return ""
        score, classes = self.scores(sounding)
        known = [self.card.labels.index(label) for label in labels]
        mass = classes[:, known].sum(axis=1, keepdims=True) + 1e-9
        shares = (score[:, None] * classes[:, known] / mass).mean(axis=0)
        return (*labels, "")[int(np.argmax([*shares, 1 - float(score.mean())]))]

    def scores(self, batch: Sequence[Tokens]) -> tuple[Floats, Floats]:
        """Returns calibrated P(anomaly), `[n]`, and P(label | anomaly), `[n, labels]`."""
        score, classes = self._session.run(["score", "classes"], arrays(batch))
        return np.asarray(score, np.float32), np.asarray(classes, np.float32)

    def _falls(self, score: float, without: Sequence[Tokens]) -> Floats:
        """Returns by how much the log odds of `score` fall in each of the windows; never below
        0."""
        scores, _ = self.scores(without)
        return np.asarray(np.maximum(0.0, _log_odds(score) - _log_odds(scores)), np.float32)

    def _why(self, window: Tokens, score: float, falls: Mapping[str, float]) -> tuple[str, ...]:
        """Returns in words what carried the score; modalities that could be missed carry nothing,
        unless all could."""
        carried = {m: fall for m, fall in falls.items() if fall > 0} or falls
        parts = occlusion.parts(window, carried)
        without = [window.replaced(p.modality, p.vector) for p in parts]
        lost = self._falls(score, without).tolist() if without else []
        return verdict_words.why(window, carried, list(zip(parts, lost, strict=True)))


def _shares(modalities: Sequence[str], falls: Floats) -> dict[str, float]:
    """Returns each modality's share of the falls of the log odds when one is removed."""
    total = float(falls.sum())
    if not total:
        return {}
    return {m: round(float(f) / total, 3) for m, f in zip(modalities, falls, strict=True)}


def _log_odds(score: Floats | float) -> Floats:
    clipped = np.clip(np.asarray(score, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)
