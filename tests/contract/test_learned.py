"""A head on disk: refused when it does not fit, and kept to what no head may do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from models.fusion.labels import LABELS
from models.fusion.learned_head import CARD_FILE, MODEL_FILE, LearnedHead
from models.fusion.query import HeadQuery
from models.hearing.yamnet_features import CLASSES
from pipeline.config import schema
from pipeline.config.schema import Config, Site
from pipeline.errors import WeightsError
from pipeline.types import SECOND, Presence, Sound, Window
from tests.windows import tiny_head, tokens
from workers.graph import Node
from workers.reload import reload_heads
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import load_heads, site_plan


def test_words_never_lower_a_score(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 6, "report": -6, "speech": -6}))
    alone = head.judge(tokens(sound=1))
    assert alone.score > 0.8
    assert head.judge(tokens(sound=1, report=1, speech=1)).score == alone.score
    raising = LearnedHead.read(tiny_head(tmp_path / "up", {"sound": 3, "report": 3}))
    assert raising.judge(tokens(sound=1, report=1)).score > raising.judge(tokens(sound=1)).score


def test_a_score_alone_is_that_of_the_verdict() -> None:
    head = LearnedHead.shipped()
    seconds = [
        Sound(site="office", source="room", start=0, end=SECOND, loudness_db=loud, embedding=heard)
        for loud, heard in ((-10.0, bytes(2 * CLASSES)), (-60.0, b""))
    ]
    for sound in seconds:
        window = Window(
            site="office",
            index=0,
            start=0,
            end=SECOND,
            observations=(sound,),
            presence={"room": Presence.PRESENT},
        )
        question = HeadQuery(window, ())
        (verdict,) = head([question])
        assert head.score(question) == verdict.score


def test_silencing_what_decided_flips_the_verdict(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 6, "vision": 0.5}))
    window = tokens(sound=1, vision=1)
    verdict = head.judge(window)
    assert verdict.score >= head.threshold
    decided = max(verdict.contributions, key=verdict.contributions.__getitem__)
    assert decided == "sound"
    assert sum(verdict.contributions.values()) == pytest.approx(1, abs=0.01)
    assert head.judge(window.without("vision")).score >= head.threshold
    assert head.judge(window.without("sound")).score < head.threshold


def test_a_window_of_which_nothing_is_known_is_no_evidence(tmp_path: Path) -> None:
    assert LearnedHead.read(tiny_head(tmp_path, {}, bias=5.0)).judge(tokens()).score == 0


def test_words_alone_are_not_judged_by_what_a_network_makes_of_nothing(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"report": -6, "speech": -6}, bias=5.0))
    assert head.judge(tokens(report=1)).score < 0.5
    assert head.judge(tokens(report=1, speech=1)).score < 0.5
    assert head.judge(tokens(report=1, sound=0)).score > 0.9


def test_each_kind_of_words_may_be_left_out_by_itself(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 3, "report": 3, "speech": -6}))
    assert head.judge(tokens(sound=1, report=1, speech=1)) == head.judge(tokens(sound=1, report=1))


def test_a_version_names_the_file(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 1}, version="7"))
    assert head.version == f"tiny 7 ({head.card.sha256[:8]})"


def test_a_recording_is_what_its_windows_say(tmp_path: Path) -> None:
    loud, quiet = tokens(sound=1), tokens(sound=1)
    loud.vectors["sound"][1] = 2  # not the same everywhere: something sounds
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 9}))
    assert head.heard([loud, quiet], ("gunshot", "siren")) == "gunshot"
    assert head.heard([quiet], ("gunshot", "siren")) == ""


def change(folder: Path, what: str) -> None:
    match what:
        case "no card":
            (folder / CARD_FILE).unlink()
        case "card":
            (folder / CARD_FILE).write_text('{"name": 3}')
        case "model":
            (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:-1])
        case "none":
            (folder / MODEL_FILE).unlink()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no card", "holds no fusion head"),
        ("none", "holds no fusion head"),
        ("card", "card.json: "),
        ("model", "is not the file that card.json speaks of"),
    ],
)
def test_a_folder_that_is_no_head_is_refused(tmp_path: Path, what: str, says: str) -> None:
    folder = tiny_head(tmp_path / "head", {})
    change(folder, what)
    with pytest.raises(WeightsError, match=says):
        LearnedHead.read(folder)


def test_a_head_for_other_features_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {}, schema="0-before")
    with pytest.raises(
        WeightsError, match=r"trained on features 0-before.*fusewatch train.*make head"
    ):
        LearnedHead.read(folder)


def rehashed(folder: Path, model: bytes) -> None:
    """Put another model there, of which the card knows."""
    (folder / MODEL_FILE).write_bytes(model)
    card = json.loads((folder / CARD_FILE).read_text())
    card["sha256"] = hashlib.sha256(model).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps(card))


def test_a_model_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {})
    rehashed(folder, b"no network at all")
    with pytest.raises(WeightsError, match=rf"{folder}: {MODEL_FILE} cannot be loaded"):
        LearnedHead.read(folder)


def test_a_model_with_weights_in_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_head(tmp_path, {})
    model = onnx.load(folder / MODEL_FILE)
    onnx.save_model(
        model, folder / MODEL_FILE,
        save_as_external_data=True, location="beside.bin", size_threshold=0,
    )  # fmt: skip
    assert (folder / "beside.bin").stat().st_size
    rehashed(folder, (folder / MODEL_FILE).read_bytes())
    monkeypatch.chdir(folder)  # where ONNX Runtime would look for it
    with pytest.raises(
        WeightsError, match=r"head\.onnx cannot be loaded: it keeps weights in another file"
    ):
        LearnedHead.read(folder)


def test_a_model_with_other_inputs_is_refused(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {})
    model = onnx.load(folder / MODEL_FILE)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value -= 1
    rehashed(folder, model.SerializeToString())
    with pytest.raises(
        WeightsError, match=rf"{MODEL_FILE} takes .*'vision': \[35\].*train it again"
    ):
        LearnedHead.read(folder)


def carded(folder: Path, **changed: object) -> Path:
    """Change what the card says."""
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, **changed}))
    return folder


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels": ["gunshot"]}, r"its labels are gunshot, and those of this Fusewatch are"),
        ({"labels": [*LABELS[1:], LABELS[0]]}, "its labels are explosion, .*train it again"),
        ({"threshold": 99.89}, r"threshold 99\.89 is not above 0 and at most 1"),
        ({"threshold": 0}, "threshold 0.0 is not above 0"),
        ({"threshold": -1}, "threshold -1.0 is not above 0"),
    ],
)
def test_a_card_of_another_head_or_another_scale_is_refused(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    with pytest.raises(WeightsError, match=f"card.json: {says}"):
        LearnedHead.read(carded(tiny_head(tmp_path, {}), **changed))


def test_a_model_with_other_outputs_is_refused(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {}, labels=LABELS[:3])
    carded(folder, labels=list(LABELS))
    with pytest.raises(
        WeightsError, match=rf"{MODEL_FILE} gives .*'classes': \[3\].*train it again"
    ):
        LearnedHead.read(folder)


def test_a_model_for_one_window_at_a_time_is_refused(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {})
    model = onnx.load(folder / MODEL_FILE)
    for given in model.graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 1
    rehashed(folder, model.SerializeToString())
    with pytest.raises(WeightsError, match=f"{MODEL_FILE} cannot judge windows: "):
        LearnedHead.read(folder)


def test_a_model_whose_scores_are_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path, {}, bias=float("nan"))
    with pytest.raises(
        WeightsError, match=rf"{MODEL_FILE} gives what is no probability \(.* nan\)"
    ):
        LearnedHead.read(folder)


def test_a_home_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="~nobody-of-this-name/head holds no fusion head"):
        LearnedHead.read(Path("~nobody-of-this-name/head"))


def sites(head: str) -> Config:
    return Config(version=1, sites={"office": Site(fusion=schema.Fusion(head=head))})


def test_the_config_names_the_head_of_a_site(tmp_path: Path) -> None:
    assert load_heads(sites("rules")) == {}
    folder = tiny_head(tmp_path, {}, version="3")
    assert load_heads(sites(str(folder)))["office"].version.startswith("tiny 3")
    with pytest.raises(WeightsError, match=r"sites\.office\.fusion\.head: .* holds no fusion head"):
        load_heads(sites(str(tmp_path / "gone")))


def test_the_shipped_head_loads_and_fits_these_features() -> None:
    head = load_heads(sites("shipped"))["office"]
    assert head.version.startswith("fusewatch-fusion ")
    assert 0 < head.threshold < 1


def test_sites_of_one_head_share_it(tmp_path: Path) -> None:
    office = Site(fusion=schema.Fusion(head=str(tiny_head(tmp_path, {}))))
    yard = Site(fusion=schema.Fusion(head="rules"))
    found = load_heads(Config(version=1, sites={"a": office, "b": office, "yard": yard}))
    assert found["a"] is found["b"]
    assert set(found) == {"a", "b"}


def test_a_reload_swaps_the_head_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    folder = tiny_head(tmp_path / "head", {}, version="1")
    path = tmp_path / "office.yaml"
    path.write_text(f'version: 1\nsites: {{office: {{fusion: {{head: "{folder}"}}}}}}\n')

    def text(batch: Any) -> list[Any]:
        return [None for _ in batch]

    settings = sites(str(folder))
    plan = site_plan(settings.sites["office"], text, recorded=True)
    stage = FusionStage({"office": plan}, load_heads(settings))
    node = Node(name="fusion", topic="a", out="b", stage=stage)
    tiny_head(folder, {}, version="2")
    reload_heads(path, [node])
    assert stage.heads["office"].version.startswith("tiny 2")
    (folder / MODEL_FILE).write_bytes(b"no model")
    reload_heads(path, [node])
    assert stage.heads["office"].version.startswith("tiny 2")
