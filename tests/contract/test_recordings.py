"""Recordings on the disk: they are read as they were written, and damage costs only itself."""

from __future__ import annotations

import os
import random
import stat
import struct
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from mcap.reader import make_reader

from pipeline import topics
from pipeline.bus.private import FILE, FOLDER
from pipeline.config.judging import site_config
from pipeline.config.schema import Models, Site
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from pipeline.types import ns
from tests.make import progress
from tests.recorded import BEGIN, entries, entry, frame, of_topic, write
from workers.bus.history import History
from workers.recordings.folder_writer import FolderWriter, Lost
from workers.recordings.mcap_writer import McapWriter, Written
from workers.recordings.metadata import About
from workers.recordings.recording import Recording, open_recording

ALL = (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS)
DAY = 86_400


def read(recording: Recording) -> list[tuple[str, Entry]]:
    return [(topic, one) for topic in recording.topics for one in recording.appended(topic)]


def grouped(made: list[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
    return [(topic, one) for topic in topics.ALL_TOPICS for one in of_topic(made, topic)]


@pytest.mark.parametrize("finish", [True, False], ids=["finished", "killed"])
def test_it_is_read_as_it_was_written(tmp_path: Path, finish: bool) -> None:
    made = entries(30)
    write(tmp_path / "out", made, finish=finish)
    history: History = open_recording(tmp_path / "out")
    recording = open_recording(tmp_path / "out")
    assert read(recording) == grouped(made)
    assert list(history.appended(topics.FRAMES)) == of_topic(made, topics.FRAMES)
    assert recording.losses == []
    assert bool(recording.unfinished) is not finish
    assert list(recording.topics) == list(ALL)
    assert list(recording.sites) == ["office"]
    assert recording.sources == {"office": ["desk", "room"]}
    assert recording.about.since == ns(BEGIN)
    assert recording.oldest(topics.FRAMES) == {0: 0}
    assert recording.span[0] == ns(BEGIN)


def test_a_span_is_read_with_its_neighbours_and_not_the_rest(tmp_path: Path) -> None:
    made = of_topic(entries(120), topics.OBSERVATIONS)
    write(tmp_path, [(topics.OBSERVATIONS, one) for one in made], each=20)
    start, end = ns(BEGIN + 50), ns(BEGIN + 60)
    found = list(open_recording(tmp_path).between(topics.OBSERVATIONS, start, end))
    first = made.index(found[0])
    assert found == made[first : first + len(found)]
    wanted = [n for n, one in enumerate(made) if start <= _time(one) < end]
    assert first < wanted[0]
    assert wanted[-1] < first + len(found) - 1
    assert len(found) < len(made) // 3


def _time(one: Entry) -> int:
    from pipeline import codec
    from pipeline.types import event_start

    return event_start(codec.decode(one.value))


def test_times_that_jump_change_no_order(tmp_path: Path) -> None:
    times = [0, 1, -3600, 2, 365 * DAY, 3, -BEGIN - 5, 4]
    made = [
        (topics.OBSERVATIONS, entry(progress(BEGIN + at), offset, topics.OBSERVATIONS))
        for offset, at in enumerate(times)
    ]
    write(tmp_path, made, each=2)
    assert read(open_recording(tmp_path)) == made


def test_offsets_beyond_32_bits_and_partitions_come_back(tmp_path: Path) -> None:
    made = [
        (topics.OBSERVATIONS, entry(progress(BEGIN + n), 2**32 - 3 + n, topics.OBSERVATIONS, part))
        for n in range(6)
        for part in (4, 1)
    ]
    write(tmp_path, made, each=5)
    found = [one for _, one in read(open_recording(tmp_path))]
    assert found == sorted((one for _, one in made), key=lambda one: (one.partition, one.offset))


def test_files_are_cut_by_size_and_time_and_read_as_one(tmp_path: Path) -> None:
    now, made = [0.0], entries(60)
    writer = FolderWriter(
        tmp_path, About(log="test"), monotonic=lambda: now[0], most_bytes=300_000, most_seconds=20
    )
    for number, (topic, one) in enumerate(made):
        writer.add(topic, one)
        now[0] = number / 10
        writer.tick()
    writer.close()
    files = sorted(tmp_path.glob("*.mcap"))
    assert len(files) > 3
    assert read(open_recording(tmp_path)) == grouped(made)
    assert list(open_recording(files[1:]).files) == files[1:]
    assert writer.bytes == sum(file.stat().st_size for file in files)
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == FILE
    assert stat.S_IMODE(tmp_path.stat().st_mode) == FOLDER


def test_names_sort_by_time_also_if_the_clock_goes_back(tmp_path: Path) -> None:
    times = iter([2_000_000_000 * 10**9] * 2 + [1_000_000_000 * 10**9] * 20)
    made = entries(3)
    for part in (made[:10], made[10:20], made[20:]):
        writer = FolderWriter(tmp_path, About(log="test"), clock=lambda: next(times))
        for topic, one in part:
            writer.add(topic, one)
        writer.close()
    assert read(open_recording(tmp_path)) == grouped(made)


def test_each_file_begins_with_what_judges_the_sites(tmp_path: Path) -> None:
    made = entries(20)
    config = site_config(
        "office", Site(), Models(), ["yolox_nano"], start=5, head="rules", head_sha256=""
    )
    first = entry(config, 0, topics.CONFIGS)
    now = [0.0]
    writer = FolderWriter(tmp_path, About(log="test"), monotonic=lambda: now[0], most_seconds=5)
    writer.add(topics.CONFIGS, first)
    for number, (topic, one) in enumerate(made):
        writer.add(topic, one)
        now[0] = number / 10
        writer.tick()
    writer.close()
    files = sorted(tmp_path.glob("*.mcap"))
    assert len(files) > 2
    for file in files:
        assert list(open_recording(file).appended(topics.CONFIGS)) == [first]
        with file.open("rb") as opened:
            told = {one.name: one.metadata for one in make_reader(opened).iter_metadata()}
        assert told["fusewatch.config"]["hash"] == config.hash
        assert told["fusewatch.config"]["model.detector"].startswith("yolox_nano ")
        assert told["fusewatch.recording"]["version.fusewatch"]
    assert read(open_recording(tmp_path)) == grouped([(topics.CONFIGS, first), *made])


def test_entries_that_a_killed_recorder_wrote_twice_are_read_once(tmp_path: Path) -> None:
    made = entries(20)
    write(tmp_path, made[:120], finish=False)
    write(tmp_path, made[80:])
    assert read(open_recording(tmp_path)) == grouped(made)


def test_files_that_were_renamed_are_read_in_their_order(tmp_path: Path) -> None:
    made = entries(10)
    (first,) = write(tmp_path / "one", entries(5))
    (second,) = write(tmp_path / "two", entries(5, first=5))
    (tmp_path / "both").mkdir()
    first.rename(tmp_path / "both/later.mcap")
    second.rename(tmp_path / "both/earlier.mcap")
    recording = open_recording(tmp_path / "both")
    assert read(recording) == grouped(made)
    assert [file.name for file in recording.files] == ["later.mcap", "earlier.mcap"]


def test_a_first_file_without_its_begin_does_not_hide_where_the_run_up_ends(
    tmp_path: Path,
) -> None:
    write(tmp_path, entries(1))
    (tmp_path / "20200101T000000.000000Z.mcap").write_bytes(b"")
    assert open_recording(tmp_path).about.since == ns(BEGIN)


def test_what_was_not_recorded_is_a_loss(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, About(log="test"))
    made = entries(4)
    for topic, one in made:
        writer.add(topic, one)
    writer.lost(Lost(topic=topics.FRAMES, partition=0, first=8, count=70, reason="retention"))
    writer.close()
    recording = open_recording(tmp_path)
    assert read(recording) == grouped(made)
    (loss,) = recording.losses
    assert "frames.v1: 70 entries from offset 8 of partition 0 on" in str(loss)


def test_recordings_of_two_logs_are_refused(tmp_path: Path) -> None:
    for log in ("one", "two"):
        writer = FolderWriter(tmp_path, About(log=log))
        for topic, one in entries(2):
            writer.add(topic, one)
        writer.close()
    with pytest.raises(ConfigError, match="are not of one recording"):
        open_recording(tmp_path)


def test_a_failed_write_leaves_a_readable_file(tmp_path: Path) -> None:
    writer = McapWriter(tmp_path / "a.mcap", "test")
    channel = writer.channel("/a", "json", 0, {})
    writer.add("records", [Written(channel, 1, 1, b"{}")])
    writer.flush()
    size = writer.size
    assert size == (tmp_path / "a.mcap").stat().st_size
    writer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.metadata("more", {})


# -- damage


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, list[tuple[str, Entry]]]:
    made = entries(24)
    (file,) = write(tmp_path / "whole", made)
    return file, made


def spoilt(file: Path, folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / file.name
    path.write_bytes(content)
    return path


def is_part(found: list[Entry], made: list[Entry]) -> bool:
    left = iter(made)
    return all(one in left for one in found)


def test_a_file_cut_off_anywhere_gives_what_was_whole(
    whole: tuple[Path, list[tuple[str, Entry]]], tmp_path: Path
) -> None:
    file, made = whole
    content = file.read_bytes()
    most = 0
    for cut in sorted(random.Random(5).sample(range(9, len(content)), 60)):
        path = spoilt(file, tmp_path / "cut", content[:cut])
        try:
            recording = open_recording(path)
        except ConfigError:
            assert most == 0
            continue
        found = read(recording)
        for topic in ALL:
            part = of_topic(found, topic)
            assert part == of_topic(made, topic)[: len(part)]
        assert len(found) >= most
        most = len(found)
        assert recording.losses or recording.unfinished or found == grouped(made)


def test_a_flipped_bit_costs_its_chunk_and_is_named(
    whole: tuple[Path, list[tuple[str, Entry]]], tmp_path: Path
) -> None:
    file, made = whole
    content = file.read_bytes()
    complete = 0
    for at in random.Random(7).sample(range(40, len(content)), 150):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        path = spoilt(file, tmp_path / "flipped", bytes(flipped))
        try:
            recording = open_recording(path)
        except ConfigError:
            continue
        found = read(recording)
        complete += found == grouped(made)
        assert found == grouped(made) or recording.losses
        for topic in ALL:
            assert is_part(of_topic(found, topic), of_topic(made, topic))
        assert len(found) > len(made) / 2
    assert complete > 0  # those of the index and of the padding cost nothing


def test_damage_in_a_file_without_an_index_costs_only_itself(tmp_path: Path) -> None:
    made = entries(24)
    (file,) = write(tmp_path / "killed", made, finish=False)
    content = file.read_bytes()
    for at in random.Random(9).sample(range(60, len(content)), 80):
        damaged = bytearray(content)
        damaged[at : at + 9] = b"\xff" * len(damaged[at : at + 9])
        path = spoilt(file, tmp_path / "damaged", bytes(damaged))
        recording = open_recording(path)
        found = read(recording)
        assert found == grouped(made) or recording.losses
        for topic in ALL:
            assert is_part(of_topic(found, topic), of_topic(made, topic))
        assert len(found) > len(made) / 2


@pytest.mark.parametrize("length", [2**63, 2**40, 2**31, 1 << 28, 0])
def test_lengths_that_lie_take_no_memory(
    whole: tuple[Path, list[tuple[str, Entry]]], tmp_path: Path, length: int
) -> None:
    file, _ = whole
    content = file.read_bytes()
    tracemalloc.start()
    for at in [9, *random.Random(11).sample(range(9, len(content) - 8), 12)]:
        lying = bytearray(content)
        lying[at : at + 8] = struct.pack("<Q", length)
        path = spoilt(file, tmp_path / "lying", bytes(lying))
        try:
            read(open_recording(path))
        except ConfigError:
            continue
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\x89MCAP0\r\n", "the begin of the file"),
        (b"a text, and no recording", "is no MCAP file"),
        (b"\x89MCA", "nothing of the recording can be read"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.mcap").write_bytes(content)
    for path in (tmp_path / "x.mcap", tmp_path):
        with pytest.raises(ConfigError, match=why):
            open_recording(path)


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        open_recording(tmp_path / "none.mcap")
    with pytest.raises(ConfigError, match="holds no recording"):
        open_recording(tmp_path)


def test_a_file_of_another_profile_is_refused(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with (tmp_path / "robot.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        writer.finish()
    with pytest.raises(ConfigError, match=r"robot\.mcap: is an MCAP file of the profile 'ros2'"):
        open_recording(tmp_path / "robot.mcap")


def test_a_channel_that_is_missing_or_not_ours_is_named(tmp_path: Path) -> None:
    made = entries(2)
    write(tmp_path, made)
    writer = McapWriter(tmp_path / "99990101T000000.000000Z.mcap", "test")
    other = writer.channel("/other", "json", 0, {"made": "by another"})
    ours = writer.channel(
        "/ours",
        "json",
        77,  # a schema that is not there
        {"topic": topics.FRAMES, "partition": "0", "site": "office", "source": "desk", "kind": "X"},
    )
    writer.add("records", [Written(other, 1, 1, b"{}"), Written(ours, 1, 900, b"[]")])
    writer.finish()
    recording = open_recording(tmp_path)
    assert of_topic(read(recording), topics.FRAMES) == of_topic(made, topics.FRAMES)
    told = [str(loss) for loss in recording.losses]
    assert any("no channel 1 of ours is known" in line for line in told)
    assert any("not a message of a recording" in line for line in told)


def test_an_independent_reader_finds_the_same_messages(tmp_path: Path) -> None:
    made = entries(12)
    (file,) = write(tmp_path, made)
    with file.open("rb") as opened:
        reader = make_reader(opened, validate_crcs=True)
        summary = reader.get_summary()
        messages = list(reader.iter_messages(log_time_order=False))
    assert summary is not None
    assert summary.statistics is not None
    media = len(of_topic(made, topics.FRAMES)) + len(of_topic(made, topics.AUDIO))
    assert len(messages) == len(made) + media == summary.statistics.message_count
    assert {schema.name for schema, _, _ in messages if schema} >= {
        "foxglove.CompressedImage",
        "foxglove.RawAudio",
        "fusewatch.Detections",
    }


def test_reading_holds_a_chunk_and_not_the_file(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, About(log="test"), most_bytes=1 << 30)
    for number in range(4000):
        shown = msgspec.structs.replace(frame(BEGIN + number, number), data=os.urandom(10_000))
        writer.add(topics.FRAMES, entry(shown, number, topics.FRAMES))
    writer.close()
    assert writer.bytes > 30 << 20
    tracemalloc.start()
    assert sum(1 for _ in open_recording(tmp_path).appended(topics.FRAMES)) == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20
