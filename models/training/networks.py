"""The two networks, with one interface: from the tokens of a window to an anomaly and its class.

`Concat` joins the modalities and is the baseline. `Attention` uses a few bottleneck tokens that
gather from all modalities (Nagrani et al., Attention Bottlenecks for Multimodal Fusion, NeurIPS
2021), with gated residuals and a learned token for a missing modality. Both use the same small
linear projection for sound. Both have well under a million parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.fusion.features import KNOWN, SIZES, STATES
from models.fusion.labels import LABELS, MODALITIES

WIDTH, BOTTLENECKS, LAYERS, HEADS = 48, 4, 2, 4
DROPOUT = 0.2
GRAIN = 0.2  # least standard deviation of a YAMNet class (log odds / 8) in standardization
THIN = 0.25  # share of an embedding dropped in training, so that no verdict depends on few numbers
QUALITY_SIZES = {
    "vision": KNOWN,
    "sound": 6,
    "speech": 3,
    "report": 2,
}  # without embeddings and behaviours


class ModalityEncoders(nn.Module):
    """Encodes each modality as a token of WIDTH with its state; a missing one is a learned token.

    Where no behaviours are known, the token of vision is the same as without their weights.
    """

    def __init__(self) -> None:
        super().__init__()
        words = nn.Linear(
            SIZES["report"] - QUALITY_SIZES["report"], WIDTH
        )  # speech and reports share it
        self.embeds = nn.ModuleDict(
            {
                "sound": nn.Linear(SIZES["sound"] - QUALITY_SIZES["sound"], WIDTH),
                "words": words,
                "behaviours": nn.Linear(SIZES["vision"] - KNOWN, WIDTH, bias=False),
            }
        )
        # A feature that is constant in training keeps weight 0; a random weight would add noise.
        nn.init.zeros_(self.embeds["sound"].weight)
        nn.init.zeros_(self.embeds["behaviours"].weight)
        self.quality = nn.ModuleDict({m: nn.Linear(QUALITY_SIZES[m], WIDTH) for m in MODALITIES})
        self.hidden = nn.ModuleDict(
            {m: nn.Sequential(nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH))
             for m in MODALITIES}
        )  # fmt: skip
        self.thin = nn.Dropout(THIN)
        self.missing = nn.Parameter(torch.zeros(len(MODALITIES), WIDTH))
        self.state = nn.Parameter(torch.zeros(len(MODALITIES), len(STATES), WIDTH))
        nn.init.normal_(self.missing, std=0.02)
        nn.init.normal_(self.state, std=0.02)
        for modality in MODALITIES:
            self.register_buffer(f"mean_{modality}", torch.zeros(SIZES[modality]))
            self.register_buffer(f"scale_{modality}", torch.ones(SIZES[modality]))

    def standardize(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Takes means and deviations from training windows; features that hardly vary stay as
        is."""
        for column, modality in enumerate(MODALITIES):
            there = inputs[modality][inputs["state"][:, column, 0] > 0]
            if len(there) < 2:
                continue
            mean, spread = there.mean(axis=0), there.std(axis=0)
            if modality == "vision":
                known = there[there[:, KNOWN] > 0, KNOWN:]
                mean[KNOWN:] = known.mean(axis=0) if len(known) else 0
                spread[KNOWN:] = known.std(axis=0) if len(known) else 0
            if modality == "sound":  # most classes never occur: their noise is not evidence
                classes = SIZES["sound"] - QUALITY_SIZES["sound"]
                spread[:classes] = np.maximum(spread[:classes], GRAIN)
            scale = np.where(spread > 0.01, 1 / np.maximum(spread, 0.01), 1.0)
            self.get_buffer(f"mean_{modality}").copy_(torch.from_numpy(mean))
            self.get_buffer(f"scale_{modality}").copy_(torch.from_numpy(scale))

    def scales(self) -> dict[str, np.ndarray]:
        """Returns the scale factor of each feature, by modality."""
        return {m: self.get_buffer(f"scale_{m}").cpu().numpy() for m in MODALITIES}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns tokens, `[n, 4, WIDTH]`."""
        state = inputs["state"]
        made = []
        for column, modality in enumerate(MODALITIES):
            scale = self.get_buffer(f"scale_{modality}")
            given = (inputs[modality] - self.get_buffer(f"mean_{modality}")) * scale
            given = given.clamp(-6, 6)
            if modality == "vision":
                known = (inputs["vision"][:, KNOWN : KNOWN + 1] > 0.5).to(given.dtype)
                token = self.quality["vision"](given[:, :KNOWN])
                token = token + known * self.embeds["behaviours"](self.thin(given[:, KNOWN:]))
            else:
                numbers = SIZES[modality] - QUALITY_SIZES[modality]
                token = self.quality[modality](given[:, numbers:])
                kind = "sound" if modality == "sound" else "words"
                token = token + self.embeds[kind](self.thin(given[:, :numbers]))
            token = token + self.hidden[modality](token)
            there = state[:, column, 0:1]
            token = there * token + (1 - there) * self.missing[column]
            made.append(token + state[:, column] @ self.state[column])
        return torch.stack(made, dim=1)


class Concat(nn.Module):
    """Concatenates the tokens and runs an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = ModalityEncoders()
        self.body = nn.Sequential(
            nn.Linear(len(MODALITIES) * WIDTH, 2 * WIDTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
        )
        self.out = nn.Linear(2 * WIDTH, 1 + len(LABELS))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits of an anomaly, `[n]`, and of its class, `[n, labels]`."""
        out = self.out(self.body(self.encoders(inputs).flatten(1)))
        return out[:, 0], out[:, 1:]


class _Layer(nn.Module):
    """Bottlenecks attend to the tokens; tokens attend back through a gate that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gather, self.give = _Across(), _Across()
        self.think = nn.Sequential(
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 2 * WIDTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(2 * WIDTH, WIDTH),
        )
        self.gate = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, tokens: Tensor, narrow: Tensor) -> tuple[Tensor, Tensor]:
        narrow = narrow + self.gather(narrow, torch.cat([tokens, narrow], dim=1))
        narrow = narrow + self.think(narrow)
        return tokens + torch.tanh(self.gate) * self.give(tokens, narrow), narrow


class _Across(nn.Module):
    """Cross-attention, written out so that it exports to plain ONNX operators."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_from = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.ask = nn.Linear(WIDTH, WIDTH)
        self.answer = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        depth = WIDTH // HEADS
        key, value = self.answer(self.norm_from(theirs)).chunk(2, dim=-1)
        asked = self.ask(self.norm(ours)).unflatten(-1, (HEADS, depth)).transpose(1, 2)
        key = key.unflatten(-1, (HEADS, depth)).transpose(1, 2)
        value = value.unflatten(-1, (HEADS, depth)).transpose(1, 2)
        weights = (asked @ key.transpose(-1, -2) * depth**-0.5).softmax(dim=-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Bottleneck tokens over the modalities; the output layer reads bottlenecks and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = ModalityEncoders()
        self.narrow = nn.Parameter(torch.randn(BOTTLENECKS, WIDTH) * 0.02)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.out = nn.Sequential(
            nn.LayerNorm((BOTTLENECKS + len(MODALITIES)) * WIDTH),
            nn.Dropout(DROPOUT),
            nn.Linear((BOTTLENECKS + len(MODALITIES)) * WIDTH, 1 + len(LABELS)),
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits of an anomaly, `[n]`, and of its class, `[n, labels]`."""
        tokens = self.encoders(inputs)
        narrow = self.narrow.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            tokens, narrow = layer(tokens, narrow)
        out = self.out(torch.cat([narrow, tokens], dim=1).flatten(1))
        return out[:, 0], out[:, 1:]


NETWORKS: Mapping[str, type[Concat] | type[Attention]] = {
    "concat": Concat,
    "attention": Attention,
}


class Ensemble(nn.Module):
    """Several networks of one kind with separate initialization, and the mean of their logits.

    Lakshminarayanan et al., Deep Ensembles, 2017: with few clips this helps more than depth.
    """

    def __init__(self, kind: str, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(NETWORKS[kind]() for _ in range(members))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits of an anomaly, `[n]`, and of its class, `[n, labels]`."""
        answers = [member(inputs) for member in self.members]
        logits, classes = zip(*answers, strict=True)
        return torch.stack(logits).mean(0), torch.stack(classes).mean(0)

    def standardize(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Calls `ModalityEncoders.standardize` of each member."""
        for member in self.members:
            member.encoders.standardize(inputs)

    def scales(self) -> dict[str, np.ndarray]:
        """Returns `ModalityEncoders.scales`; all members have the same."""
        scales: dict[str, np.ndarray] = self.members[0].encoders.scales()
        return scales


class Calibrated(nn.Module):
    """The exported network: probabilities, with the temperature inside (Guo et al. 2017)."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(
        self, vision: Tensor, sound: Tensor, speech: Tensor, report: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns P(anomaly), `[n]`, and P(label | anomaly), `[n, labels]`."""
        given = (vision, sound, speech, report, state)
        inputs = dict(zip((*MODALITIES, "state"), given, strict=True))
        logit, classes = self.network(inputs)
        return torch.sigmoid(logit / self.temperature), classes.softmax(dim=-1)
