"""Which models a config needs: those for its cameras, its microphones, and its texts.

A site without microphones has no sound and no speech. Its reports are compared with words without a
model; a phrase rule compares meanings, and needs the text model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.rule_kinds import PhraseRule
from pipeline.config.schema import Config, Model
from pipeline.stages import ALL_STAGES, TABLE

SEEING, HEARING = ("detector",), ("sound", "sound_head", "voice", "speech")
TEXT = "text"
ENCODERS = (*SEEING, *HEARING, TEXT)  # the fields of `workers.stages.encoders.Encoders`


def needed_encoders(
    config: Config,
    stages: Sequence[str] = ALL_STAGES,
    *,
    cameras: bool = True,
    microphones: bool = True,
) -> frozenset[str]:
    """The encoders that `stages` need for the sources and rules of `config`.

    `cameras` or `microphones` is false for a recording that has none of them. The text model
    follows the config alone: a report has the same embedding live and in a replay.
    """
    sites = config.sites.values()
    needed: set[str] = set()
    if cameras and any(site.cameras for site in sites):
        needed.update(SEEING)
    heard = any(site.microphones for site in sites)
    if microphones and heard:
        needed.update(HEARING)
    if heard or any(isinstance(rule, PhraseRule) for site in sites for rule in site.rules):
        needed.add(TEXT)
    used = {name for row in TABLE if row.name in stages for name in row.encoders}
    return frozenset(needed & used)


def needed_models(config: Config, stages: Sequence[str] = ALL_STAGES) -> Mapping[str, Model]:
    """The settings below `models` that `stages` need, by name."""
    needed = needed_encoders(config, stages)
    names = config.models.__struct_fields__
    return {name: getattr(config.models, name) for name in names if name in needed}
