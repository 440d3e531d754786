"""The graph: which stage reads which topic. A new sensor, model or stage is a line here.

frames.v1 --vision--+
audio.v1 ---sound---+--> observations.v1 --fusion--> anomalies.v1 --alert--> alerts.v1
audio.v1 ---speech--+                                                          |
reports.v1 --text---+                                      delivery, jsonl, evidence
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pipeline import topics
from pipeline.config.schema import Config
from pipeline.ports import Stage
from workers.delivery.snapshots import evidence_names
from workers.runtime.status import Status
from workers.stages.alert import AlertStage
from workers.stages.encoders import STAGES, Encoders
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import load_heads, site_plan, timing
from workers.stages.site_state import Head
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage
from workers.stages.text import TextStage
from workers.stages.vision import Policy, VisionStage

LIMIT, MOST = 64, 512  # entries a poll; MOST frames are some 50 MB
POLICY: Mapping[bool, Policy] = {False: "newest", True: "all"}  # by `recorded`


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the graph; `name` is also its consumer group, `limit` its largest poll."""

    name: str
    topic: str
    out: str
    stage: Stage
    limit: int = LIMIT


def nodes(
    settings: Config,
    encoders: Encoders,
    status: Status,
    *,
    recorded: bool,
    stages: Sequence[str] = STAGES,
    judges: Mapping[str, Head] | None = None,
) -> Iterator[Node]:
    """Yields the stages of the graph, or only the named ones, in the order of the records' flow.

    `recorded`: the input is a scene; every frame counts and a lost source is part of the recording.
    `judges`: heads by site, in place of the heads that the config names.
    """
    for name in STAGES:
        if name not in stages:
            continue
        if name == "fusion":
            chosen = load_heads(settings) if judges is None else judges
            yield _fusion(settings, encoders, chosen, recorded=recorded)
        else:
            yield _node(name, settings, encoders, status, recorded=recorded)


def _fusion(
    settings: Config, encoders: Encoders, judges: Mapping[str, Head], *, recorded: bool
) -> Node:
    plans = {
        name: site_plan(site, encoders.text, recorded=recorded)
        for name, site in settings.sites.items()
    }
    return Node(
        name="fusion",
        topic=topics.OBSERVATIONS,
        out=topics.ANOMALIES,
        stage=FusionStage(plans, judges),
    )


def _node(
    name: str, settings: Config, encoders: Encoders, status: Status, *, recorded: bool
) -> Node:
    heard = {(name, room) for name, site in settings.sites.items() for room in site.microphones}
    stage: Stage
    out, limit = topics.OBSERVATIONS, LIMIT
    match name:
        case "vision":
            topic, policy = topics.FRAMES, POLICY[recorded]
            if not recorded:  # with several frames of each camera in a poll, some can be let go
                cameras = sum(len(site.cameras) for site in settings.sites.values())
                limit = min(max(LIMIT, 4 * cameras), MOST)
            stage = VisionStage(encoders.detector, policy=policy, status=status)
        case "sound":
            topic = topics.AUDIO
            stage = SoundStage(encoders.sound, encoders.sound_head, status, heard)
        case "speech":
            topic = topics.AUDIO
            stage = SpeechStage(encoders.voice, encoders.speech, encoders.text, status, heard)
        case "text":
            topic, stage = topics.REPORTS, TextStage(encoders.text)
        case _:
            topic, out, stage = topics.ANOMALIES, topics.ALERTS, _alert(settings)
    return Node(name=name, topic=topic, out=out, stage=stage, limit=limit)


def _alert(settings: Config) -> AlertStage:
    cameras = {name: tuple(site.cameras) for name, site in settings.sites.items()}
    return AlertStage(
        {name: timing(site) for name, site in settings.sites.items()},
        lambda site, alert, revision: evidence_names(site, alert, revision, cameras.get(site, ())),
    )
