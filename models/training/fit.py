"""Trains and calibrates a fusion head on windows.

Strong labels (a window's own) use weighted cross-entropy. Weak labels (of an alert or a scene, not
shown by all of its windows) use multiple-instance learning: the mean of a bag's highest windows
must be right (Ilse et al. 2018; top-k pooling). Training windows are augmented: `augment.py`.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from models.fusion.labels import LABELS, MODALITIES
from models.fusion.learned_head import SCORE_DIGITS
from models.training.augment import Augmentation, AugmentedWindows
from models.training.batches import WindowArrays, only_modalities, to_scored
from models.training.metrics import Scored, Truths, average_precision, temperature
from models.training.networks import Ensemble
from models.training.thresholds import predicted_threshold, threshold_for
from pipeline.config.rule_kinds import WORD_MODALITIES
from pipeline.errors import ConfigError

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
BATCH, BAGS, TOP = 256, 16, 4  # windows, weak bags per step; the highest 1 in TOP of a bag count


class FitSettings(Augmentation, frozen=True, kw_only=True):
    """All settings that determine the result of a training, beside its data."""

    network: str = "concat"
    members: int = 4
    modalities: str = "VAT"  # the input modalities
    seed: int = 1
    epochs: int = 30
    patience: int = 6  # epochs without a better AP on the validation split
    rate: float = 1e-3
    decay: float = 0.05
    near: float = 0.0  # penalty on distance from the base, for fine-tuning (L2-SP: Li et al. 2018)
    device: str = "cpu"


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A trained network, calibrated on the validation split."""

    network: nn.Module
    settings: FitSettings
    temperature: float
    epochs: int
    ap: float  # on the validation split


def use_one_thread() -> None:
    """Limits this process to one torch thread.

    Networks this small gain nothing from a second core, and lose when other processes use it too.
    """
    torch.set_num_threads(1)


def fit(
    train: WindowArrays,
    val: WindowArrays,
    settings: FitSettings,
    *,
    folder: Path | None = None,
    base: nn.Module | None = None,
    told: Callable[[int, int, float], None] = lambda done, all_, ap: None,
) -> Trained:
    """Trains until the validation split stops improving; returns the best epoch.

    With `folder` every epoch writes a checkpoint there, from which a killed training continues, and
    a line in log.csv. Raises ConfigError when there is nothing to train or to validate with.
    """
    for name, windows in (("train", train), ("val", val)):
        if not (windows.anomaly == 1).any() or not (windows.anomaly == 0).any():
            msg = f"split {name}: there must be windows with an anomaly and windows without"
            raise ConfigError(msg)
    _usable(settings.device)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    network = Ensemble(settings.network, settings.members).to(settings.device)
    if base is not None:
        network.load_state_dict(base.state_dict())
    else:
        network.standardize(only_modalities(train.inputs, settings.modalities))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    run = _Run(network, optimizer, settings, train, base)
    run.began_with = _mark(network, settings, train, val)
    first = _resumed(folder, run) if folder else 0
    held = only_modalities(val.inputs, settings.modalities)
    for epoch in range(first, settings.epochs):
        if epoch - run.best_epoch > settings.patience:
            break
        loss = run.epoch(epoch)
        logits, _ = forward(network, held)
        ap = average_precision(*_answerable(val, logits))
        if ap >= run.best:  # of equals the last: on an easy split the first is hardly trained
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


def _usable(device: str) -> None:
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            msg = "it is neither cpu nor cuda"
            raise RuntimeError(msg)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the second: a torch without CUDA
        msg = f"device {device!r} cannot be used: {str(error)[:200]}"
        raise ConfigError(msg) from error


def _answerable(windows: WindowArrays, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns comparable truths and logits: one per window, and one per weak bag.

    For a weak bag it is the mean of its highest windows, since it is unknown which windows show it.
    """
    known = (windows.anomaly >= 0) & ~windows.weak
    tops = [np.sort(logits[bag])[-max(1, len(bag) // TOP) :].mean() for bag in windows.bags]
    return (
        np.concatenate([windows.anomaly[known], np.ones(len(tops), int)]),
        np.concatenate([logits[known], np.array(tops, logits.dtype)]),
    )


class _Run:
    """The state of one training, and its epochs."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: FitSettings,
        train: WindowArrays,
        base: nn.Module | None,
    ) -> None:
        self.network, self.optimizer, self.settings = network, optimizer, settings
        self.began_with = ""
        self.best, self.best_epoch = -1.0, 0
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._train = train
        self._disturbed = AugmentedWindows(
            train,
            only_modalities(train.inputs, settings.modalities),
            settings,
            {m: 1 / scale for m, scale in network.scales().items()},
        )
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
        """Trains one epoch and returns the mean loss."""
        chance = np.random.default_rng([self.settings.seed, number])
        torch.manual_seed(self.settings.seed * 10_000 + number)
        self.network.train()
        usable = np.flatnonzero((self._train.anomaly >= 0) & ~self._train.weak)
        order = chance.permutation(usable)
        size = min(BATCH, max(16, len(order) // 8))  # small steps if there are few windows
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
        """Lowers the learning rate by half a cosine over the epochs."""
        share = min(1.0, at / self.settings.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))

    def _strong(self, some: np.ndarray, chance: np.random.Generator) -> Tensor:
        """Returns the loss of strong labels; members learn separately and are averaged only
        in use."""
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
        given = self._disturbed.some(some, chance)
        return {k: torch.from_numpy(v).to(self.settings.device) for k, v in given.items()}

    def _penalty(self) -> Tensor:
        if not self._origin:
            return torch.zeros((), device=self.settings.device)
        pairs = [(v, self._origin[k]) for k, v in self.network.named_parameters()]
        return self.settings.near * torch.stack([((a - b) ** 2).sum() for a, b in pairs]).sum()


def forward(network: nn.Module, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[n]` and class probabilities `[n, labels]`, in one pass."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        logit, classes = network({k: torch.from_numpy(v).to(device) for k, v in inputs.items()})
    return logit.cpu().numpy(), classes.softmax(-1).cpu().numpy()


def scored(trained: Trained, windows: WindowArrays, modalities: str = "VAT") -> Scored:
    """Returns a trained network's scores for windows reduced to these modalities.

    As in the daemon (`LearnedHead.judge`), words never lower a score: a window with words is also
    judged without each kind of them, as long as other data is left.
    """
    given = "".join(letter for letter in modalities if letter in trained.settings.modalities)
    inputs = only_modalities(windows.inputs, given)
    there = inputs["state"][:, :, 0] > 0
    logit, classes = forward(trained.network, inputs)
    for gone in (*((word,) for word in WORD_MODALITIES), WORD_MODALITIES):
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
    score[~there.any(axis=1)] = 0  # these windows have no data
    return to_scored(windows, score, classes)


def _mark(network: nn.Module, settings: FitSettings, *given: WindowArrays) -> str:
    """Returns a hash of the training's start; a checkpoint is used only if its hash is equal."""
    digest = hashlib.sha256(msgspec.json.encode(settings))
    for windows in given:
        digest.update(msgspec.json.encode(windows.rows))
    for name, values in network.state_dict().items():
        digest.update(name.encode() + values.cpu().numpy().tobytes())
    return digest.hexdigest()


def _resumed(folder: Path, run: _Run) -> int:
    """Returns the next epoch; 0 without a checkpoint of the same data and settings."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        held = torch.load(path, weights_only=True, map_location=run.settings.device)
        known = held["began_with"] == run.began_with
    except Exception:  # a damaged file may raise any error
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


def chosen_threshold(trained: Trained, val: WindowArrays, truths: Truths, per_hour: float) -> float:
    """Returns the lowest threshold with at most `per_hour` false alarms.

    It is the higher of two: counted on the validation split, and predicted for unseen data.
    """
    said = scored(trained, val)
    both = (
        threshold_for(said, truths, per_hour),
        predicted_threshold(said, truths, per_hour),
    )
    return round(max(both), SCORE_DIGITS)
