"""Training a fusion head: from rows to a network, and from a network to a head that is shipped.

Strong labels (a window's own) by weighted cross-entropy; weak ones (an alert's or a scene's, of
which not every window shows it) by multiple-instance learning: the mean of a bag's highest windows
must be right (Ilse et al. 2018; top-k pooling). Modalities are dropped at random, so that the head
stays useful when one is missing (Neverova et al., ModDrop, 2016), and sound is now and then that of
the window before or after, so that clocks may differ by a second.
"""

from __future__ import annotations

import csv
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.fusion.data import Row
from models.fusion.features import SCHEMA, arrays
from models.fusion.labels import LABELS, MODALITIES
from models.fusion.learned import CARD, DIGITS, MODEL, WEIGHTS, WORDS, Card
from models.fusion.metrics import (
    Scored,
    Truths,
    average_precision,
    foretold_threshold,
    temperature,
    threshold_for,
)
from models.fusion.nets import Calibrated, Ensemble
from models.yamnet_scores import CLASSES, GRAVE
from pipeline.errors import ConfigError, WeightsError

LETTERS: Mapping[str, tuple[str, ...]] = {
    "V": ("vision",),
    "A": ("sound",),
    "T": ("speech", "report"),
}
CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
ORDINARY = np.array([number for number in range(CLASSES) if number not in GRAVE])
MOST_CROWD = 4  # classes that are added to a window
BATCH, BAGS, TOP = 256, 16, 4  # windows and weak bags a step; a bag's highest 1 in TOP count


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what a training gives, beside its data."""

    network: str = "concat"
    members: int = 4
    modalities: str = "VAT"  # what it is given
    seed: int = 1
    epochs: int = 30
    patience: int = 6  # epochs without a better AP on the validation split
    rate: float = 1e-3
    decay: float = 0.05
    drop: float = 0.2  # chance of each modality to be dropped from a window
    swap: float = 0.3  # chance of sound to be a neighbour's
    crowd: float = 0.5  # chance of ordinary classes to be heard in a window without an anomaly
    blur: float = 0.1  # standard deviation of noise on standardized numbers
    near: float = 0.0  # pull towards the base, for training on (L2-SP: Li et al. 2018)
    device: str = "cpu"


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A network that was trained, calibrated on the validation split."""

    network: nn.Module
    settings: Settings
    temperature: float
    epochs: int
    ap: float  # on the validation split


def single() -> None:
    """This process trains on one core: networks so small gain nothing from a second one, and where
    others work too they lose by it."""
    torch.set_num_threads(1)


class Windows:
    """Rows as arrays; `neighbours` are the places of the windows a hop before and after."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.inputs = arrays([row.tokens() for row in rows])
        answers = [row.answer() for row in rows]
        self.anomaly = np.array([-1 if a is None else int(bool(a)) for a in answers])
        self.label = np.array([LABELS.index(a) if a else -1 for a in answers])
        self.weak = np.array([row.weak for row in rows], bool)
        place = {(row.scene, row.start): i for i, row in enumerate(rows)}
        hop = _hop(rows)
        self.neighbours = np.array(
            [
                [place.get((row.scene, row.start + step), i) for step in (-hop, hop)]
                for i, row in enumerate(rows)
            ]
        ).reshape(-1, 2)
        bags: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            if row.weak:
                bags.setdefault(row.scene, []).append(i)
        self.bags = list(bags.values())


def _hop(rows: Sequence[Row]) -> int:
    starts: dict[str, list[int]] = {}
    for row in rows:
        starts.setdefault(row.scene, []).append(row.start)
    steps = [b - a for s in starts.values() for a, b in pairwise(sorted(s))]
    return min((step for step in steps if step > 0), default=1)


def silenced(inputs: Mapping[str, np.ndarray], modalities: str) -> dict[str, np.ndarray]:
    """The inputs with only these of V, A and T; the others are lost."""
    kept = {m for letter in modalities for m in LETTERS[letter]}
    out = {name: values.copy() for name, values in inputs.items()}
    for column, modality in enumerate(MODALITIES):
        if modality not in kept:
            out[modality][:] = 0
            out["state"][:, column] = (0, 0, 1)
    return out


def fit(
    train: Windows,
    val: Windows,
    settings: Settings,
    *,
    folder: Path | None = None,
    base: nn.Module | None = None,
    told: Callable[[int, int, float], None] = lambda done, all_, ap: None,
) -> Trained:
    """Train until the validation split gets no better; the best epoch counts.

    With `folder` every epoch leaves a checkpoint there, from which a killed training goes on, and a
    line in log.csv. Raises ConfigError where there is nothing to learn or to validate with.
    """
    for name, windows in (("train", train), ("val", val)):
        if not (windows.anomaly == 1).any() or not (windows.anomaly == 0).any():
            msg = f"split {name}: there must be windows with an anomaly and windows without"
            raise ConfigError(msg)
    try:
        torch.empty(0, device=settings.device)
    except (RuntimeError, AssertionError) as error:  # the second: a torch without CUDA
        msg = f"device {settings.device!r} cannot be used: {str(error)[:200]}"
        raise ConfigError(msg) from error
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    network = Ensemble(settings.network, settings.members).to(settings.device)
    if base is not None:
        network.load_state_dict(base.state_dict())
    else:
        network.standardize(silenced(train.inputs, settings.modalities))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    run = _Run(network, optimizer, settings, train, base)
    run.began_with = _mark(network, settings, train, val)
    first = _resumed(folder, run) if folder else 0
    held = silenced(val.inputs, settings.modalities)
    for epoch in range(first, settings.epochs):
        if epoch - run.best_epoch > settings.patience:
            break
        loss = run.epoch(epoch)
        logits, _ = forward(network, held)
        ap = average_precision(*_answerable(val, logits))
        if ap >= run.best:  # of equals the last: in an easy split the first is hardly trained
            run.best, run.best_epoch = ap, epoch
            run.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        if folder:
            _keep(folder, run, epoch, loss, ap)
        told(epoch + 1, settings.epochs, ap)
    network.load_state_dict(run.state)
    network.eval()
    logits, _ = forward(network, held)
    truth, answer = _answerable(val, logits)
    warmth = temperature(answer.astype(np.float64), truth)
    return Trained(
        network=network,
        settings=settings,
        temperature=float(np.clip(warmth, 0.5, 10)),
        epochs=run.best_epoch + 1,
        ap=run.best,
    )


def _answerable(windows: Windows, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truths and answers that may be compared: of each window, but of a weak bag one in all, the
    mean of its highest, for nobody said which of its windows show it."""
    known = (windows.anomaly >= 0) & ~windows.weak
    tops = [np.sort(logits[bag])[-max(1, len(bag) // TOP) :].mean() for bag in windows.bags]
    return (
        np.concatenate([windows.anomaly[known], np.ones(len(tops), int)]),
        np.concatenate([logits[known], np.array(tops, logits.dtype)]),
    )


class _Run:
    """One training: what it has come to, and how an epoch is done."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        train: Windows,
        base: nn.Module | None,
    ) -> None:
        self.network, self.optimizer, self.settings = network, optimizer, settings
        self.began_with = ""
        self.best, self.best_epoch = -1.0, 0
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._train = train
        self._inputs = silenced(train.inputs, settings.modalities)
        self._spread = {m: 1 / scale for m, scale in network.scales().items()}
        self._origin = (
            {k: v.detach().clone().to(settings.device) for k, v in base.named_parameters()}
            if base is not None
            else {}
        )
        positive = (train.anomaly == 1) & ~train.weak
        negative = train.anomaly == 0
        weight = np.clip(negative.sum() / max(positive.sum(), 1), 1, 5)
        self._positive = torch.tensor(float(weight), device=settings.device)
        known = train.label[train.label >= 0]
        counts = np.bincount(known, minlength=len(LABELS))
        shares = np.where(counts > 0, (counts.max() / np.maximum(counts, 1)) ** 0.5, 0)
        self._classes = torch.tensor(shares, dtype=torch.float32, device=settings.device)

    def epoch(self, number: int) -> float:
        """The mean loss of an epoch."""
        chance = np.random.default_rng([self.settings.seed, number])
        torch.manual_seed(self.settings.seed * 10_000 + number)
        self.network.train()
        usable = np.flatnonzero((self._train.anomaly >= 0) & ~self._train.weak)
        order = chance.permutation(usable)
        size = min(BATCH, max(16, len(order) // 8))  # few windows are looked at in small steps
        steps = max(1, -(-len(order) // size))
        total = 0.0
        for step in range(steps):
            loss = self._penalty()
            some = order[step * size : (step + 1) * size]
            if len(some):
                loss = loss + self._strong(some, chance)
            if self._train.bags:
                loss = loss + self._weak(chance)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self._cool(number + step / steps)
            self.optimizer.step()
            total += float(loss.detach())
        self.network.eval()
        return total / steps

    def _cool(self, at: float) -> None:
        """The rate falls by half a cosine over the epochs."""
        share = min(1.0, at / self.settings.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))

    def _strong(self, some: np.ndarray, chance: np.random.Generator) -> Tensor:
        """Each member learns for itself; they meet only where they are asked."""
        wanted = torch.from_numpy(self._train.anomaly[some]).float().to(self.settings.device)
        label = torch.from_numpy(self._train.label[some]).to(self.settings.device)
        given = self._given(some, chance)
        losses = []
        for member in self.network.members:
            logit, classes = member(given)
            loss = nn.functional.binary_cross_entropy_with_logits(
                logit, wanted, pos_weight=self._positive
            )
            if bool((label >= 0).any()):
                loss = loss + nn.functional.cross_entropy(
                    classes, label, weight=self._classes, ignore_index=-1, label_smoothing=0.05
                )
            losses.append(loss)
        return torch.stack(losses).sum()

    def _weak(self, chance: np.random.Generator) -> Tensor:
        chosen = chance.permutation(len(self._train.bags))[:BAGS]
        bags = [self._train.bags[i] for i in chosen]
        places = np.concatenate([np.array(bag) for bag in bags])
        given = self._given(places, chance)
        label = torch.from_numpy(self._train.label[places]).to(self.settings.device)
        losses = []
        for member in self.network.members:
            logit, classes = member(given)
            first = 0
            for bag in bags:
                mine = slice(first, first + len(bag))
                first += len(bag)
                top = logit[mine].topk(max(1, len(bag) // TOP))
                one, said = torch.ones_like(top.values), classes[mine][top.indices]
                losses.append(nn.functional.binary_cross_entropy_with_logits(top.values, one))
                losses.append(nn.functional.cross_entropy(said, label[mine][top.indices]))
        return torch.stack(losses).sum() / len(chosen)

    def _given(self, some: np.ndarray, chance: np.random.Generator) -> dict[str, Tensor]:
        """Windows as the network meets them in training: some of it missing, late or noisy."""
        settings = self.settings
        given = {name: values[some].copy() for name, values in self._inputs.items()}
        late = chance.random(len(some)) < settings.swap
        other = self._train.neighbours[some, chance.integers(0, 2, len(some))]
        sound = MODALITIES.index("sound")
        given["sound"][late] = self._inputs["sound"][other[late]]
        given["state"][late, sound] = self._inputs["state"][other[late], sound]
        self._crowded(given, self._train.anomaly[some] == 0, chance)
        alone = chance.random(len(some)) < settings.drop / 2
        only = chance.integers(0, len(LETTERS), len(some))
        for number, modalities in enumerate(LETTERS.values()):
            gone = chance.random(len(some)) < settings.drop
            gone = np.where(alone, only != number, gone)
            for modality in modalities:
                column = MODALITIES.index(modality)
                given[modality][gone] = 0
                given["state"][gone, column] = (0, 0, 1)
        for column, modality in enumerate(MODALITIES):
            there = np.flatnonzero(given["state"][:, column, 0])
            shape = len(there), given[modality].shape[1]
            noise = chance.standard_normal(shape, np.float32)
            given[modality][there] += noise * (settings.blur * self._spread[modality])
        return {k: torch.from_numpy(v).to(settings.device) for k, v in given.items()}

    def _crowded(
        self, given: Mapping[str, np.ndarray], ordinary: np.ndarray, chance: np.random.Generator
    ) -> None:
        """Ordinary classes are heard in windows in which nothing happens, whatever our few clips
        hold: else a cheer is evidence, because one siren was recorded in a crowd."""
        column = MODALITIES.index("sound")
        rows = np.flatnonzero(ordinary & (given["state"][:, column, 0] > 0))
        rows = rows[chance.random(len(rows)) < self.settings.crowd]
        for _ in range(MOST_CROWD):
            some = rows[chance.random(len(rows)) < 0.5]
            which = ORDINARY[chance.integers(0, len(ORDINARY), len(some))]
            heard = chance.uniform(-0.5, 0.3, len(some))  # log odds / 8: a score of 0.02 to 0.92
            given["sound"][some, which] = np.maximum(given["sound"][some, which], heard)

    def _penalty(self) -> Tensor:
        if not self._origin:
            return torch.zeros((), device=self.settings.device)
        pairs = [(v, self._origin[k]) for k, v in self.network.named_parameters()]
        return self.settings.near * torch.stack([((a - b) ** 2).sum() for a, b in pairs]).sum()


def forward(network: nn.Module, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[n]` and class probabilities `[n, labels]`, in one go."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        logit, classes = network({k: torch.from_numpy(v).to(device) for k, v in inputs.items()})
    return logit.cpu().numpy(), classes.softmax(-1).cpu().numpy()


def scored(trained: Trained, windows: Windows, modalities: str = "VAT") -> Scored:
    """What a trained network says of windows of which it gets only these modalities.

    As in the daemon (`learned.Learned.judge`), words never lower a score: where there are some, the
    window is judged without each kind of them too, as long as anything else is left of it.
    """
    given = "".join(letter for letter in modalities if letter in trained.settings.modalities)
    inputs = silenced(windows.inputs, given)
    there = inputs["state"][:, :, 0] > 0
    logit, classes = forward(trained.network, inputs)
    for gone in (*((word,) for word in WORDS), WORDS):
        columns = [MODALITIES.index(modality) for modality in gone]
        left = np.delete(there, columns, axis=1).any(axis=1)
        places = np.flatnonzero(there[:, columns].all(axis=1) & left)
        if not len(places):
            continue
        part = {name: values[places].copy() for name, values in inputs.items()}
        for modality, column in zip(gone, columns, strict=True):
            part[modality][:] = 0
            part["state"][:, column] = (0, 0, 1)
        other, others = forward(trained.network, part)
        higher = other > logit[places]
        logit[places[higher]], classes[places[higher]] = other[higher], others[higher]
    score = 1 / (1 + np.exp(-logit / trained.temperature))
    score[~there.any(axis=1)] = 0  # nothing is known of these windows
    return answers(windows, score, classes)


def answers(windows: Windows, score: np.ndarray, classes: np.ndarray) -> Scored:
    """Scores with the windows that they are of."""
    rows = windows.rows
    return Scored(
        scene=[row.scene for row in rows],
        start_ns=np.array([row.start for row in rows]),
        end_ns=np.array([row.end for row in rows]),
        score=np.round(score.astype(np.float64), DIGITS),
        classes=classes.astype(np.float64),
        anomaly=windows.anomaly,
        label=windows.label,
        kind=[row.site for row in rows],
    )


def _mark(network: nn.Module, settings: Settings, *given: Windows) -> str:
    """What a training begins with: only one that began with the same may be gone on with."""
    digest = hashlib.sha256(msgspec.json.encode(settings))
    for windows in given:
        digest.update(msgspec.json.encode(windows.rows))
    for name, values in network.state_dict().items():
        digest.update(name.encode() + values.cpu().numpy().tobytes())
    return digest.hexdigest()


def _resumed(folder: Path, run: _Run) -> int:
    """The epoch to go on with; 0 where nothing was begun with the same data and settings."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        held = torch.load(path, weights_only=True, map_location=run.settings.device)
        known = held["began_with"] == run.began_with
    except Exception:  # a damaged file has as many errors as it has places to be damaged
        known = False
    if not known:
        return 0
    run.network.load_state_dict(held["network"])
    run.optimizer.load_state_dict(held["optimizer"])
    run.best, run.best_epoch, run.state = held["best"], held["best_epoch"], held["state"]
    return int(held["epoch"]) + 1


def _keep(folder: Path, run: _Run, epoch: int, loss: float, ap: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{CHECKPOINT}.part"
    torch.save(
        {
            "began_with": run.began_with,
            "network": run.network.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "best": run.best,
            "best_epoch": run.best_epoch,
            "state": run.state,
            "epoch": epoch,
        },
        partial,
    )
    partial.replace(folder / CHECKPOINT)
    with (folder / LOG).open("w" if epoch == 0 else "a", newline="") as out:
        rows = csv.writer(out)
        if epoch == 0:
            rows.writerow(["epoch", "loss", "val_ap"])
        rows.writerow([epoch + 1, f"{loss:.5f}", f"{ap:.5f}"])


def chosen_threshold(trained: Trained, val: Windows, truths: Truths, per_hour: float) -> float:
    """The lowest threshold with at most `per_hour` false alarms, counted on the validation split
    and foretold for what nobody has heard yet: the higher of both."""
    answers = scored(trained, val)
    both = threshold_for(answers, truths, per_hour), foretold_threshold(answers, truths, per_hour)
    return round(max(both), DIGITS)


def ship(
    folder: Path,
    trained: Trained,
    *,
    name: str,
    version: str,
    threshold: float,
    per_hour: float,
    config: str,
    about: Mapping[str, object],
) -> Card:
    """Write head.onnx, head.safetensors and the card; raises WeightsError over 3 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    network = trained.network.cpu()
    _export(Calibrated(network, trained.temperature).eval(), folder / MODEL)
    save_file(network.state_dict(), folder / WEIGHTS)
    model = (folder / MODEL).read_bytes()
    if len(model) > 3_000_000:
        msg = f"{folder / MODEL} has {len(model)} bytes: a head has 3 MB at most"
        raise WeightsError(msg)
    card = Card(
        name=name,
        version=version,
        schema=SCHEMA,
        labels=LABELS,
        network=trained.settings.network,
        members=trained.settings.members,
        threshold=threshold,
        per_hour=per_hour,
        temperature=round(trained.temperature, 6),
        sha256=hashlib.sha256(model).hexdigest(),
        config=config,
        about=dict(about),
    )
    text = msgspec.json.format(msgspec.json.encode(card), indent=2)
    (folder / CARD).write_bytes(text + b"\n")
    return card


def _export(network: nn.Module, file: Path) -> None:
    """By the exporter that needs no further package; its batch is as long as it is asked."""
    inputs = arrays([])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is to go; versions are locked
        torch.onnx.export(
            network,
            tuple(torch.zeros((2, *values.shape[1:])) for values in inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=["score", "classes"],
            dynamic_axes={name: {0: "n"} for name in (*inputs, "score", "classes")},
            opset_version=17,
            dynamo=False,
        )


def base_of(folder: Path) -> tuple[nn.Module, Card]:
    """The network of a shipped head, to train on from; raises WeightsError."""
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
        if card.schema != SCHEMA:
            msg = f"features {card.schema}, and this Fusewatch makes {SCHEMA}"
            raise RuntimeError(msg)
        network = Ensemble(card.network, card.members)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, msgspec.MsgspecError, RuntimeError, SafetensorError) as error:
        msg = f"{folder} holds no head to train on from: {str(error)[:200]}"
        raise WeightsError(msg) from error
    return network, card
