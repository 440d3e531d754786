"""Scenes: exact to the frame and the sample, lost where they say so, and always the same bytes."""

from __future__ import annotations

import hashlib
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soxr

from pipeline.codec import encode
from pipeline.config.schema import Camera, Detect, Incidents, Microphone, Site
from pipeline.errors import ConfigError
from pipeline.sources import known_at
from pipeline.topics import AUDIO, FRAMES, REPORTS
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress, Record, Report, Roster
from tests import reels
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import parse
from workers.replay.scene_records import load_scene, scene_records
from workers.runtime.status import Status

START = 1_767_225_600 * SECOND
SITE = Site(
    cameras={"till": Camera(source="device:0", detect=Detect(fps=4))},
    microphones={"hall": Microphone(source="device:default")},
)


def scene(folder: Path, text: str) -> Path:
    path = folder / "scene.yaml"
    path.write_text("site: lobby\nstart: 2026-01-01T00:00:00Z\n" + text)
    return path


def played(path: Path, site: Site = SITE, **more: object) -> list[tuple[str, Record]]:
    return list(scene_records(load_scene(path), site, **more))  # type: ignore[arg-type]


def of(kind: type, records: list[tuple[str, Record]], topic: str = "") -> list:
    return [r for t, r in records if isinstance(r, kind) and topic in ("", t)]


def at(record: Record) -> float:
    return (record.start - START) / SECOND  # type: ignore[attr-defined]


def lost(records: list[tuple[str, Record]], topic: str = FRAMES) -> list[tuple[float, str]]:
    said = of(Progress, records, topic)
    return [((p.upto - START) / SECOND, p.reason) for p in said if not p.alive]


def test_frame_k_is_the_last_with_pts_at_or_before_its_time(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (0.249, 2), (0.251, 3), (0.5, 4), (0.9, 5), (1.2, 6)])
    frames = of(
        FrameChunk, played(scene(tmp_path, "duration: 1.25\ncameras: {till: {file: a.mkv}}"))
    )
    assert [(at(f), reels.number(f)) for f in frames] == [
        (0, 1), (0.25, 2), (0.5, 4), (0.75, 4), (1.0, 5)
    ]  # fmt: skip
    assert [f.seq for f in frames] == [0, 1, 2, 3, 4]
    assert [f.end - f.start for f in frames] == [SECOND // 4] * 5


def test_frame_times_do_not_drift_where_the_rate_is_no_round_number(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(second, 1) for second in range(12)])
    path = scene(tmp_path, "duration: 10\ncameras: {till: {file: a.mkv, fps: 29.97}}")
    frames = of(FrameChunk, played(path))
    assert frames[299].start - START == round(299 * 100 * SECOND / 2997)
    assert len(frames) == 300


def test_a_video_that_begins_late_and_ends_early_is_lost_before_and_after(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (0.5, 2), (1.0, 3)])  # the last lasts .5 s
    path = scene(tmp_path, "duration: 5\ncameras: {till: {file: a.mkv, at: 1.5, fps: 2}}")
    records = played(path)
    assert [(at(f), reels.number(f)) for f in of(FrameChunk, records)] == [
        (1.5, 1),
        (2, 2),
        (2.5, 3),
    ]
    assert [upto for upto, _ in lost(records)] == [0, 1, 1.5, 3, 4, 5, 30]
    assert [reason for _, reason in lost(records)[:4]] == [
        *["not begun"] * 3,
        "the video has ended",
    ]


def test_a_loop_goes_on_with_its_first_frame(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (0.5, 2), (1.0, 3)])
    path = scene(tmp_path, "duration: 3.5\ncameras: {till: {file: a.mkv, loop: true, fps: 2}}")
    assert [reels.number(f) for f in of(FrameChunk, played(path))] == [1, 2, 3, 1, 2, 3, 1]


def test_black_delivers_nothing_and_dark_delivers_black_frames(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(i / 2, 1 + i) for i in range(12)])
    camera = "{file: a.mkv, fps: 2, black: [[1, 3.5]], dark: [[4, 5]]}"
    records = played(scene(tmp_path, f"duration: 6\ncameras: {{till: {camera}}}"))
    shown = {at(f): reels.number(f) for f in of(FrameChunk, records)}
    assert shown == {0: 1, 0.5: 2, 3.5: 8, 4: 0, 4.5: 0, 5: 11, 5.5: 12}
    assert [upto for upto, _ in lost(records)] == [1, 2, 3, 3.5]


def test_a_promise_of_a_lost_source_is_never_broken(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(i / 2, 1) for i in range(12)])
    camera = "{file: a.mkv, fps: 2, black: [[1, 2.3], [4, 4.2]]}"
    upto = 0
    for _, record in played(scene(tmp_path, f"duration: 6\ncameras: {{till: {camera}}}")):
        if isinstance(record, Progress) and record.source == "till":
            assert record.upto >= upto
            upto = record.upto
        if isinstance(record, FrameChunk):
            assert record.start >= upto


def test_sound_is_exact_to_the_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    clip = (rng.integers(-9000, 9000, 16_000) / 2**15).astype(np.float32)
    reels.sound(tmp_path / "a.wav", clip)
    reels.sound(tmp_path / "b.wav", [clip, clip * 0], 16_000)
    clips = "[{file: a.wav, at: 0.3}, {file: b.wav, at: 0.80005, gain_db: -6}]"
    records = played(scene(tmp_path, f"duration: 2.1\nmicrophones: {{hall: {clips}}}"))
    chunks = of(AudioChunk, records)
    wanted = np.zeros(33_600, np.float32)
    wanted[4800:20_800] += clip
    wanted[12_801:28_801] += clip / 2 * np.float32(10 ** (-6 / 20))
    got = reels.samples(chunks)
    assert len(got) == 33_600
    assert np.abs(got - np.rint(wanted * 2**15)).max() <= 1
    assert [at(c) for c in chunks] == [0, 0.5, 1.0, 1.5, 2.0]
    assert all(a.end == b.start for a, b in itertools.pairwise(chunks))
    assert chunks[-1].end == START + 21 * SECOND // 10


def test_s16_at_16_khz_comes_out_as_it_went_in(tmp_path: Path, media: Path) -> None:
    clip = media / "audio/sesa_train/gunshot_011.flac"
    path = scene(tmp_path, f"microphones: {{hall: [{{file: {clip}}}]}}")
    with av.open(str(clip)) as file:
        frames = [f.to_ndarray().reshape(-1) for f in file.decode(audio=0)]
    assert np.array_equal(reels.samples(of(AudioChunk, played(path))), np.concatenate(frames))


def test_other_rates_are_resampled_as_one_piece(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    reels.sound(tmp_path / "a.wav", tone, 44_100)
    path = scene(tmp_path, "duration: 1\nmicrophones: {hall: [{file: a.wav}]}")
    got = reels.samples(of(AudioChunk, played(path))) / 2**15
    whole = soxr.resample(tone, 44_100, 16_000, quality="HQ")
    assert np.abs(got - whole[:16_000]).max() < 1e-4


def test_the_sum_is_clipped_once_at_the_end(tmp_path: Path) -> None:
    for name, level in (("a", 0.9), ("b", 0.9), ("c", -0.9)):
        reels.sound(tmp_path / f"{name}.wav", np.full(8000, level))
    clips = "[{file: a.wav}, {file: b.wav}, {file: c.wav}, {file: a.wav, at: 0.5}, "
    clips += "{file: b.wav, at: 0.5}]"
    got = reels.samples(of(AudioChunk, played(scene(tmp_path, f"microphones: {{hall: {clips}}}"))))
    assert abs(got[4000] - 0.9 * 2**15) <= 1
    assert got[12_000] == 2**15 - 1


def test_what_is_no_number_is_silence_and_counted(tmp_path: Path) -> None:
    clip = np.full(8000, 0.25, np.float32)
    clip[100:103] = np.nan, np.inf, 1e30
    reels.sound(tmp_path / "a.wav", clip)
    status = Status()
    path = scene(tmp_path, "duration: 0.5\nmicrophones: {hall: [{file: a.wav}]}")
    got = reels.samples(of(AudioChunk, played(path, status=status)))
    assert list(got[[99, 100, 101, 102, 103]]) == [8192, 0, 0, 0, 8192]
    assert status.counted("lobby", "hall", "repaired.not-finite") == 3


def test_reports_keep_their_order_and_never_share_an_instant(tmp_path: Path) -> None:
    said = "[{at: 2, author: a, text: x}, {at: 1, author: b, text: y}, {at: 1, author: c, text: z}]"
    reports = of(Report, played(scene(tmp_path, f"duration: 3\nreports: {said}")))
    assert [(r.author, r.start - START) for r in reports] == [
        ("b", SECOND), ("c", SECOND + 1), ("a", 2 * SECOND)
    ]  # fmt: skip
    assert all(r.end == r.start + 1 for r in reports)


def test_a_source_that_the_scene_lacks_is_lost_from_start_to_end(tmp_path: Path) -> None:
    records = played(scene(tmp_path, "duration: 3\nmicrophones: {hall: []}"))
    assert [upto for upto, _ in lost(records)] == [0, 1, 2, 3, 28]
    assert {why for _, why in lost(records)} == {"not in the scene"}
    assert len(reels.samples(of(AudioChunk, records))) == 48_000
    assert lost(records, AUDIO) == []
    assert [p.upto - START for p in of(Progress, records, REPORTS)][:4] == [
        i * SECOND for i in range(4)
    ]


def test_every_source_says_the_roster_first_and_again_and_ends_far_ahead(tmp_path: Path) -> None:
    site = Site(cameras=SITE.cameras, microphones=SITE.microphones,
                incidents=Incidents(close_after=7))  # fmt: skip
    records = played(scene(tmp_path, "duration: 25\nmicrophones: {hall: []}"), site)
    for topic in (FRAMES, AUDIO, REPORTS):
        mine = [r for t, r in records if t == topic]
        assert isinstance(mine[0], Roster)
        assert mine[0].sources == ("till", "hall", "hall/speech", "reports")
        assert [at(r) for r in mine if isinstance(r, Roster)] == [0, 10, 20]
        assert isinstance(mine[-1], Progress)
        assert mine[-1].upto > START + (25 + 4 + 7) * SECOND


def test_records_come_in_the_order_in_which_they_would_be_known(scenes: Path) -> None:
    site = Site(
        cameras={"desk": SITE.cameras["till"]}, microphones={"room": SITE.microphones["hall"]}
    )
    times = [known_at(r) for _, r in played(scenes / "office-break-in.yaml", site)]
    assert times == sorted(times)


def test_a_scene_gives_the_same_bytes_every_time(scenes: Path) -> None:
    site = Site(
        cameras={"till": SITE.cameras["till"]}, microphones={"room": SITE.microphones["hall"]}
    )
    digests = set()
    for _ in range(2):
        digest = hashlib.sha256()
        for _, record in scene_records(load_scene(scenes / "retail-gunshot.yaml"), site):
            digest.update(encode(record))
        digests.add(digest.hexdigest())
    assert len(digests) == 1


def test_after_a_restart_each_source_goes_on_after_its_last_chunk(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(i / 4, i % 12) for i in range(20)])
    reels.sound(tmp_path / "a.wav", np.linspace(-1, 1, 64_000))
    camera = "{file: a.mkv, black: [[1, 2]]}"
    path = scene(
        tmp_path,
        f"duration: 5\ncameras: {{till: {camera}}}\nmicrophones: {{hall: [{{file: a.wav}}]}}\n"
        "reports: [{at: 2, author: a, text: x}, {at: 2, author: b, text: y}]\n",
    )
    whole = played(path)
    for cut in range(0, len(whole), 3):
        after = {
            (topic, record.source): record.start  # type: ignore[attr-defined]
            for topic, record in whole[:cut]
            if isinstance(record, (FrameChunk, AudioChunk, Report))
        }
        rest = played(path, after=after)
        assert [item for item in whole[cut:] if item not in rest] == []
        chunks = [item for item in whole[:cut] if hasattr(item[1], "end")]
        assert [item for item in rest if item in chunks] == []


def test_a_video_that_changes_size_midway_gives_chunks_of_each_size(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.ts", [(i / 25, 2) for i in range(25)], codec="mpeg2video", rate=25)
    reels.film(tmp_path / "b.ts", [(1 + i / 25, 5) for i in range(25)], size=(160, 96),
               codec="mpeg2video", rate=25)  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames = of(
        FrameChunk, played(scene(tmp_path, "duration: 2\ncameras: {till: {file: both.ts}}"))
    )
    sizes = [reels.picture(f).shape[1::-1] for f in frames]
    assert sizes[0] == (64, 48)
    assert sizes[-1] == (160, 96)
    assert [reels.number(f) for f in (frames[0], frames[-1])] == [2, 5]


def test_frames_whose_time_goes_back_are_dropped_and_counted(tmp_path: Path) -> None:
    joined(tmp_path, 10, 11.52)
    status = Status()
    path = scene(tmp_path, "duration: 4\ncameras: {till: {file: both.ts}}")
    frames = of(FrameChunk, played(path, status=status))
    assert [at(f) for f in frames] == [k / 4 for k in range(15)]
    assert status.counted("lobby", "till", "unusable.rewound") == 12


@pytest.mark.parametrize("second", [2, 10, 10.88, 10_000, 26 * 3600])
def test_a_joined_file_goes_on_where_its_first_part_ended(tmp_path: Path, second: float) -> None:
    joined(tmp_path, 10, second)
    status = Status()
    path = scene(tmp_path, "cameras: {till: {file: both.ts}}")
    records = played(path, status=status)
    assert load_scene(path).duration == 4 * SECOND
    assert [at(f) for f in of(FrameChunk, records)] == [k / 4 for k in range(16)]
    assert status.counted("lobby", "till", "unusable.rewound") == 0


def joined(folder: Path, *firsts: float) -> None:
    """`both.ts`: two films of two seconds each, that begin at these times."""
    parts = []
    for name, first in enumerate(firsts):
        shots = [(first + i / 25, 2) for i in range(50)]
        film = reels.film(folder / f"{name}.ts", shots, codec="mpeg2video", rate=25)
        parts.append(film.read_bytes())
    (folder / "both.ts").write_bytes(b"".join(parts))


def test_a_sound_that_only_the_second_part_has_begins_with_it(tmp_path: Path) -> None:
    def part(name: str, *, sound: bool) -> bytes:
        with av.open(str(tmp_path / name), "w", format="mpegts") as file:
            film = file.add_stream("mpeg2video", rate=25)
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
            film.codec_context.gop_size, film.codec_context.max_b_frames = 1, 0
            noise = file.add_stream("mp2", rate=16_000, layout="mono") if sound else None
            for k in range(50):
                shot = av.VideoFrame.from_ndarray(np.full((48, 64), 90, np.uint8), "gray")
                shot.pts, shot.time_base = k, Fraction(1, 25)
                file.mux(film.encode(shot))
                if noise is not None and k < 40:
                    tone = np.full((1, 800), 8000, np.int16)
                    tone[0, ::2] = -8000
                    block = av.AudioFrame.from_ndarray(tone, "s16", "mono")
                    block.rate, block.pts, block.time_base = 16_000, k * 800, Fraction(1, 16_000)
                    file.mux(noise.encode(block))
            for stream in (film, noise):
                if stream is not None:
                    file.mux(stream.encode(None))
        return (tmp_path / name).read_bytes()

    (tmp_path / "both.ts").write_bytes(part("a.ts", sound=False) + part("b.ts", sound=True))
    path = scene(
        tmp_path, "cameras: {till: {file: both.ts}}\nmicrophones: {hall: [{file: both.ts}]}"
    )
    status = Status()
    records = played(path, status=status)
    assert len(of(FrameChunk, records)) == 16
    assert status.counted("lobby", "till", "unusable.rewound") == 0
    heard = np.abs(reels.samples(of(AudioChunk, records)).astype(int))
    assert abs(int(np.argmax(heard > 500)) / 16_000 - 2) < 0.2
    source = media_of(tmp_path / "both.ts")
    assert len([chunk for chunk in source if isinstance(chunk, FrameChunk)]) == 16


def media_of(path: Path) -> RecordedSource:
    """The file as a camera and a microphone, played in a time of its own."""
    now = [START]

    def wait(seconds: float) -> None:
        now[0] += round(seconds * SECOND)

    return RecordedSource(
        parse(str(path), "camera"), "lobby", camera="till", microphone="hall",
        detect=Detect(fps=4), clock=lambda: now[0], count=lambda *_: None, wait=wait,
    )  # fmt: skip


def test_a_hole_is_lost_picture_after_two_seconds(tmp_path: Path) -> None:
    reels.film(
        tmp_path / "a.mkv", [(k / 5, 1) for k in range(5)] + [(8 + k / 5, 2) for k in range(5)]
    )
    path = scene(tmp_path, "duration: 9\ncameras: {till: {file: a.mkv, fps: 5}}")
    records = played(path)
    starts = [at(f) for f in of(FrameChunk, records)]
    assert starts == [k / 5 for k in range(15)] + [8 + k / 5 for k in range(5)]
    assert [upto for upto, _ in lost(records)] == [3, 4, 5, 6, 7, 8]
    assert {reason for _, reason in lost(records)} == {"the video has no picture here"}


def test_a_slow_camera_is_held_for_three_periods(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (8, 2), (16, 3)])
    path = scene(tmp_path, "duration: 20\ncameras: {till: {file: a.mkv, fps: 0.25}}")
    assert [at(f) for f in of(FrameChunk, played(path))] == [0, 4, 8, 12, 16]


@pytest.mark.parametrize("first", [-2.0, -0.48, 0.0, 7.24])
def test_a_video_begins_with_its_first_frame_whatever_the_file_calls_that_moment(
    tmp_path: Path, first: float
) -> None:
    shots = [(first + k / 25, 1 + k // 12) for k in range(36)]
    film = reels.film(tmp_path / "a.ts", shots, codec="mpeg2video", rate=25)
    with av.open(str(film)) as file:
        pts = [frame.pts for frame in file.decode(video=0)]
    assert (min(pts) < 0) == (first < 0)
    status = Status()
    path = scene(tmp_path, "cameras: {till: {file: a.ts, fps: 2}}")
    assert load_scene(path).duration == 36 * SECOND // 25
    frames = of(FrameChunk, played(path, status=status))
    assert [(at(f), reels.number(f)) for f in frames] == [(0, 1), (0.5, 2), (1.0, 3)]
    assert status.counted("lobby", "till", "unusable.rewound") == 0


def test_damage_in_the_middle_costs_frames_and_not_the_scene(tmp_path: Path) -> None:
    whole = reels.film(
        tmp_path / "a.ts", [(i / 25, 3) for i in range(50)], codec="mpeg2video", rate=25
    )
    data = bytearray(whole.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    whole.write_bytes(data)
    path = scene(tmp_path, "duration: 2\ncameras: {till: {file: a.ts}}")
    assert len(of(FrameChunk, played(path))) == 8
    whole.write_bytes(data[: len(data) // 4])
    assert 0 < len(of(FrameChunk, played(path))) < 8


def test_a_lying_wav_gives_what_it_holds(tmp_path: Path) -> None:
    good = reels.sound(tmp_path / "a.wav", np.full(8000, 0.5)).read_bytes()
    more = good.replace((32_000).to_bytes(4, "little"), (2**31).to_bytes(4, "little"))
    (tmp_path / "a.wav").write_bytes(more)
    path = scene(tmp_path, "duration: 1\nmicrophones: {hall: [{file: a.wav}]}")
    got = reels.samples(of(AudioChunk, played(path)))
    assert np.count_nonzero(got) == 8000
    assert len(got) == 16_000


def test_a_file_of_two_sound_tracks_is_told_unless_one_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as file:
        streams = [file.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            file.mux(stream.encode(frame))
    for track, says in ((", track: 2", False), ("", True)):
        path = scene(tmp_path, f"microphones: {{hall: [{{file: two.mkv{track}}}]}}")
        assert of(AudioChunk, played(path))
        assert ("two.mkv: there are 2 sound tracks" in caplog.text) == says


WRONG = [
    ("duration: 1\ncameras: {till: {file: none.mp4}}", 4, "there is no such file"),
    ("duration: 1\ncameras: {till: {file: empty.wav}}", 4, "is empty"),
    ("duration: 1\ncameras: {till: {file: a.wav}}", 4, "holds no picture"),
    ("duration: 1\nmicrophones:\n  hall:\n  - {file: a.mkv}", 6, "holds no sound"),
    ("duration: 1\nmicrophones:\n  hall:\n  - {file: empty.wav}", 6, "is empty"),
    ("duration: 1\nmicrophones:\n  hall:\n  - {file: head.wav}", 6, "no sound can be decoded"),
    ("duration: 1\nmicrophones:\n  hall:\n  - {file: slow.wav}", 6, "sample rate"),
    ("duration: 1\nmicrophones:\n  hall:\n  - {file: list.m3u8}", 6, "is not media"),
    ("duration: 1\ncameras: {till: {file: list.ffconcat}}", 4, "is not media"),
    ("duration: 1\ncameras: {till: {file: a.mkv, black: [[3, 2]]}}", 4, "must be [from, to]"),
    ("duration: 1\ncameras: {till: {file: a.mkv, balck: [[2, 3]]}}", 4, "did you mean `black`"),
    ("duration: 1\nmicrophones: {hall: [{file: a.wav, at: -1}]}", 4, "at least 0"),
    ("duration: 0", 3, "more than 0"),
    ("reports: []", 1, "must be more than 0"),
    ("duration: 1\ncameras: {x: {file: a.mkv}}", 0, "no camera `x` at site `lobby`"),
]


@pytest.mark.parametrize(("text", "line", "told"), WRONG)
def test_a_wrong_scene_is_refused_with_file_and_line(
    tmp_path: Path, text: str, line: int, told: str
) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (1, 2)])
    wav = reels.sound(tmp_path / "a.wav", np.zeros(100)).read_bytes()
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "head.wav").write_bytes(wav[:44])
    reels.sound(tmp_path / "slow.wav", np.zeros(100), 8)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.mkv\n")
    path = scene(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        played(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}:" if line else str(path))


@pytest.mark.parametrize(
    "start", ["2026-01-01", "2026-01-01T00:00:00", "noon", "2026-13-01T00:00:00Z"]
)
def test_a_scene_needs_a_start_with_its_zone(tmp_path: Path, start: str) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text(f"site: lobby\nstart: {start}\nduration: 1\n")
    with pytest.raises(ConfigError, match=r"scene.yaml:2: start: must be a time"):
        load_scene(path)


def test_start_is_exact_and_truth_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text(
        "site: lobby\nstart: 2026-01-01T01:00:00.000000007+01:00\nduration: 1\ntruth: 5\n"
    )
    assert load_scene(path).start == START + 7


def test_a_scene_without_duration_lasts_as_long_as_its_longest_source(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.mkv", [(0, 1), (0.5, 2)])
    reels.sound(tmp_path / "a.wav", np.zeros(24_000))
    text = "cameras: {till: {file: a.mkv, at: 1}}\nmicrophones: {hall: [{file: a.wav, at: 1}]}"
    assert load_scene(scene(tmp_path, text)).duration == 5 * SECOND // 2
