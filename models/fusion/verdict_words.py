"""Says in plain words what carried a learned verdict, from the parts that occlusion marks.

Every phrase is made of this program's own words and of the numbers in the window's features: what
people said or wrote is never in it. "Two people" are the most in one frame of one camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.fusion import occlusion
from models.fusion.features import GROUPS, Tokens
from models.fusion.labels import MODALITIES
from models.fusion.occlusion import FAMILIES, Part, count, heard, value
from models.fusion.sound_words import sounds_like

MAX_PHRASES = 4
MAX_PHRASE = 80  # characters
MIN_FALL = 0.5  # of the log odds; a smaller fall is not told
SHARE = 0.25  # of the largest fall, and of its modality's; a part with less is not told
SHARE_AS_WHOLE = 0.2  # of all modalities' falls; no modality with this much stays untold
MAX_SOUNDS = 2
FALL_DIGITS = 2  # of a fall that is compared: rounding noise must not choose the words

TOGETHER = " at the same time"
_MAX_BODY = MAX_PHRASE - len(TOGETHER)
FAST = 1.5  # heights of the object a second: a person who runs
SLOW = 0.2  # a speed below this is not told as a movement
SUDDEN_DB, LOUD_DB = 10.0, -20.0  # rise between two seconds; dBFS
DARK, BRIGHT = 0.15, 0.85  # luma
DOWN = 0.5  # score of lying or of a fall from which it is told
LIVELY = 0.5  # bodies a second: limbs that move fast
MANY = 20  # a larger number is not told exactly

_NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_KINDS = {
    "person": ("a person", "people"),
    "vehicle": ("a vehicle", "vehicles"),
    "animal": ("an animal", "animals"),
    "bag": ("a bag", "bags"),
    "other": ("an object", "objects"),
}
_WHOLES = {
    "vision": "the pictures",
    "sound": "the sound",
    "speech": "the spoken words",
    "report": "the reports",
}
_BODY = (occlusion.POSTURE, occlusion.LIMBS)
_DOINGS = (occlusion.SPEED, occlusion.STILL, occlusion.ZONE, occlusion.FORBIDDEN)


class _Phrase(msgspec.Struct, frozen=True):
    fall: float
    modality: str
    text: str


def why(
    window: Tokens, falls: Mapping[str, float], parts: Sequence[tuple[Part, float]]
) -> tuple[str, ...]:
    """Returns what carried a verdict, in at most MAX_PHRASES phrases, the gravest first.

    `falls` is by how much the log odds fall without each modality, `parts` without each part. Where
    no part explains the fall of an important modality, the phrase names the modality as a whole.
    The first phrase of a second modality ends with "at the same time".
    """
    whole = {modality: _rounded(fall) for modality, fall in falls.items()}
    fallen = [(part, _rounded(fall)) for part, fall in parts]
    largest = max((fall for _, fall in fallen), default=0.0)
    told: list[_Phrase] = []
    for modality in MODALITIES:
        if modality in whole:
            least = max(MIN_FALL, SHARE * max(largest, whole[modality]))
            named = {p.name: f for p, f in fallen if p.modality == modality and f >= least}
            said = _WORDERS[modality](window, named)
            if not said and whole[modality] >= max(MIN_FALL, SHARE_AS_WHOLE * sum(whole.values())):
                said = [(whole[modality], _as_whole(window, modality))]
            told += [_Phrase(fall, modality, text) for fall, text in said]
    if not told:
        return (_nothing_stands_out(window, whole),)
    told.sort(key=lambda p: (-p.fall, MODALITIES.index(p.modality), p.text))
    del told[MAX_PHRASES:]
    second = next((i for i, p in enumerate(told) if p.modality != told[0].modality), None)
    return tuple(p.text + (TOGETHER if i == second else "") for i, p in enumerate(told))


def _rounded(fall: float) -> float:
    return round(max(0.0, float(np.nan_to_num(fall))), FALL_DIGITS)


def _nothing_stands_out(window: Tokens, whole: Mapping[str, float]) -> str:
    """The modality that carried most; all together, if each could be missed."""
    most = max(whole, key=lambda modality: whole[modality])
    if whole[most] or len(whole) == 1:
        return _as_whole(window, most)
    return f"{_listed([_WHOLES[modality] for modality in whole])} as a whole"


def _as_whole(window: Tokens, modality: str) -> str:
    """A modality, with what was most in it, if that can be told."""
    text = f"{_WHOLES[modality]} as a whole"
    inside = ""
    if modality == "vision":
        inside = _in_view(window)
    elif modality == "sound":
        classes = [n for name, some in FAMILIES.items() if name != "background" for n in some]
        inside = sounds_like(heard(window), classes)
    full = f"{text} ({inside})"
    return full if inside and len(full) <= _MAX_BODY else text


Said = list[tuple[float, str]]  # falls and phrases


def _vision(window: Tokens, named: Mapping[str, float]) -> Said:
    said: Said = []
    apart = (occlusion.PICTURE, *_BODY)
    scene = {name: fall for name, fall in named.items() if name not in apart}
    if scene:
        said.append((max(scene.values()), _scene(window, scene)))
    said += [(named[part], _body(window, part)) for part in _BODY if part in named]
    if occlusion.PICTURE in named:
        luma = value(window, "vision", "luma.mean")
        told = (
            "dark pictures"
            if luma < DARK
            else "bright pictures"
            if luma > BRIGHT
            else "the light and sharpness of the pictures"
        )
        said.append((named[occlusion.PICTURE], told))
    return said


def _scene(window: Tokens, named: Mapping[str, float]) -> str:
    """What was in view, and what it did.

    The features do not tell which object was fast or in a zone. So a phrase that tells such a thing
    names all that was in view.
    """
    doings = sorted((d for d in _DOINGS if d in named), key=lambda d: (-named[d], d))
    if not doings:
        return _in_view(window, [group for group in GROUPS if group in named])
    most = [number for group in GROUPS if (number := _most(window, group))]
    alone = sum(most) <= 1
    if doings == [occlusion.FORBIDDEN] and len(most) == 2 and sum(most) == 2:
        return f"{_in_view(window).replace(' and ', ' or ')}{_doing(window, doings[0], alone=True)}"
    for subject in (_in_view(window), _in_view(window, digits=True), "several objects"):
        text = subject or "something"
        for doing in sorted(doings[:2], key=_DOINGS.index):
            longer = text + _doing(window, doing, alone=alone)
            text = longer if len(longer) <= _MAX_BODY else text
        if text != subject:
            break
    return text


def _doing(window: Tokens, doing: str, *, alone: bool) -> str:
    """The end of a phrase on what is in view; `alone`: that is one object."""
    some = "" if alone else ", one or more"
    if doing == occlusion.SPEED:
        most, mean = (_speed(window, name) for name in ("speed.most", "speed.mean"))
        movement = "moving fast" if most >= FAST else "moving" if most >= SLOW else "hardly moving"
        same = movement == "hardly moving" or mean >= (FAST if most >= FAST else SLOW)
        return f"{'' if same else some} {movement}"
    if doing == occlusion.STILL:
        return f"{'' if value(window, 'vision', 'still.share') >= 1 else some} standing still"
    if doing == occlusion.ZONE:
        inside = count(window, "vision", "zone.most")
        same = alone or inside >= sum(_most(window, group) for group in GROUPS)
        return " in a zone" if same else f", {_number(inside)} in a zone"
    return f"{some} found by a camera rule"


def _body(window: Tokens, part: str) -> str:
    """How persons hold themselves or move; the numbers do not tell which person it is."""
    if part == occlusion.LIMBS:
        fast = _speed(window, "behaviour.limbs.most") >= LIVELY
        return "arms and legs moving fast" if fast else "the movements of people"
    if value(window, "vision", "behaviour.lying.most") >= DOWN:
        return "a person lying"
    if value(window, "vision", "behaviour.fall.most") >= DOWN:
        return "a person coming down"
    return "the posture of people"


def _most(window: Tokens, group: str) -> int:
    return count(window, "vision", f"most.{group}")


def _speed(window: Tokens, name: str) -> float:
    return float(np.expm1(np.clip(value(window, "vision", name), 0, 10)))


def _in_view(window: Tokens, groups: Sequence[str] = GROUPS, *, digits: bool = False) -> str:
    """The objects of some kinds that were in view, as "a person and two vehicles"."""
    told = []
    for group in groups:
        most, (one, many) = _most(window, group), _KINDS[group]
        if most:
            told.append(one if most == 1 else f"{_number(most, digits=digits)} {many}")
    return _listed(told) if len(told) <= 2 else "objects of several kinds"


def _sound(window: Tokens, named: Mapping[str, float]) -> Said:
    said: Said = []
    scores = heard(window)
    for name in sorted(named, key=lambda name: (-named[name], name))[:MAX_SOUNDS]:
        if name == occlusion.LOUDNESS:
            text = _loudness(window)
        elif name == occlusion.CLIPPED:
            text = "a sound too loud for the microphone"
        else:
            text = sounds_like(scores, FAMILIES[name])
        said.append((named[name], text))
    return said


def _loudness(window: Tokens) -> str:
    loud = 60 * value(window, "sound", "loudness.most") >= LOUD_DB
    if 30 * value(window, "sound", "onset") >= SUDDEN_DB:
        return "a sudden loud sound" if loud else "a sudden sound"
    return "a loud sound" if loud else "the loudness of the sound"


def _speech(window: Tokens, named: Mapping[str, float]) -> Said:
    return [(fall, "the words that were spoken") for fall in named.values()]


def _report(window: Tokens, named: Mapping[str, float]) -> Said:
    several = max(1, count(window, "report", "count"))
    text = "the words of a report" if several == 1 else f"the words of {_number(several)} reports"
    return [(fall, text) for fall in named.values()]


_WORDERS = {"vision": _vision, "sound": _sound, "speech": _speech, "report": _report}


def _number(number: int, *, digits: bool = False) -> str:
    if number > MANY:
        return f"more than {MANY}"
    return _NUMBERS[number] if number < len(_NUMBERS) and not digits else str(number)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
