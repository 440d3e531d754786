"""Exports of D-FINE, RT-DETR and RF-DETR give the boxes of the networks they were made from.

The networks are small ones of random weights, made by the original packages. The pictures have the
size of the input: the originals and OpenCV scale pictures a little differently.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.vision.detector import Detector
from models.vision.families import coco_names
from pipeline.config.fields import OBJECTS

torch = pytest.importorskip("torch", reason="torch is not installed: exports are NOT tested here")
SIZE, LOW = 128, 0.05
Pixels = np.ndarray


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Tracing warns of constants; the packages warn of their own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return np.random.default_rng(5).integers(0, 255, (SIZE, SIZE, 3), np.uint8)


def rt_detr(kind: str) -> Any:
    """A small RT-DETR or D-FINE of random weights; every place of the picture is a query."""
    transformers = pytest.importorskip("transformers", reason="RT-DETR, D-FINE: NOT tested here")
    small = {"d_model": 32, "num_queries": 336, "decoder_layers": 2, "encoder_hidden_dim": 32,
             "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_attention_heads": 4,
             "encoder_attention_heads": 4, "decoder_in_channels": [32, 32, 32],
             "num_labels": len(OBJECTS)}  # fmt: skip
    torch.manual_seed(7)
    if kind == "RT-DETR":
        backbone = transformers.RTDetrResNetConfig(
            embedding_size=16, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
            layer_type="basic", out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.RTDetrConfig(
            backbone_config=backbone, encoder_in_channels=[16, 32, 32], **small
        )
        net = transformers.RTDetrForObjectDetection(config)
    else:
        backbone = transformers.HGNetV2Config(out_features=["stage2", "stage3", "stage4"])
        config = transformers.DFineConfig(backbone_config=backbone, **small)
        net = transformers.DFineForObjectDetection(config)
    for head in (*net.model.decoder.class_embed, net.model.enc_score_head):
        torch.nn.init.normal_(head.weight, std=0.2)
        torch.nn.init.normal_(head.bias, mean=-2.0)
    return net.eval()


class Logits(torch.nn.Module):
    """The outputs of Hugging Face's exports."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Any) -> tuple[Any, Any]:
        found = self.net(pixel_values)
        return found.logits, found.pred_boxes


class Deployed(Logits):
    """The outputs of the exports of D-FINE's and RT-DETR's own repositories (`deploy`)."""

    def forward(self, images: Any, orig_target_sizes: Any) -> tuple[Any, Any, Any]:  # type: ignore[override]
        found = self.net(images)
        scores, index = torch.topk(found.logits.sigmoid().flatten(1), 40, dim=-1)
        labels = index % len(OBJECTS)
        centres, sides = found.pred_boxes.split(2, dim=-1)
        corners = torch.cat([centres - sides / 2, centres + sides / 2], -1)
        corners = corners * orig_target_sizes.repeat(1, 2).unsqueeze(1)
        rows = (index // len(OBJECTS)).unsqueeze(-1).repeat(1, 1, 4)
        return labels, corners.gather(1, rows), scores


def export(net: Any, path: Path, inputs: dict[str, Any], outputs: list[str]) -> Detector:
    torch.onnx.export(
        net.eval(), tuple(inputs.values()), str(path), input_names=list(inputs),
        output_names=outputs, opset_version=17, dynamo=False,
    )  # fmt: skip
    return Detector(path, threads=1, min_score=LOW, max_boxes=40)


def as_tensor(picture: Pixels) -> Any:
    rgb = np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb)[None].float() / 255


def best(logits: Any, boxes: Any, names: Callable[[int], str]) -> list[tuple[Any, ...]]:
    """The 20 best of all queries and classes, by the formulas of the papers."""
    scores = logits[0].sigmoid().detach().numpy()
    rows = []
    places = np.unravel_index(np.argsort(-scores, None), scores.shape)
    for query, number in zip(*places, strict=True):
        x, y, width, height = boxes[0, query].detach().numpy()
        corners = np.clip([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 0, 1)
        if names(int(number)) and corners[2] > corners[0] and corners[3] > corners[1]:
            rows.append((names(int(number)), float(scores[query, number]), *corners))
        if len(rows) == 20:
            break
    return rows


def agree(detector: Detector, picture: Pixels, wanted: list[tuple[Any, ...]]) -> None:
    (found,) = detector([picture])
    assert len(found) >= len(wanted) == 20  # a tie at the end may be broken another way
    for row in wanted:
        assert any(
            box.label == row[0]
            and np.allclose([box.score, box.x1, box.y1, box.x2, box.y2], row[1:], atol=2e-3)
            for box in found
        ), row


@pytest.mark.parametrize("kind", ["RT-DETR", "D-FINE"])
def test_exports_of_hugging_face(kind: str, tmp_path: Path, picture: Pixels) -> None:
    net, pixels = rt_detr(kind), as_tensor(picture)
    detector = export(
        Logits(net), tmp_path / "net.onnx", {"pixel_values": pixels}, ["logits", "pred_boxes"]
    )
    assert detector.family == "detr"
    with torch.no_grad():
        found = net(pixels)
    agree(detector, picture, best(found.logits, found.pred_boxes, OBJECTS.__getitem__))


@pytest.mark.parametrize("kind", ["RT-DETR", "D-FINE"])
def test_exports_of_the_original_repositories(kind: str, tmp_path: Path, picture: Pixels) -> None:
    net, pixels = rt_detr(kind), as_tensor(picture)
    inputs = {"images": pixels, "orig_target_sizes": torch.tensor([[SIZE, SIZE]])}
    detector = export(Deployed(net), tmp_path / "net.onnx", inputs, ["labels", "boxes", "scores"])
    with torch.no_grad():
        found = net(pixels)
    wanted = best(found.logits, found.pred_boxes, OBJECTS.__getitem__)
    agree(detector, picture, wanted)
    wide = np.repeat(picture, 2, axis=1)  # a stretched picture has the same boxes, in fractions
    agree(detector, wide, wanted)


def test_an_export_of_rf_detr(tmp_path: Path, picture: Pixels) -> None:
    rfdetr = pytest.importorskip("rfdetr", reason="RF-DETR: NOT tested here")
    torch.manual_seed(7)
    made = rfdetr.RFDETRNano(pretrain_weights=None, resolution=SIZE, device="cpu")
    net = made.model.model.eval()
    heads = [part for name, part in net.named_modules() if "class_embed" in name]
    for head in (head for head in heads if isinstance(head, torch.nn.Linear)):
        torch.nn.init.normal_(head.weight, std=0.05)
        torch.nn.init.normal_(head.bias, mean=-2.0)
    mean, spread = (torch.tensor(row).view(3, 1, 1) for row in (made.means, made.stds))
    pixels = (as_tensor(picture) - mean) / spread
    with torch.no_grad():
        found = net(pixels)
    file = made.export(output_dir=str(tmp_path), verbose=False)
    detector = Detector(next(tmp_path.rglob("*.onnx")), threads=1, min_score=LOW, max_boxes=20)
    assert file is None or Path(file).exists()
    names = dict(enumerate(detector.labels))
    assert len(names) == len(OBJECTS)

    agree(
        detector,
        picture,
        best(found["pred_logits"], found["pred_boxes"], coco_names(91).__getitem__),
    )
