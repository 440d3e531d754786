"""Builds the stages of the graph; a new stage is a row in `pipeline/stages.py` and a line here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from models.fusion.head import Head
from pipeline.config.model_needs import pose_count
from pipeline.config.rule_kinds import SoundRule
from pipeline.config.schema import Config, Detect, Hear
from pipeline.judge.refusal import CollectorOf
from pipeline.limits import MAX_RECORD_BYTES
from pipeline.ports import Bus, Stage
from pipeline.run import Runner
from pipeline.stages import ALL_STAGES, TABLE
from pipeline.topics import FRAMES
from workers.delivery.snapshots import evidence_names
from workers.runtime.status import RefusalCounts, Status
from workers.stages.alert import AlertStage
from workers.stages.encoders import Encoders
from workers.stages.fusion import FusionStage
from workers.stages.overload import SOUND_LIMITS, SPEECH_LIMITS, HearingLoad, HearingPace
from workers.stages.site_plan import load_heads, site_incidents, site_plan
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage
from workers.stages.text import TextStage
from workers.stages.vision import Policy, VisionStage

POLL_ENTRIES, MAX_POLL_FRAMES = 64, 512  # entries a poll; 512 frames are some 50 MB
POLICY: Mapping[bool, Policy] = {False: "newest", True: "all"}  # by `lossless`


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the graph; `name` is also its consumer group, `limit` its largest poll."""

    name: str
    topic: str
    out: str
    stage: Stage
    limit: int = POLL_ENTRIES

    def runner(self, bus: Bus, max_bytes: int = MAX_RECORD_BYTES) -> Runner:
        """A runner of the stage on a bus; a record above `max_bytes` goes to the dead topic."""
        return Runner(
            self.stage,
            bus,
            topic=self.topic,
            group=self.name,
            out=self.out,
            limit=self.limit,
            max_bytes=max_bytes,
        )


class StageParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that stages are built from; `judges` are heads by site (None: as in the config).

    `lossless`: nothing gives way where a stage is slow. `judged` are the sites that are judged
    (None: all). `refusals` gives who takes what stood in the way of alerts; None: live, it is
    counted.
    """

    settings: Config
    encoders: Encoders
    status: Status
    recorded: bool
    lossless: bool
    judges: Mapping[str, Head] | None
    judged: Container[str] | None = None
    refusals: CollectorOf | None = None
    load: HearingLoad = msgspec.field(default_factory=HearingLoad)

    @property
    def seen(self) -> dict[tuple[str, str], Detect]:
        """Site and name of every camera, with its settings; `poses` is a number."""
        sites = self.settings.sites
        return {
            (name, camera): msgspec.structs.replace(seen.detect, poses=pose_count(site, seen))
            for name, site in sites.items()
            for camera, seen in site.cameras.items()
        }

    @property
    def heard(self) -> dict[tuple[str, str], Hear]:
        """Site and name of every microphone, with its settings."""
        sites = self.settings.sites
        return {
            (name, room): heard.hear
            for name, site in sites.items()
            for room, heard in site.microphones.items()
        }

    @property
    def instant(self) -> set[str]:
        """The sites with a rule for sounds, which are told early."""
        sites = self.settings.sites
        return {name for name, s in sites.items() if any(isinstance(r, SoundRule) for r in s.rules)}


def nodes(  # noqa: PLR0913
    settings: Config,
    encoders: Encoders,
    status: Status,
    *,
    recorded: bool,
    stages: Sequence[str] = ALL_STAGES,
    judges: Mapping[str, Head] | None = None,
    lossless: bool | None = None,
    judged: Container[str] | None = None,
    refusals: CollectorOf | None = None,
) -> Iterator[Node]:
    """Yields the stages of the graph, or only the named ones, in the order of the records' flow.

    `recorded`: the input is a scene; every frame counts and a lost source is part of the recording.
    `judges`: heads by site, in place of the heads that the config names. `lossless`: every frame
    counts, though the input was live; by default as `recorded`. `judged`: only these sites are
    judged. `refusals` gives the collector of what stood in the way of a site's alerts.
    """
    parts = StageParts(
        settings=settings,
        encoders=encoders,
        status=status,
        recorded=recorded,
        lossless=recorded if lossless is None else lossless,
        judges=judges,
        judged=judged,
        refusals=refusals,
    )
    for row in TABLE:
        if row.name in stages:
            yield Node(
                name=row.name,
                topic=row.reads,
                out=row.writes,
                stage=MAKE[row.name](parts),
                limit=_limit(parts) if row.reads == FRAMES else POLL_ENTRIES,
            )


def _limit(of: StageParts) -> int:
    """Entries a poll; a live poll holds several frames a camera, so that some can be skipped."""
    cameras = sum(len(site.cameras) for site in of.settings.sites.values())
    return POLL_ENTRIES if of.lossless else min(max(POLL_ENTRIES, 4 * cameras), MAX_POLL_FRAMES)


def _fusion(of: StageParts) -> FusionStage:
    plans = {
        name: site_plan(site, of.encoders.text, recorded=of.recorded)
        for name, site in of.settings.sites.items()
    }
    heads = load_heads(of.settings) if of.judges is None else of.judges
    refusals: CollectorOf = of.refusals or (lambda site: None)
    if of.refusals is None and not of.lossless:
        refusals = partial(RefusalCounts, of.status)
    return FusionStage(plans, heads, of.status.presence, of.judged, refusals)


def _alert(of: StageParts) -> AlertStage:
    sites = of.settings.sites

    def names(site: str, group: str, alert: str, revision: int) -> tuple[str, ...]:
        cameras = tuple(sites[site].cameras) if site in sites else ()
        shown = (group,) if group in cameras else cameras
        return evidence_names(site, alert, revision, shown)

    plans = {name: site_incidents(site) for name, site in sites.items()}
    return AlertStage(plans, names, of.refusals or (lambda site: None))


MAKE: Mapping[str, Callable[[StageParts], Stage]] = {
    "vision": lambda of: VisionStage(
        of.encoders.detector,
        policy=POLICY[of.lossless],
        status=of.status,
        known=of.seen,
        pose=of.encoders.pose,
        detector_high=of.encoders.detector_high,
    ),
    "sound": lambda of: SoundStage(
        of.encoders.sound,
        of.encoders.sound_head,
        of.status,
        of.heard,
        of.instant,
        None if of.lossless else HearingPace(SOUND_LIMITS, of.load, leads=True),
    ),
    "speech": lambda of: SpeechStage(
        of.encoders.voice,
        of.encoders.speech,
        of.encoders.text,
        of.status,
        of.heard,
        None if of.lossless else HearingPace(SPEECH_LIMITS, of.load),
    ),
    "text": lambda of: TextStage(of.encoders.text),
    "fusion": _fusion,
    "alert": _alert,
}
