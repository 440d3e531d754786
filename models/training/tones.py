"""Harmless sounds of one pitch, made by formula: beepers, chimes, and the tones of appliances.

YAMNet hears a siren in many of them. Recordings of each kind at each pitch are not to be had, but
the devices themselves make these sounds by a formula: a piezo or a small loudspeaker is switched on
and off. Pitch, rhythm, overtones, level, room and noise are drawn at random. No pitch glides and no
two pitches alternate slowly: those are sirens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from models.hearing.waveform import RATE
from models.hearing.yamnet_features import Floats

SEED = 20260322
LASTS = (4.0, 8.0)  # s, from a random start in the rhythm

Chance = np.random.Generator
Rhythm = Iterator[tuple[float, float]]  # seconds on, then off


def _wave(chance: Chance, hertz: float, seconds: float) -> Floats:
    """Returns a tone with the overtones of a sine, a piezo or a small loudspeaker."""
    time = np.arange(int(seconds * RATE)) / RATE
    shape = chance.integers(4)
    orders = [1] if shape == 0 else [1, 3, 5, 7] if shape == 1 else range(1, 9)
    whole = np.zeros(len(time))
    for order in orders:
        if order * hertz < 0.48 * RATE:
            part = chance.uniform(0.02, 0.6) if shape == 3 else 1.0
            level = 1.0 if order == 1 else part / order ** (1 if shape == 1 else 1.5)
            whole += level * np.sin(2 * np.pi * (order * hertz * time + chance.random()))
    edge = max(int(chance.uniform(0.001, 0.015) * RATE), 1)
    ramp = np.minimum(np.arange(len(time)), np.arange(len(time))[::-1]) / edge
    return (whole * np.minimum(ramp, 1)).astype(np.float32)


def _rung(chance: Chance, hertz: float, seconds: float) -> Floats:
    """Returns a struck bar or bell: partials that die away."""
    time = np.arange(int(seconds * RATE)) / RATE
    whole = np.zeros(len(time))
    for ratio in (1.0, *chance.uniform(1.9, 6.5, 3)):
        if ratio * hertz < 0.48 * RATE:
            fall = chance.uniform(1.5, 6) * ratio
            whole += np.exp(-fall * time) * np.sin(2 * np.pi * ratio * hertz * time) / ratio
    return whole.astype(np.float32)


def _beeps(chance: Chance, hertz: float, rhythm: Rhythm, lasts: float) -> Floats:
    """Returns equal beeps of one pitch in a rhythm."""
    whole = np.zeros(int(lasts * RATE), np.float32)
    beep: Floats = np.zeros(0, np.float32)
    at = 0
    for on, off in rhythm:
        if len(beep) != int(on * RATE):
            beep = _wave(chance, hertz, on)
        fits = beep[: max(len(whole) - at, 0)]
        whole[at : at + len(fits)] += fits
        at += len(beep) + int(off * RATE)
        if at >= len(whole):
            break
    return whole


def _always(on: float, off: float) -> Rhythm:
    while True:
        yield on, off


def _groups(count: int, on: float, off: float, pause: float) -> Rhythm:
    while True:
        for number in range(1, count + 1):
            yield on, off if number < count else pause


def _at_a_till(chance: Chance, on: float) -> Rhythm:
    while True:
        yield on, chance.uniform(0.3, 2.5)


def _tone(chance: Chance, lasts: float) -> Floats:
    """One tone that goes on: test tones, feedback, whistling machines."""
    return _wave(chance, _pitch(chance, 300, 4200), lasts)


def _reversing(chance: Chance, lasts: float) -> Floats:
    on = chance.uniform(0.2, 0.9)
    rhythm = _always(on, on * chance.uniform(0.6, 1.4))
    return _beeps(chance, _pitch(chance, 600, 3200), rhythm, lasts)


def _long_beeps(chance: Chance, lasts: float) -> Floats:
    """Lifting platforms, gates, ovens."""
    rhythm = _always(chance.uniform(0.8, 2.5), chance.uniform(0.15, 1.0))
    return _beeps(chance, _pitch(chance, 500, 3400), rhythm, lasts)


def _smoke_alarm_chirp(chance: Chance, lasts: float) -> Floats:
    """The chirp of a low battery, once or twice; its pause of half a minute is made short."""
    rhythm = _groups(
        int(chance.integers(1, 3)),
        chance.uniform(0.03, 0.2),
        chance.uniform(0.08, 0.3),
        chance.uniform(1.5, 4),
    )
    return _beeps(chance, _pitch(chance, 2700, 3700), rhythm, lasts)


def _microwave(chance: Chance, lasts: float) -> Floats:
    count, on = int(chance.integers(3, 7)), chance.uniform(0.25, 1.2)
    rhythm = _groups(count, on, chance.uniform(0.2, 0.8), 3.0)
    return _beeps(chance, _pitch(chance, 900, 3000), rhythm, lasts)


def _till(chance: Chance, lasts: float) -> Floats:
    rhythm = _at_a_till(chance, chance.uniform(0.04, 0.2))
    return _beeps(chance, _pitch(chance, 1400, 4200), rhythm, lasts)


def _alarm_clock(chance: Chance, lasts: float) -> Floats:
    on = chance.uniform(0.04, 0.12)
    rhythm = _groups(int(chance.integers(2, 5)), on, on, chance.uniform(0.3, 0.8))
    return _beeps(chance, _pitch(chance, 1500, 4200), rhythm, lasts)


def _telephone(chance: Chance, lasts: float) -> Floats:
    """Dial tones, busy signals, dialled digits, and the trill of a ringer."""
    low, high = chance.uniform(350, 950), chance.uniform(400, 1650)
    match int(chance.integers(4)):
        case 0:
            pair, rhythm = (low, high), _always(lasts, 1)
        case 1:
            pair, rhythm = (chance.uniform(350, 500), 0.0), _always(0.5, 0.5)
        case 2:
            pair, rhythm = (low, high), _always(chance.uniform(0.07, 0.3), chance.uniform(0.07, 1))
        case _:
            return _trill(chance, lasts)
    tones = [_beeps(chance, hertz, rhythm, lasts) for hertz in pair if hertz][:1]
    if pair[1]:
        second = _wave(chance, pair[1], lasts)
        tones.append(second * (np.abs(tones[0]) > 0))
    return np.sum(tones, axis=0).astype(np.float32)


def _trill(chance: Chance, lasts: float) -> Floats:
    low, each = _pitch(chance, 700, 2000), chance.uniform(0.025, 0.06)
    high = low * chance.uniform(1.15, 1.4)
    time = np.arange(int(lasts * RATE)) / RATE
    upper = (time // each).astype(int) % 2 == 1
    phase = np.cumsum(np.where(upper, high, low)) / RATE
    ringing = time % 3 < chance.uniform(0.8, 1.6)
    return (np.sin(2 * np.pi * phase) * ringing).astype(np.float32)


def _chime(chance: Chance, lasts: float) -> Floats:
    """Doors, lifts, announcements."""
    whole = np.zeros(int(lasts * RATE), np.float32)
    at, hertz = 0.0, _pitch(chance, 350, 1800)
    while at < lasts:
        for ratio in (1.0, *(2 ** (-chance.integers(2, 8, int(chance.integers(1, 3))) / 12))):
            note = _rung(chance, hertz * ratio, 1.6)[: max(len(whole) - int(at * RATE), 0)]
            whole[int(at * RATE) : int(at * RATE) + len(note)] += note
            at += chance.uniform(0.3, 0.7)
        at += chance.uniform(1, 3)
    return whole


def _buzzer(chance: Chance, lasts: float) -> Floats:
    """Door openers, ends of shifts, machines that warn."""
    rhythm = _always(chance.uniform(0.3, 2), chance.uniform(0.2, 1.5))
    return _beeps(chance, _pitch(chance, 100, 500), rhythm, lasts)


def _pitch(chance: Chance, low: float, high: float) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))


FAMILIES: dict[str, Callable[[Chance, float], Floats]] = {
    "tone": _tone,
    "reversing": _reversing,
    "long-beeps": _long_beeps,
    "smoke-alarm-chirp": _smoke_alarm_chirp,
    "microwave": _microwave,
    "till": _till,
    "alarm-clock": _alarm_clock,
    "telephone": _telephone,
    "chime": _chime,
    "buzzer": _buzzer,
}


def made(family: str, number: int, seed: int = SEED) -> Floats:
    """Returns a sound of a family, 16 kHz mono; the same number and seed give the same sound."""
    chance = np.random.default_rng([seed, list(FAMILIES).index(family), number])
    lasts = chance.uniform(*LASTS)
    whole = FAMILIES[family](chance, lasts)
    if chance.random() < 0.6:
        whole = _in_a_room(chance, whole)
    whole = whole / (np.abs(whole).max() + 1e-9) * 10 ** (chance.uniform(-24, -1) / 20)
    noise = chance.standard_normal(len(whole)) * 10 ** (chance.uniform(-75, -45) / 20)
    return np.clip(whole + noise, -1, 1).astype(np.float32)


def _in_a_room(chance: Chance, whole: Floats) -> Floats:
    """Adds an echo that dies away: noise under an exponential, after Moorer, 1979."""
    lasts = chance.uniform(0.1, 0.7)  # s until it is 60 dB below
    time = np.arange(int(lasts * RATE)) / RATE
    echo = chance.standard_normal(len(time)) * np.exp(-6.9 * time / lasts)
    echo *= chance.uniform(0.1, 0.7) / np.sqrt(np.sum(echo**2))
    echo[0] += 1
    size = len(whole) + len(echo) - 1
    spectrum = np.fft.rfft(whole, size) * np.fft.rfft(echo, size)
    return np.fft.irfft(spectrum, size)[: len(whole)].astype(np.float32)
