"""What is written once is complete: each name in a table has what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from pipeline import stages
from pipeline.behaviour.rule import BEHAVES
from pipeline.config.rule_kinds import Rule
from pipeline.config.schema import Models
from pipeline.judge.rules import HEARS, READS
from pipeline.judge.vision_rules import SEES
from pipeline.topics import CHUNKS
from workers import graph
from workers.config.adapters import ADAPTERS
from workers.stages.encoders import Encoders

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_of_rule_has_a_judge() -> None:
    assert {*SEES, *BEHAVES, *HEARS, *READS} == set(get_args(Rule))


def test_every_stage_is_made_and_its_encoders_are_loaded() -> None:
    assert tuple(graph.MAKE) == stages.ALL_STAGES
    assert {name for row in stages.TABLE for name in row.encoders} == set(
        Encoders.__struct_fields__
    )


def test_every_stage_has_one_worker_and_every_topic_of_chunks_one_speaker() -> None:
    assert [name for run in stages.WORKERS.values() for name in run] == list(stages.ALL_STAGES)
    assert set(stages.SPEAKS) == set(CHUNKS)
    assert sum(row.speaks for row in stages.TABLE) == len(CHUNKS)


def test_a_worker_is_all_of_faust_or_not_at_all() -> None:
    faust = {row.name for row in stages.TABLE if row.faust}
    assert faust == {name for worker in stages.BY_FAUST for name in stages.WORKERS[worker]}


def test_every_model_of_a_config_has_adapters() -> None:
    assert set(ADAPTERS) == set(Models.__struct_fields__)


@pytest.mark.parametrize(
    "module", sorted({a.module for kinds in ADAPTERS.values() for a in kinds.values()})
)
def test_the_file_of_an_adapter_loads_its_model(module: str) -> None:
    """Its package may be missing here, so that it is not imported."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    assert "\ndef load(path: Path, settings: Model) -> " in file.read_text()
