"""Plain words for the sounds that YAMNet knows.

The classes that matter most have a phrase here. Any other is told by its name in AudioSet, in
quotes: a sound like "Crow". Gemmeke et al., Audio Set: an ontology and human-labeled dataset for
audio events, ICASSP 2017.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence

from models.fusion.occlusion import MIN_HEARD
from models.hearing.yamnet_features import CLASSES, Floats
from models.weight_folders import SHIPPED
from pipeline.errors import WeightsError

CLASS_MAP = SHIPPED / "yamnet" / "yamnet_class_map.csv"
SURE = 0.5  # a YAMNet score; a sound with less is told with "perhaps"
RIVAL = 0.75  # of the highest score; a class with this much is told beside it
_LIKE = "a sound like "
MAX_SOUND_LENGTH = 45  # characters; a second name that makes a phrase longer is left out

_PHRASES = {
    "Speech": "speech",
    "Child speech, kid speaking": "a child speaking",
    "Conversation": "a conversation",
    "Shout": "a shout",
    "Bellow": "a bellow",
    "Whoop": "a whoop",
    "Yell": "a yell",
    "Children shouting": "children shouting",
    "Screaming": "a scream",
    "Whispering": "whispering",
    "Laughter": "laughter",
    "Crying, sobbing": "crying",
    "Baby cry, infant cry": "a baby crying",
    "Whimper": "a whimper",
    "Wail, moan": "a wail",
    "Singing": "singing",
    "Groan": "a groan",
    "Breathing": "breathing",
    "Gasp": "a gasp",
    "Cough": "a cough",
    "Run": "running feet",
    "Walk, footsteps": "footsteps",
    "Clapping": "clapping",
    "Cheering": "cheering",
    "Applause": "applause",
    "Crowd": "a crowd",
    "Animal": "an animal",
    "Dog": "a dog",
    "Bark": "a dog barking",
    "Bird": "a bird",
    "Music": "music",
    "Bell": "a bell",
    "Church bell": "a church bell",
    "Wind": "wind",
    "Thunderstorm": "a thunderstorm",
    "Thunder": "thunder",
    "Water": "water",
    "Rain": "rain",
    "Fire": "a fire",
    "Vehicle": "a vehicle",
    "Motor vehicle (road)": "a motor vehicle",
    "Car": "a car",
    "Vehicle horn, car horn, honking": "a car horn",
    "Car alarm": "a car alarm",
    "Skidding": "skidding",
    "Tire squeal": "squealing tires",
    "Car passing by": "a passing car",
    "Truck": "a truck",
    "Air horn, truck horn": "an air horn",
    "Bus": "a bus",
    "Emergency vehicle": "an emergency vehicle",
    "Police car (siren)": "a police siren",
    "Ambulance (siren)": "an ambulance siren",
    "Fire engine, fire truck (siren)": "a fire engine siren",
    "Motorcycle": "a motorcycle",
    "Train": "a train",
    "Aircraft": "an aircraft",
    "Helicopter": "a helicopter",
    "Chainsaw": "a chainsaw",
    "Engine": "an engine",
    "Door": "a door",
    "Doorbell": "a doorbell",
    "Slam": "a slam",
    "Knock": "knocking",
    "Tap": "tapping",
    "Squeak": "a squeak",
    "Alarm": "an alarm",
    "Telephone": "a telephone",
    "Telephone bell ringing": "a telephone",
    "Alarm clock": "an alarm clock",
    "Siren": "a siren",
    "Civil defense siren": "a civil defense siren",
    "Buzzer": "a buzzer",
    "Smoke detector, smoke alarm": "a smoke alarm",
    "Fire alarm": "a fire alarm",
    "Foghorn": "a foghorn",
    "Whistle": "a whistle",
    "Steam whistle": "a steam whistle",
    "Hammer": "a hammer",
    "Jackhammer": "a jackhammer",
    "Power tool": "a power tool",
    "Drill": "a drill",
    "Explosion": "an explosion",
    "Gunshot, gunfire": "a gunshot",
    "Machine gun": "a machine gun",
    "Fusillade": "many shots",
    "Artillery fire": "artillery fire",
    "Cap gun": "a cap gun",
    "Fireworks": "fireworks",
    "Firecracker": "a firecracker",
    "Burst, pop": "a pop",
    "Eruption": "an eruption",
    "Boom": "a boom",
    "Splinter": "splintering wood",
    "Crack": "a crack",
    "Glass": "glass",
    "Chink, clink": "clinking",
    "Shatter": "something shattering",
    "Thump, thud": "a thump",
    "Bang": "a bang",
    "Slap, smack": "a slap",
    "Whack, thwack": "a whack",
    "Smash, crash": "a crash",
    "Breaking": "something breaking",
    "Whip": "a whip",
    "Silence": "a moment of silence",
    "Inside, small room": "the sound of a small room",
    "Inside, large room or hall": "the sound of a large room",
    "Inside, public space": "the sound of a public space",
    "Outside, urban or manmade": "the sound of a street",
    "Outside, rural or natural": "the sound of the countryside",
    "Reverberation": "an echo",
    "Echo": "an echo",
    "Noise": "noise",
    "Environmental noise": "noise",
    "White noise": "white noise",
    "Pink noise": "pink noise",
    "Static": "static noise",
    "Television": "a television",
    "Radio": "a radio",
}


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns YAMNet's classes by AudioSet's names, in order. Raises WeightsError."""
    try:
        with CLASS_MAP.open(encoding="utf-8", newline="") as rows:
            names = tuple(row["display_name"] for row in csv.DictReader(rows))
    except (OSError, KeyError, UnicodeError) as error:
        msg = f"{CLASS_MAP} cannot be read ({error}): install Fusewatch again"
        raise WeightsError(msg) from error
    if len(names) != CLASSES:
        msg = f"{CLASS_MAP} names {len(names)} classes, not {CLASSES}: install Fusewatch again"
        raise WeightsError(msg)
    return names


def phrase_of(name: str) -> str:
    """Returns plain words for a class of AudioSet."""
    known = _PHRASES.get(name)
    return known or f'{_LIKE}"{name.split(", ", maxsplit=1)[0]}"'


def sounds_like(scores: Floats, classes: Sequence[int]) -> str:
    """Returns plain words for what was heard most of these classes, "" for nothing.

    A second class with nearly the same score is told, too, as YAMNet cannot tell them apart.
    """
    highest = sorted(classes, key=lambda number: (-float(scores[number]), number))[:4]
    best = float(scores[highest[0]])
    if not best >= MIN_HEARD:
        return ""
    close = [number for number in highest if float(scores[number]) >= RIVAL * best]
    names = class_names()
    first, *others = dict.fromkeys(phrase_of(names[number]) for number in close)
    if first.startswith(_LIKE):
        others = [other.removeprefix(_LIKE) for other in others]
    told = next(
        (f"{first} or {o}" for o in others if len(first + o) + 4 <= MAX_SOUND_LENGTH), first
    )
    return told if best >= SURE else f"perhaps {told}"
