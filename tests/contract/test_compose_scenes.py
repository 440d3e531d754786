"""Composed scenes: the same bytes each time, no clip in two splits, and truth where it is shown."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.fusion.labels import LABELS, SPLITS
from pipeline.errors import ConfigError
from pipeline.types import SECOND, AudioChunk, Report
from tests import reels
from workers.cli import main
from workers.config import loader
from workers.config.yaml_reader import read_yaml
from workers.replay.scene_file import SceneCamera
from workers.replay.scene_records import load_scene, scene_records
from workers.training import clip_manifest
from workers.training.compose import compose
from workers.training.scene_mixer import PlacedAnomaly, SceneRow

HEAD = "path\ttext\tlabel\tkind\tlicence\tsplit\tvisible"
SOUNDS = ("", "gunshot", "glass", "siren")
LOUD = (0.5, 1.5)  # s of each tiny sound


def sound(path: str, label: str = "", split: str = "train") -> str:
    return f"{path}\t\t{label}\tsound\tCC0\t{split}\t"


def video(path: str, visible: str = "always", split: str = "") -> str:
    return f"{path}\t\t\tvideo\tCC0\t{split}\t{visible}"


def told(text: str, label: str = "", split: str = "train") -> str:
    return f"\t{text}\t{label}\treport\tCC0\t{split}\t"


def laid(folder: Path, *rows: str, head: str = HEAD) -> Path:
    """A manifest in a media folder."""
    (folder / "manifest.tsv").write_text("\n".join((head, *rows)) + "\n")
    return folder


def hum(number: int) -> np.ndarray:
    """Two seconds, loud from 0.5 to 1.5; no two are alike."""
    samples = np.zeros(32_000)
    samples[8000:24_000] = 0.2 * np.sin(np.arange(16_000) * (0.05 + number / 100))
    return samples


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, two clips and two texts of each label in each split."""
    folder = tmp_path_factory.mktemp("tiny")
    reels.film(folder / "yard.mkv", [(0, 1), (19.5, 2)])
    reels.film(folder / "hall A.mkv", [(0, 3), (39.5, 4)])
    rows = [video("yard.mkv"), video("hall A.mkv", "5-12,16-28")]
    numbers = itertools.count()
    for split, label, i in itertools.product(SPLITS, SOUNDS, range(2)):
        name = f"{label or 'rain'}-{split}-{i}.wav"
        reels.sound(folder / name, hum(next(numbers)))
        rows.append(sound(name, label, split))
    for split, label, i in itertools.product(SPLITS, ("", *LABELS), range(2)):
        text = f"{split} {label or 'only a drill'} number {i}"
        rows.append(told(text, label, split))
    return laid(folder, *rows)


@pytest.fixture(scope="module")
def made(tiny: Path) -> Path:
    out = tiny.parent / "made"
    compose(tiny, out, scenes=60, seed=7)
    return out


def rows(out: Path) -> list[SceneRow]:
    lines = (out / "scenes.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=SceneRow) for line in lines]


def scenes(out: Path) -> list[Path]:
    return sorted(out.glob("*/*.yaml"))


def anomalies(out: Path) -> list[tuple[SceneRow, PlacedAnomaly]]:
    return [(row, anomaly) for row in rows(out) for anomaly in row.anomalies]


def files(out: Path) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


# What is made


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tiny: Path, made: Path) -> None:
    again, other = tiny.parent / "again", tiny.parent / "other"
    compose(tiny, again, scenes=60, seed=7)
    compose(tiny, other, scenes=60, seed=8)
    assert files(again) == files(made)
    assert files(other)["scenes.jsonl"] != files(made)["scenes.jsonl"]


def test_every_scene_loads_and_is_in_the_table(made: Path) -> None:
    config = loader.load(made / "config.yaml")
    assert set(config.sites) == {"yard", "hall-a"}
    assert {path.stem for path in scenes(made)} == {row.name for row in rows(made)}
    for row in rows(made):
        scene = load_scene(made / row.split / f"{row.name}.yaml")
        assert scene.site == row.site
        assert scene.duration == 30 * SECOND
        assert ("mic" in scene.microphones) is not row.corruption.dead_microphone


def test_a_scene_plays_against_the_written_config(made: Path) -> None:
    config = loader.load(made / "config.yaml")
    row = next(row for row, anomaly in anomalies(made) if anomaly.modalities == ("sound", "report"))
    scene = load_scene(made / row.split / f"{row.name}.yaml")
    records = [record for _, record in scene_records(scene, config.sites[row.site])]
    heard = reels.samples(record for record in records if isinstance(record, AudioChunk))
    anomaly = next(a for a in row.anomalies if a.modalities == ("sound", "report"))
    start = round(anomaly.start * 16_000)
    assert np.abs(heard[start : start + 8000]).max() > 100
    assert {record.text for record in records if isinstance(record, Report)} >= set(anomaly.texts)


def test_shares_hold_by_construction(made: Path) -> None:
    every = rows(made)
    assert Counter(row.split for row in every) == {"train": 36, "val": 9, "test": 15}
    assert sum(bool(row.anomalies) for row in every) in range(29, 32)
    assert sum(row.closed for row in every) in range(29, 32)
    assert sum(row.corruption.dead_microphone for row in every) in range(5, 8)
    shows = [anomaly.modalities for _, anomaly in anomalies(made)]
    assert sum(len(each) == 2 for each in shows) >= len(shows) / 3
    assert {"vision", "sound", "report"} == {word for each in shows for word in each}
    distractors = [distractor for row in every for distractor in row.distractors]
    assert sum(len(each.modalities) == 1 for each in distractors) >= len(distractors) / 3
    assert all(row.distractors for row in every)
    told_of = json.loads((made / "compose.json").read_text())
    assert told_of["anomalies_in_two_modalities"] >= 1 / 3


def test_no_clip_and_no_text_is_used_in_another_split(made: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows(made):
        text = (made / row.split / f"{row.name}.yaml").read_text()
        used = re.findall(r"(train|val|test)(?:-\d\.wav| [a-z])", text.partition("\n")[2])
        seen |= {(row.split, word) for word in used}
    assert seen == {(split, split) for split in SPLITS}


def test_truth_is_that_of_the_table_and_lies_in_the_scene(made: Path) -> None:
    for row in rows(made):
        data, _ = read_yaml(made / row.split / f"{row.name}.yaml")
        truth = [(each["start"], each["end"], each["label"]) for each in data["truth"]]
        assert truth == [(a.start, a.end, a.label) for a in row.anomalies]
        assert all(0 <= start < end <= 30 for start, end, _ in truth)


def test_a_sound_is_true_while_it_is_loud(made: Path) -> None:
    for row, anomaly in anomalies(made):
        if anomaly.modalities == ("sound",):
            scene = load_scene(made / row.split / f"{row.name}.yaml")
            clips = [c for c in scene.microphones["mic"] if c.file.endswith(anomaly.clips[0])]
            spans = [(round(c.at + LOUD[0], 3), round(c.at + LOUD[1], 3)) for c in clips]
            assert (anomaly.start, anomaly.end) in spans


def test_a_report_follows_its_sound_within_six_seconds_and_lasts_one(made: Path) -> None:
    for row, anomaly in anomalies(made):
        if "report" in anomaly.modalities:
            scene = load_scene(made / row.split / f"{row.name}.yaml")
            at = [said.at for said in scene.reports if said.text in anomaly.texts]
            assert any(
                anomaly.start <= moment <= anomaly.start + 6 and moment + 1 <= anomaly.end + 1e-6
                for moment in at
            )


def test_an_intruder_is_true_only_while_lit_and_visible(made: Path) -> None:
    found = [(row, a) for row, a in anomalies(made) if a.modalities == ("vision",)]
    found += [(row, a) for row, a in anomalies(made) if a.modalities == ("vision", "report")]
    assert found
    for row, anomaly in found:
        scene = load_scene(made / row.split / f"{row.name}.yaml")
        shown = moments(scene.cameras["cam"], row)
        assert row.closed
        assert shown[0] - 0.1 <= anomaly.start <= shown[0] + 0.1
        if anomaly.modalities == ("vision",):
            assert shown[-1] - 0.1 <= anomaly.end <= shown[-1] + 0.2


def test_at_night_nobody_is_seen_where_nobody_intrudes(made: Path) -> None:
    for row in rows(made):
        if row.closed and not any("vision" in a.modalities for a in row.anomalies):
            scene = load_scene(made / row.split / f"{row.name}.yaml")
            assert not moments(scene.cameras["cam"], row)


def moments(camera: SceneCamera, row: SceneRow) -> list[float]:
    """Tenths of seconds at which somebody can be seen."""
    spans = ((0, 30),) if row.site == "yard" else ((5, 12), (16, 28))
    hidden = (*camera.dark, *camera.black)
    return [
        k / 10
        for k in range(300)
        if any(a <= k / 10 < b for a, b in spans)
        and not any(span[0] <= k / 10 < span[1] for span in hidden)
    ]


def test_a_dead_microphone_leaves_pictures_and_words(made: Path) -> None:
    for row, anomaly in anomalies(made):
        if row.corruption.dead_microphone:
            assert "sound" not in anomaly.modalities


def test_a_contradicting_report_changes_no_truth(made: Path) -> None:
    found = [a for _, a in anomalies(made) if a.report == "contradicting"]
    assert found
    assert all("drill" in a.texts[-1] and "report" not in a.modalities for a in found)


def test_a_bed_of_noise_has_the_ratio_that_the_table_says(made: Path) -> None:
    ratios = [a.snr_db for _, a in anomalies(made) if a.snr_db is not None]
    assert ratios
    assert all(-15 < ratio < 45 for ratio in ratios)  # the second one of a scene may differ
    firsts = [row.corruption.snr_db for row in rows(made) if row.corruption.snr_db is not None]
    assert all(5 <= ratio <= 25 for ratio in firsts)


def test_quiet_scenes_are_ordinary_and_held_out(tiny: Path, tmp_path: Path) -> None:
    told_of = compose(tiny, tmp_path / "out", scenes=12, seed=1, duration=60, quiet=True)
    assert told_of.splits == {"test": 12}
    assert told_of.seconds == 720
    assert not any(row.anomalies for row in rows(tmp_path / "out"))
    assert not any("train-" in path.read_text() for path in scenes(tmp_path / "out"))


# What is refused


@pytest.mark.parametrize(
    ("rows_", "line", "what"),
    [
        ([sound("a.wav", "gunshoot")], 2, "label `gunshoot` is not known; did you mean `gunshot`?"),
        ([sound("a.wav"), sound("b.wav", split="trian")], 3, "did you mean `train`?"),
        (["a.wav\t\t\tsonud\tCC0\ttrain\t"], 2, "kind `sonud` is not known; did you mean `sound`?"),
        ([sound("a.wav", split="")], 2, "split `` is not known; one of: train, val, test"),
        ([sound("a.wav"), sound("a.wav", split="test")], 3, "`a.wav` is in two splits"),
        ([sound("a.wav"), sound("copy.wav", split="test")], 3, "is in two splits: test here"),
        ([sound("a.wav"), sound("./a.wav")], 3, "is given twice; first in line 2"),
        ([told("Help me!"), told("help  me", split="val")], 3, "the text is in two splits"),
        ([sound("nosuch.wav")], 2, "`nosuch.wav` does not exist"),
        ([sound("/etc/passwd")], 2, "must be a path below the media folder"),
        ([sound("../a.wav")], 2, "must be a path below the media folder"),
        ([sound("out.wav")], 2, "is a link that leaves the media folder"),
        ([sound("")], 2, "the path is missing"),
        ([video("b.wav", "5-2")], 2, "visible `5-2` must be"),
        ([video("b.wav", "sometimes")], 2, "visible `sometimes` must be"),
        ([sound("a.wav") + "always"], 2, "visible is for videos"),
        ([told("")], 2, "a report needs a text"),
        (["a.wav\t\tsound"], 2, "has 3 cells, the header has 7"),
        (["a.wav\thello\t\tsound\tCC0\ttrain\t"], 2, "only a report has a text"),
        (["b.wav\t\tsiren\tvideo\tCC0\t\talways"], 2, "a video has no label"),
        ([told("bell \x07")], 2, "control characters"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, rows_: list[str], line: int, what: str) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for number, name in enumerate(("a.wav", "b.wav")):
        reels.sound(folder / name, hum(number))
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "out.wav").symlink_to(reels.sound(tmp_path / "out.wav", hum(3)))
    with pytest.raises(ConfigError, match=re.escape(f"manifest.tsv:{line}: ")) as error:
        clip_manifest.read(laid(folder, *rows_) / "manifest.tsv", folder)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (HEAD.replace("label", "labels"), "`labels` is no column; did you mean `label`?"),
        (HEAD.replace("\tsplit", ""), "the column `split` is missing"),
        (f"{HEAD}\tpath", "the column `path` is given twice"),
        ("path,text", "columns are separated by tabs"),
    ],
)
def test_a_faulty_header_is_named(tmp_path: Path, head: str, what: str) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.tsv:1: ") as error:
        clip_manifest.read(laid(tmp_path, head=head) / "manifest.tsv", tmp_path)
    assert what in str(error.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        clip_manifest.read(laid(tmp_path, sound("x.wav"), told("")) / "manifest.tsv", tmp_path)
    assert [text.split(":")[1] for text in str(error.value).splitlines()] == ["2", "3"]


def test_a_split_without_ordinary_sound_is_refused(tiny: Path, tmp_path: Path) -> None:
    text = (tiny / "manifest.tsv").read_text()
    kept = [line for line in text.splitlines() if not line.startswith("rain-val")]
    given = tmp_path / "mine.tsv"
    given.write_text("\n".join(kept))
    with pytest.raises(ConfigError, match=r"mine\.tsv: the split `val` has no ordinary sound"):
        compose(tiny, tmp_path / "out", scenes=20, seed=1, manifest=given)
    assert not (tmp_path / "out").exists()


def test_only_what_was_composed_is_replaced(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and not made by compose"):
        compose(tiny, out, scenes=10, seed=1)
    assert files(out) == {"thesis.txt": b"mine"}
    (out / "compose.json").write_text("{}")
    compose(tiny, out, scenes=12, seed=1)
    compose(tiny, out, scenes=10, seed=1)
    assert len(scenes(out)) == 10
    assert (out / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", 0),
        ("--scenes 0", 2),
        ("--seed -1", 2),
        ("--duration 1", 2),
        ("--anomalies 1.5", 2),
        ("--splits 1/2", 2),
        ("--splits nan/1/1", 2),
        ("--splits 0/0/0", 2),
        ("--manifest nosuch.tsv", 2),
    ],
)
def test_the_command_ends_with_its_code(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
) -> None:
    line = ["compose", str(tiny), "--scenes", "10", "--seed", "1", "--out", str(tmp_path / "out")]
    assert main([*line, *words.split()]) == code
    said = capsys.readouterr()
    assert ("10 scenes, 5 min, seed 1" in said.out) is (code == 0)
    assert (code == 0) is not said.err.startswith("fusewatch: ")


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no manifest.tsv.*add --manifest"):
        compose(tmp_path, tmp_path / "out", scenes=1, seed=1)
    with pytest.raises(ConfigError, match="there is no such folder of clips"):
        compose(tmp_path / "no", tmp_path / "out", scenes=1, seed=1, manifest=tmp_path)


# The built-in manifest


def test_the_built_in_manifest_holds_every_clip_and_every_label(media: Path) -> None:
    manifest = clip_manifest.read(clip_manifest.manifest_path(media), media)
    assert manifest.file == clip_manifest.BUILT_IN
    kinds = {".wav", ".ogg", ".flac", ".mp4"}
    folders = [media / name for name in ("audio", "speech", "video")]  # others are for other work
    there = {
        str(p.relative_to(media))
        for folder in folders
        for p in folder.rglob("*")
        if p.suffix in kinds
    }
    assert {clip.path for clip in manifest.clips if clip.path} == there
    for split in SPLITS:
        reports = Counter(clip.label for clip in manifest.of(split, "report"))
        assert min(reports[label] for label in ("", *LABELS)) >= 3
        heard = {clip.label for clip in manifest.of(split, "sound")}
        lacking = {"glass"} if split == "val" else set()  # there are two clips of it
        assert heard == {"", "gunshot", "explosion", "glass", "scream", "siren"} - lacking


def test_no_report_is_nearly_one_of_another_split() -> None:
    cells = [line.split("\t") for line in clip_manifest.BUILT_IN.read_text().splitlines()[1:]]
    texts = [(set(re.findall(r"\w+", c[1].lower())), c[5]) for c in cells if c[3] == "report"]
    near = [
        (a, b)
        for (a, split), (b, other) in itertools.combinations(texts, 2)
        if split != other and len(a & b) > 0.5 * len(a | b)
    ]
    assert not near
