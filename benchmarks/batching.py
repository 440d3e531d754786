"""What one batch over several microphones would save, against one call for each as it is today.

    python -m benchmarks.batching MEDIA WEIGHTS [--microphones 1 4 16] [--rounds 9] [--seconds 10]

The networks of the stages, with equal input. YAMNet's file fixes its batch at 1 in a reshape: the
benchmark changes that number in memory. Silero's file fixes it before the LSTM: the benchmark puts
a reshape there. Whisper takes a batch of windows of one length, MiniLM a batch that is padded. Then
the sound and the speech stage as they are, what they would take with those batches, and how many
seconds of sound one poll completes at the pace of live capture. All in one process and in turns;
medians; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import tokenizers
from ai_edge_litert.interpreter import Interpreter
from faster_whisper import WhisperModel, decode_audio
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from faster_whisper.utils import get_assets_path

from models.hearing.sound import BANDS, PATCH_FRAMES, PATCH_STEP, SoundHead, Yamnet, log_mel
from models.hearing.sound import YAMNET_FILE as YAMNET
from models.hearing.speech import SILENCE
from models.hearing.transcript import Transcript, most_tokens
from models.hearing.voice_activity import VoiceActivity
from models.hearing.waveform import FRAME_SAMPLES
from models.language.text import TextEncoder
from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.run import Runner
from pipeline.types import SECOND, AudioChunk
from workers.media.pcm import RATE
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage

CHUNK = RATE // 10  # samples
HEARD = 3 * RATE  # samples that the voice model is given for a second
SAID = 4  # s that an utterance lasts
WAIT = 0.2  # s that a poll waits for its first entry
NEW = 2  # patches that a second brings to YAMNet
Batch = Callable[[Sequence[Any]], Sequence[Any]]


def yamnet(weights: Path, size: int) -> Batch:
    """YAMNet for `size` patches at a time, one thread as in a recording."""
    raw = (weights / "yamnet" / YAMNET).read_bytes()
    shape = np.array([1, PATCH_FRAMES, BANDS, 1], "<i4").tobytes()
    at = raw.index(len(shape).to_bytes(4, "little") + shape) + 4  # a vector's length goes before it
    free = np.array([-1], "<i4").tobytes()
    content = raw if size == 1 else raw[:at] + free + raw[at + 4 :]
    net = Interpreter(model_content=content, num_threads=1)
    takes, gives = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]
    if size > 1:
        net.resize_tensor_input(takes, [size, PATCH_FRAMES, BANDS])
    net.allocate_tensors()

    def run(patches: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        net.set_tensor(takes, np.stack(patches))
        net.invoke()
        return list(net.get_tensor(gives))

    return run


def silero(size: int) -> Batch:
    """Silero VAD for `size` waveforms at a time: the frames of one moment stand together."""
    model = onnx.load(Path(get_assets_path()) / "silero_vad_v6.onnx")
    graph = model.graph
    at, lstm = next((k, node) for k, node in enumerate(graph.node) if node.op_type == "LSTM")
    shape = onnx.numpy_helper.from_array(np.array([-1, size, 128], np.int64), "frames_by_waveform")
    graph.initializer.append(shape)
    parted = onnx.helper.make_node("Reshape", [lstm.input[0], shape.name], ["parted"])
    lstm.input[0] = "parted"
    graph.node.insert(at, parted)
    for value in (*graph.input[1:], *graph.output[1:]):
        value.type.tensor_type.shape.dim[1].dim_value = size
    options = ort.SessionOptions()  # as faster-whisper sets them
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)

    def run(waveforms: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        frames = -(-HEARD // FRAME_SAMPLES) + 1
        padded = np.zeros((size, frames * FRAME_SAMPLES), np.float32)
        padded[:, -FRAME_SAMPLES - HEARD : -FRAME_SAMPLES] = waveforms
        parts = padded.reshape(size, frames, FRAME_SAMPLES)
        before = np.concatenate([np.zeros((size, 1, 64), np.float32), parts[:, :-1, -64:]], axis=1)
        ordered = np.concatenate([before, parts], axis=2).transpose(1, 0, 2)
        state = np.zeros((1, size, 128), np.float32)
        feed = {"input": ordered.reshape(-1, 64 + FRAME_SAMPLES), "h": state, "c": state}
        return list(session.run(None, feed)[0].reshape(size, frames)[:, :-1].round(3))

    return run


def whisper(model: WhisperModel) -> Batch:
    """Whisper as `models/hearing/speech.py` calls it, for utterances that last equally long."""
    tokens = Tokenizer(model.hf_tokenizer, multilingual=False, task="transcribe", language="en")
    prompt = [*tokens.sot_sequence, tokens.no_timestamps]
    silent = get_suppressed_tokens(tokens, [-1])

    def run(utterances: Sequence[np.ndarray]) -> Sequence[tuple[str, float, float]]:
        room = np.zeros(SILENCE * RATE, np.float32)
        padded = [np.concatenate([utterance, room]) for utterance in utterances]
        features = np.stack([model.feature_extractor(each, padding=0) for each in padded])
        found = model.model.generate(
            model.encode(features),
            [prompt] * len(utterances),
            beam_size=1,
            max_length=len(prompt) + most_tokens(utterances[0]),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=silent,
        )
        return [
            (tokens.decode(each.sequences_ids[0]), each.scores[0], each.no_speech_prob)
            for each in found
        ]

    return run


def minilm(folder: Path, threads: int) -> Batch:
    """MiniLM as `models/language/text.py` calls it, for a padded batch of texts."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()

    def run(texts: Sequence[str]) -> Sequence[np.ndarray]:
        encoded = tokenizer.encode_batch(list(texts))
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        known = {entry.name for entry in session.get_inputs()}
        states = session.run(None, {k: v for k, v in feed.items() if k in known})[0]
        means = [
            state[: int(row.sum())].mean(axis=0) for state, row in zip(states, mask, strict=True)
        ]
        return [mean / float(np.linalg.norm(mean)) for mean in means]

    return run


class Turns:
    """Seconds of two ways that take turns, by the wall clock and of CPU."""

    def __init__(self) -> None:
        self.wall: list[tuple[float, float]] = []
        self.cpu: list[tuple[float, float]] = []

    def take(self, one: Callable[[], object], other: Callable[[], object]) -> None:
        marks = [(time.perf_counter(), time.process_time())]
        for way in (one, other):
            way()
            marks.append((time.perf_counter(), time.process_time()))
        (w0, c0), (w1, c1), (w2, c2) = marks
        self.wall.append((w1 - w0, w2 - w1))
        self.cpu.append((c1 - c0, c2 - c1))

    def told(self, items: float) -> str:
        """Milliseconds an item of both, and the medians of the rounds' ratios."""
        alone, batch = (statistics.median(t) / items * 1e3 for t in zip(*self.wall, strict=True))
        wall, cpu = (statistics.median(a / b for a, b in t) for t in (self.wall, self.cpu))
        return f"{alone:7.2f} ms alone, {batch:7.2f} in a batch: {wall:.2f} times (CPU {cpu:.2f})"


def compared(name: str, one: Batch, batch: Batch, items: Sequence[Any], rounds: int) -> None:
    """Prints a line: the items one by one, and all in a batch."""
    alone, together = [one([item])[0] for item in items], batch(items)
    same = all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    turns = Turns()
    for _ in range(rounds):
        turns.take(lambda: [one([item]) for item in items], lambda: batch(items))
    print(f"  {name:8} {len(items):2} at once: {turns.told(len(items))};"
          f" results {'are equal' if same else 'DIFFER'}")  # fmt: skip


def chunks(samples: np.ndarray, microphone: str, phase: int = 0) -> list[AudioChunk]:
    """The samples as a microphone's chunks of 0.1 s; the first starts at `phase` (ns)."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    return [
        AudioChunk(
            site="bench",
            source=microphone,
            start=phase + at * SECOND // RATE,
            end=phase + (at + CHUNK) * SECOND // RATE,
            seq=at // CHUNK,
            rate=RATE,
            channels=1,
            data=pcm[at : at + CHUNK].tobytes(),
        )
        for at in range(0, len(pcm) - CHUNK + 1, CHUNK)
    ]


class Told:
    """A model that costs nothing: it says in order what another one said before."""

    def __init__(self, said: Sequence[Any]) -> None:
        self._said = iter(said)

    def __call__(self, batch: Sequence[Any]) -> Sequence[Any]:
        return [next(self._said) for _ in batch]


class Written:
    """A model that keeps what it is asked and what it answers."""

    def __init__(self, model: Batch) -> None:
        self.asked: list[Any] = []
        self.said: list[Any] = []
        self._model = model

    def __call__(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.asked += batch
        self.said += self._model(batch)
        return self.said[-len(batch) :]


def fed(stage: SoundStage | SpeechStage, lists: Sequence[Sequence[AudioChunk]]) -> None:
    """The stage hears all chunks, a moment of all microphones at a time."""
    state = stage.open({})
    for moment in zip(*lists, strict=True):
        for chunk in moment:
            state.on(chunk, None)


def staged(
    name: str,
    model: Callable[[], Batch],
    stage: Callable[[Batch], SoundStage | SpeechStage],
    batch: Callable[[Sequence[Any]], object],
    lists: Sequence[Sequence[AudioChunk]],
    rounds: int,
) -> None:
    """Prints a line: a stage as it is, and with `batch` asked once for a second of all microphones.

    The latter is the stage with answers that cost nothing, and the batches beside it.
    """
    written, count, turns = Written(model()), len(lists), Turns()
    fed(stage(written), lists)

    def batches() -> None:
        fed(stage(Told(written.said)), lists)
        for at in range(0, len(written.asked), count):
            batch(written.asked[at : at + count])

    for _ in range(rounds):
        fresh = stage(model())  # YAMNet remembers patches: a new one has not heard these
        turns.take(lambda stage=fresh: fed(stage, lists), batches)
    heard = sum(len(each) for each in lists) * CHUNK / RATE
    print(f"  {name:6} {count:2} microphones, a second of one: {turns.told(heard)}")


class Counted:
    """A model that counts its calls."""

    def __init__(self, model: Batch) -> None:
        self.calls, self._model = 0, model

    def __call__(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.calls += 1
        return self._model(batch)


def polls(model: Batch, sounds: Sequence[np.ndarray]) -> list[int]:
    """How many seconds of sound a poll completes, of those that complete any: live, by the log."""
    phases = np.random.default_rng(7).integers(0, SECOND // 10, len(sounds)).tolist()
    lists = [chunks(each, f"m{n}", phases[n]) for n, each in enumerate(sounds)]
    due = sorted((chunk for each in lists for chunk in each), key=lambda chunk: chunk.end)
    counted, stop = Counted(model), threading.Event()

    with tempfile.TemporaryDirectory() as folder:
        log = LocalLog(Path(folder), clock=time.time_ns)

        def capture() -> None:
            began = time.perf_counter()
            for chunk in due:
                time.sleep(max(0.0, began + chunk.end / SECOND - time.perf_counter()))
                log.publish(topics.AUDIO, f"bench/{chunk.source}", codec.encode(chunk))
                log.flush()
            stop.set()

        stage = SoundStage(counted, SoundHead.shipped())
        runner = Runner(stage, log, topic=topics.AUDIO, group="sound", out=topics.OBSERVATIONS)
        thread, found = threading.Thread(target=capture), []
        thread.start()
        while not stop.is_set():
            before = counted.calls
            runner.step(WAIT)
            found.append(counted.calls - before)
        thread.join()
        runner.close()
        log.close()
    return [count for count in found if count]


def of_length(clips: Sequence[np.ndarray], samples: int, count: int) -> list[np.ndarray]:
    """So many pieces of so many samples, each from another place."""
    return [
        np.resize(np.roll(clips[n % len(clips)], -(n // len(clips)) * RATE // 2), samples)
        for n in range(count)
    ]


def patches(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What YAMNet sees of the newest second of each; the first patch is known from before."""
    return [log_mel(waveform[n * PATCH_STEP :]) for waveform in waveforms for n in (1, 2)]


def networks(weights: Path, count: int, said: Sequence[np.ndarray], sounds: Sequence[np.ndarray],
             threads: int, rounds: int) -> None:  # fmt: skip
    """Prints the lines of the networks for so many microphones."""
    tiny = str(weights / "faster-whisper-tiny.en")
    listener = whisper(
        WhisperModel(tiny, compute_type="int8", cpu_threads=threads, local_files_only=True)
    )
    utterances = of_length(said, SAID * RATE, count)
    words = [text for text, _, _ in listener(utterances)]
    meaning = weights / "all-MiniLM-L6-v2-int8"
    new = patches(of_length(sounds, 2 * RATE, count))
    compared("YAMNet", yamnet(weights, 1), yamnet(weights, len(new)), new, rounds)
    heard = of_length(said, HEARD, count)
    compared("Silero", VoiceActivity(), silero(count), heard, rounds)
    compared("Whisper", listener, listener, utterances, max(3, rounds // 2))
    compared("MiniLM", TextEncoder(meaning, threads=threads), minilm(meaning, threads), words,
             rounds)  # fmt: skip


def stages(
    weights: Path, count: int, sounds: Sequence[np.ndarray], seconds: int, rounds: int
) -> None:
    """Prints the lines of the stages for so many microphones; nothing is understood."""
    lists = [chunks(each, f"m{n}") for n, each in enumerate(of_length(sounds, seconds, count))]
    net, head = yamnet(weights, NEW * count), SoundHead.shipped()
    staged("sound", lambda: Yamnet(weights / "yamnet"), lambda model: SoundStage(model, head),
           lambda waveforms: net(patches(waveforms)), lists, rounds)  # fmt: skip
    staged("speech", VoiceActivity, lambda model: SpeechStage(model, deaf, deaf), silero(count),
           lists, rounds)  # fmt: skip


def deaf(batch: Sequence[Any]) -> list[Transcript]:
    """A speech model that understands nothing."""
    return [Transcript("", "en", 0.0) for _ in batch]


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips, with audio/ and speech/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--microphones", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=10, help="of live pace, and of each stage")
    parser.add_argument("--threads", type=int, default=2, help="of Whisper and MiniLM")
    asked = parser.parse_args()
    media, weights, lasts = asked.media, asked.weights, asked.seconds * RATE
    said = [decode_audio(str(file)) for file in sorted((media / "speech").glob("*.flac"))]
    files = sorted((media / "audio/sesa_train").glob("*.flac"))[:16]
    sounds = [decode_audio(str(file)) for file in files]
    print("networks, one by one and in a batch:")
    for count in asked.microphones:
        networks(weights, count, said, sounds, asked.threads, asked.rounds)
    print("stages, as they are and with a batch of all microphones for each second:")
    for count in asked.microphones:
        stages(weights, count, sounds, lasts, max(3, asked.rounds // 3))
    print("seconds of sound that a poll completes, of those that complete any, at live pace:")
    for count in asked.microphones:
        found = polls(Yamnet(weights / "yamnet"), of_length(sounds, lasts, count))
        print(f"  {count:2} microphones: {statistics.mean(found):.2f} on average, {max(found)} at"
              f" most; one alone in {found.count(1) / len(found):.0%} of the polls")  # fmt: skip


if __name__ == "__main__":
    main()
