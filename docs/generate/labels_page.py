"""The page docs/reference/labels.md: the classes of objects, the sounds and the system labels."""

from __future__ import annotations

from docs.generate.fields import NOTE, table, wrapped
from models.training.sound_fit import MEANT_CLASSES
from pipeline.config.fields import LANGUAGES, OBJECTS, SOUNDS

HEAD = """\
# Labels

The words that `objects` and `labels` of a rule may hold, and the labels that Fusewatch gives alerts by itself.
"""
OBJECTS_TEXT = """\
The 80 classes of [COCO](https://cocodataset.org/), in the order of the detector's outputs. `objects` of a
[zone](config.md#zone), a [line](config.md#line) and a [rule](config.md#rules) takes these words. A detector of your own
(`models.detector`) must use the same words.
"""
SOUNDS_TEXT = """\
`labels` of a [sound rule](config.md#sound) takes these words. Each has a probability from 0 to 1, calibrated on the
clips that [Sound](../explanations/sound.md) describes. YAMNet knows 521 classes; those in the second column are the
main evidence for each label.
"""
SYSTEM_TEXT = """\
Alerts of the rule `system` tell that Fusewatch itself is not well. They never share an incident with other alerts.
"""
SYSTEM = (
    ("source-lost", "A source has been lost for `incidents.lost_after` seconds."),
    ("stage-failed", "A stage or a delivery failed or stalled. The process ends and must restart."),
)
COLUMNS = 5


def page() -> str:
    """The whole page."""
    padded = [f"`{each}`" for each in OBJECTS] + [""] * (-len(OBJECTS) % COLUMNS)
    lines = [padded[i : i + COLUMNS] for i in range(0, len(padded), COLUMNS)]
    heard = [(f"`{each}`", "; ".join(MEANT_CLASSES[each])) for each in SOUNDS]
    languages = [(f"`{code}`", name) for code, name in LANGUAGES.items()]
    parts = [
        HEAD,
        "## Objects\n",
        OBJECTS_TEXT,
        _grid(lines),
        "## Sounds\n",
        SOUNDS_TEXT,
        table(("label", "classes of YAMNet"), heard),
        "## System\n",
        SYSTEM_TEXT,
        table(("label", "meaning"), [(f"`{name}`", what) for name, what in SYSTEM]),
        "## Languages of keyword rules\n",
        wrapped(
            "A keyword rule finds a word in each of its inflected forms, by the stemmer of its language. The default"
            " speech model knows English; reports may be in any of these."
        )
        + "\n",
        table(("code", "language"), languages),
        NOTE.format("pipeline/config/fields.py and sound_fit.py"),
    ]
    return "\n".join(parts)


def _grid(lines: list[list[str]]) -> str:
    return table([""] * COLUMNS, lines)
