"""The kinds of fields that settings have, the words that some may hold, and their base."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

# may hold a secret
HIDDEN = frozenset({"source", "streams", "url", "secret", "token", "password"})
NAME = "up to 40 small letters, digits, `-` and `_`, and begin with a letter or digit"
_LABEL = "up to 40 small letters, digits, spaces, `-` and `_`, and begin with a letter or digit"

Fraction = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z", description=NAME)]
OwnName = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,39})?\Z", description=NAME)]
Label = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_ -]{0,39}\Z", description=_LABEL)]
# Bytes of one record. An alert may carry 20 lines of transcript, of 16 kB each.
MaxMessage = Annotated[int, Meta(ge=750_000, le=2**26)]
Partitioned = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Text = Annotated[str, Meta(min_length=1, max_length=200, description="1 to 200 characters")]

SOUNDS = ("gunshot", "explosion", "glass", "scream", "siren")
BEHAVIOURS = ("fall", "lying", "fight", "running", "abandoned-object", "vehicle-at-rest")
BEHAVIOUR_SYNONYMS = {  # other words for behaviours -> ours
    **dict.fromkeys(("falls", "falling", "fallen", "person down"), "fall"),
    **dict.fromkeys(("lying still", "lying-still", "lying down", "on the floor"), "lying"),
    **dict.fromkeys(("run", "runs", "runner"), "running"),
    **dict.fromkeys(("abandoned", "abandoned object", "left object", "bag"), "abandoned-object"),
    **dict.fromkeys(("vehicle at rest", "parked", "parking", "car at rest"), "vehicle-at-rest"),
    **dict.fromkeys(("fights", "fighting", "violence", "assault", "brawl"), "fight"),
}
CHOICE_SYNONYMS = {  # other words for one of a few -> ours
    **dict.fromkeys(("nvdec", "nvidia", "cuvid", "nvenc"), "cuda"),
    **dict.fromkeys(("quicksync", "quick sync", "intel"), "qsv"),
    **dict.fromkeys(("va-api", "libva", "amd", "radeon"), "vaapi"),
    **dict.fromkeys(("disabled", "never"), "off"),
    **{"info": "low", "warning": "medium", "urgent": "critical", "fatal": "critical"},
    **{"i-frames": "keyframes", "iframes": "keyframes", "best": "high", "better": "high"},
}
OBJECTS = (  # the 80 classes of COCO, in the order of the detectors' outputs
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
OBJECT_SYNONYMS = {  # other words for objects -> the word of COCO
    **dict.fromkeys(("people", "human", "pedestrian", "man", "woman", "child"), "person"),
    **{"bike": "bicycle", "motorbike": "motorcycle", "scooter": "motorcycle", "plane": "airplane"},
    **{"vehicle": "car", "auto": "car", "van": "truck", "lorry": "truck", "ship": "boat"},
    **{"phone": "cell phone", "mobile phone": "cell phone", "smartphone": "cell phone"},
    **{"bag": "handbag", "luggage": "suitcase", "sofa": "couch", "television": "tv"},
    **{
        "computer": "laptop",
        "plant": "potted plant",
        "table": "dining table",
        "fridge": "refrigerator",
    },
}
PROVIDERS = {  # provider -> its name in ONNX Runtime
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
LANGUAGES = {  # language code -> the name of its stemmer in snowballstemmer 2.2
    **{"ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek"},
    **{"en": "english", "es": "spanish", "eu": "basque", "fi": "finnish", "fr": "french"},
    **{"ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian"},
    **{"it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian"},
    **{"pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish"},
    **{"ta": "tamil", "tr": "turkish", "yi": "yiddish"},
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all settings: frozen; unknown keys are refused; `repr` hides possible secrets."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in HIDDEN else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"
