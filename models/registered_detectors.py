"""The registered detectors: each is one ONNX file.

The sizes and hashes of the files that were not run here are those that several projects, which do
not know each other, publish for the same address. A file whose bytes are others is refused.
"""

from __future__ import annotations

from models.weight_files import File, Version, Weights

_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"
_HUB = "https://huggingface.co/onnx-community/"
_NOT_RUN = "the file was not run with Fusewatch: try it before you rely on it"


def _hub(repository: str, commit: str) -> str:
    return f"{_HUB}{repository}/resolve/{commit}/onnx/model.onnx"


DETECTORS = (
    Weights(
        "yolox_nano",
        "Apache-2.0",
        "objects in pictures: YOLOX-Nano, COCO, 416x416 (Megvii)",
        (
            File(
                "yolox_nano.onnx",
                3_660_092,
                "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14",
                "https://raw.githubusercontent.com/Bigisland1729/object-detection-models/"
                "6e770c5ef34fa42aaa2521eb7d0d9ec2bb5f40a3/yolox_nano.onnx",
            ),
        ),
        f"a copy; Megvii's own release, {_YOLOX}yolox_nano.onnx, has other bytes (3659407, SHA-256 "
        "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d), which were not run "
        "here",
        ap=0.258,
    ),
    Weights(
        "nanodet_plus_m_416",
        "Apache-2.0",
        "objects in pictures: NanoDet-Plus-m, 416x416, 80 classes of COCO (RangiLyu)",
        (
            File(
                "nanodet_plus_m_416.onnx",
                4_812_616,
                "10a4ac9de27d6f456d7a290c1bc3fd46ec4f0ac0746f39cfff2b1b655e66bd5d",
                other=Version(
                    "https://github.com/RangiLyu/nanodet/releases/download/v1.0.0-alpha-1/"
                    "nanodet-plus-m_416.onnx",
                    0,
                    "59d2f166088889c902f523bf08079391993491324f0d84847e3c4016a8f7cc3d",
                ),
            ),
        ),
        "measured here with another export of the same network, whose bytes are not offered for "
        "download; the official export is downloaded, and counts as the same",
        optional=True,
        ap=0.304,
    ),
    Weights(
        "yolox_tiny",
        "Apache-2.0",
        "objects in pictures: YOLOX-Tiny, COCO, 416x416 (Megvii)",
        (
            File(
                "yolox_tiny.onnx",
                20_219_662,
                "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
                _YOLOX + "yolox_tiny.onnx",
            ),
        ),
        _NOT_RUN,
        optional=True,
        ap=0.328,
    ),
    Weights(
        "yolox_s",
        "Apache-2.0",
        "objects in pictures: YOLOX-S, COCO, 640x640 (Megvii)",
        (
            File(
                "yolox_s.onnx",
                35_858_002,
                "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
                _YOLOX + "yolox_s.onnx",
            ),
        ),
        _NOT_RUN,
        optional=True,
        ap=0.405,
    ),
    Weights(
        "dfine_n",
        "Apache-2.0",
        "objects in pictures: D-FINE-N, COCO, 640x640 (Peng et al.)",
        (
            File(
                "dfine_n.onnx",
                15_258_358,
                "0f684f409618ee8a822410e754a29caa817d1aa16283ce89cad936d0a48e2f35",
                _hub("dfine_n_coco-ONNX", "380d2839c327efaf65dd0fe0c2c10ab7fadd5473"),
            ),
        ),
        f"{_NOT_RUN}. The authors offer no ONNX file: this is an export by Hugging Face's ONNX "
        "Community",
        optional=True,
        side=640,
        ap=0.428,
    ),
    Weights(
        "dfine_s",
        "Apache-2.0",
        "objects in pictures: D-FINE-S, COCO, 640x640 (Peng et al.)",
        (
            File(
                "dfine_s.onnx",
                41_535_197,
                "cd8a49a945feda6d28c6304ae8ae85c2759ba1d78a5a83a22c5ce8db82ef7238",
                _hub("dfine_s_coco-ONNX", "a3cf03147a9b86c78475139115c8ac142577352d"),
            ),
        ),
        f"{_NOT_RUN}. The authors offer no ONNX file: this is an export by Hugging Face's ONNX "
        "Community",
        optional=True,
        side=640,
        ap=0.485,
    ),
    Weights(
        "rtdetr_r18",
        "Apache-2.0",
        "objects in pictures: RT-DETR-R18, COCO, 640x640 (Zhao et al.)",
        (
            File(
                "rtdetr_r18.onnx",
                82_572_357,
                "11843b02455cc24009aed24d4c40db721b1093be5ccd6bbe7b9c441abb1d0558",
                _hub("rtdetr_r18vd", "ec641af14c7cc8f93cd641a1458f498abbbbb533"),
            ),
        ),
        f"{_NOT_RUN}. The authors offer no ONNX file: this is an export by Hugging Face's ONNX "
        "Community",
        optional=True,
        side=640,
        ap=0.465,
    ),
    Weights(
        "rfdetr_nano",
        "Apache-2.0",
        "objects in pictures: RF-DETR-Nano, COCO, 384x384 (Roboflow)",
        (
            File(
                "rfdetr_nano.onnx",
                108_074_865,
                "9cbac6b11ce34a03034e4d5a24cfac5f18632fd6761d1311dd640232088d7fee",
                _hub("rfdetr_nano-ONNX", "eae21cee0687a91bcf9fa071605c48d7705d2d91"),
            ),
        ),
        f"{_NOT_RUN}. Roboflow's package exports ONNX, and offers no file: this is an export by "
        "Hugging Face's ONNX Community",
        optional=True,
        side=384,
        ap=0.484,
    ),
)
