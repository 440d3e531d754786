"""Measures what early sounds gain: from the onset of a sound until its label is known, event time.

    python -m benchmarks.early MEDIA WEIGHTS [--phases 8] [--every 1]

Each labelled clip of MEDIA/audio is heard at `--phases` places of the UTC second, after 3 s of
silence. The onset is the first sample of a tenth of the clip's peak. The delay ends with the second
that is told first; it leaves out what devices, models and the network add. The head was fitted to
these clips. Whole seconds are the same with and without early sounds, so nothing is found less;
"more" are takes that only an early sound finds, and "false" benign clips that only it calls one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from models.hearing.sound import YAMNET_FILE, SoundHead, Yamnet
from models.hearing.waveform import RATE
from models.training.sound_clips import CLIP_LABELS, clips
from pipeline.config.schema import Hear
from pipeline.judge.rules import early_threshold
from pipeline.types import SECOND, Sound
from workers.media.pcm import Chunks
from workers.stages.sound import ALARM, SoundStage

START = 1_767_650_400 * SECOND
BEFORE, LONGEST, AFTER = 3, 4, 2  # s
BLOCK = RATE // 10


def heard(samples: np.ndarray, stage: SoundStage) -> list[Sound]:
    """The sounds of a microphone without a gate."""
    made, state, out = Chunks("bench", "room", RATE, hear=Hear(gate="off")), stage.open({}), []
    for low in range(0, len(samples) - BLOCK + 1, BLOCK):
        chunk = made.push(samples[low : low + BLOCK], START + (low + BLOCK) * SECOND // RATE)
        out += [made for made in state.on(chunk, None) if isinstance(made, Sound)]
    return out


def main() -> None:
    """Prints the delays by label, without early sounds and with them."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--phases", type=int, default=8)
    ask.add_argument("--every", type=int, default=1)
    given = ask.parse_args()
    yamnet = Yamnet(given.weights / "yamnet" / YAMNET_FILE)
    stage = SoundStage(yamnet, SoundHead.shipped(), early={"bench"})
    delays: dict[str, tuple[list[float], list[float]]] = {}
    tally = Counter[str]()
    for clip in clips(given.media)[:: given.every]:
        kind, samples = CLIP_LABELS[clip.label], clip.samples[: LONGEST * RATE]
        loud = np.abs(samples)
        onset = float(np.argmax(loud > 0.1 * loud.max())) / RATE
        for phase in range(given.phases):
            at = BEFORE + phase / given.phases
            whole = np.zeros((BEFORE + LONGEST + AFTER) * RATE, np.float32)
            fits = samples[: len(whole) - round(at * RATE)]
            whole[round(at * RATE) : round(at * RATE) + len(fits)] = fits
            raised = [
                (s.end / SECOND - START / SECOND, s.early, name)
                for s in heard(whole, stage)
                for name, score in s.labels.items()
                if score >= (early_threshold(ALARM) if s.early else ALARM)
            ]
            if kind == "nothing":
                usual = {name for _, early, name in raised if not early}
                tally["takes"] += 1
                tally["false"] += bool(usual)
                tally["only early"] += bool({name for *_, name in raised} - usual)
                continue
            late = [end for end, early, name in raised if name == kind and not early]
            soon = [end for end, _, name in raised if name == kind]
            tally[f"{kind} more"] += bool(soon) and not late
            if late:
                pair = delays.setdefault(kind, ([], []))
                pair[0].append(min(late) - at - onset)
                pair[1].append(min(soon) - at - onset)
    every = ([d for some in delays.values() for d in some[i]] for i in (0, 1))
    delays["all"] = tuple(every)  # type: ignore[assignment]
    for kind, pair in delays.items():
        told = [f"p50 {np.percentile(d, 50):.2f} s, p95 {np.percentile(d, 95):.2f} s" for d in pair]
        more = tally[f"{kind} more"]
        print(f"{kind:10} {len(pair[0])} takes: {told[0]}; early: {told[1]}; more {more}")
    print(
        f"benign: {tally['takes']} takes, {tally['false']} with a label in a whole second; "
        f"{tally['only early']} with one that only an early sound has"
    )


if __name__ == "__main__":
    main()
