"""The noise floor: usual noise is told from what is worth a listen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Hear
from pipeline.types import SECOND, ns
from workers.media.noise_floor import HEARTBEAT, LEARNT, Heard, NoiseFloor, floor_for, measured
from workers.media.pcm import to_s16

START = 1_767_650_400 * SECOND
SIZE = RATE // 10


def noise(seconds: float, db: float = -55, seed: int = 1) -> Samples:
    chance = np.random.default_rng(seed)
    made = chance.standard_normal(round(seconds * RATE)) * 10 ** (db / 20)
    return made.astype(np.float32)


def tone(seconds: float, db: float, hertz: float = 1500) -> Samples:
    turns = np.arange(round(seconds * RATE)) * hertz / RATE
    return (np.sin(2 * np.pi * turns) * 10 ** (db / 20) * 2**0.5).astype(np.float32)


class Listener:
    """A microphone whose sound is given piece by piece."""

    def __init__(self) -> None:
        self._floor, self._at = NoiseFloor("office", "room"), 0

    def hear(self, samples: Samples, size: int = SIZE) -> list[Heard]:
        told = []
        for low in range(0, len(samples), size):
            start = START + (self._at + low) * SECOND // RATE
            told.append(self._floor(to_s16(samples[low : low + size]), start))
        self._at += len(samples)
        return told


def quiet(told: list[Heard]) -> float:
    return sum(heard.listen in ("", "heartbeat") for heard in told) / len(told)


def used_to(samples: Samples) -> Listener:
    listener = Listener()
    listener.hear(samples)
    return listener


def test_the_first_seconds_are_heard_and_then_the_noise_is_usual() -> None:
    told = Listener().hear(noise(60))
    assert [heard.listen for heard in told[: LEARNT * 10]] == ["first"] * LEARNT * 10
    assert {heard.noise_db for heard in told[: LEARNT * 10]} == {None}
    later = told[LEARNT * 10 :]
    assert quiet(later) > 0.99
    assert {heard.noise_db for heard in later} <= {-56, -55}


def test_one_second_in_ten_is_heard_whatever_is_in_it() -> None:
    told = used_to(noise(20)).hear(noise(40, seed=2))
    beats = [k // 10 for k, heard in enumerate(told) if heard.listen == "heartbeat"]
    assert {after - before for before, after in itertools.pairwise(beats)} == {0, HEARTBEAT}


@pytest.mark.parametrize("hertz", [100, 300, 700, 1500, 3000, 6000])
def test_a_tone_as_loud_as_the_noise_of_all_bands_is_sound(hertz: float) -> None:
    listener = used_to(noise(30))
    told = listener.hear(noise(1, seed=3) + tone(1, -55, hertz))
    assert all(heard.listen == "sound" for heard in told)


def test_a_knock_of_five_milliseconds_is_sound_where_it_is() -> None:
    listener, hit = used_to(noise(30)), noise(1, seed=3)
    hit[4_000:4_080] += noise(0.005, -30, seed=4)
    told = [heard.listen for heard in listener.hear(hit)]
    assert told[2] == "sound"
    assert set(told[4:]) <= {"", "heartbeat"}


def test_what_is_left_of_a_cut_sound_at_the_end_of_a_chunk_is_in_the_next_chunk() -> None:
    listener, hit = used_to(noise(30)), noise(0.3, seed=3)
    hit[2 * SIZE - 16 : 2 * SIZE] += 0.3
    assert "sound" in [heard.listen for heard in listener.hear(hit)[1:]]


def test_digital_silence_is_quiet_and_its_end_is_sound() -> None:
    listener = used_to(noise(30, -200))
    assert quiet(listener.hear(noise(20, -200))) == 1
    assert quiet(listener.hear(noise(1, -60))) == 0


def test_a_fan_is_heard_for_minutes_and_then_usual() -> None:
    listener = used_to(noise(300))
    assert quiet(listener.hear(noise(180, -45, seed=2))) < 0.01
    listener.hear(noise(70, -45, seed=3))
    assert quiet(listener.hear(noise(20, -45, seed=4))) > 0.99


def test_a_siren_of_three_minutes_does_not_become_usual() -> None:
    listener = used_to(noise(300))
    assert quiet(listener.hear(noise(180, seed=2) + tone(180, -40))) < 0.01
    assert quiet(listener.hear(noise(20, seed=4))) > 0.9  # and the room is quiet after it


def test_a_place_that_is_always_loud_is_never_quiet() -> None:
    assert quiet(used_to(noise(60, -25)).hear(noise(20, -25))) == 0


def test_small_and_large_chunks_are_measured() -> None:
    for size in (1, 160, 511, 513, 8_000, 48_000):
        told = Listener().hear(noise(0.2, seed=size), size)
        assert {heard.listen for heard in told} == {"first"}


def test_without_a_gate_everything_is_heard() -> None:
    assert floor_for("office", "room", Hear(gate="off")) is None
    assert measured(None, b"", ns(1)) == Heard("all", None)
    assert isinstance(floor_for("office", "room", Hear()), NoiseFloor)
