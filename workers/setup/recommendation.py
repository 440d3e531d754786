"""Proposes a detector, frames a second and poses for a config, from what this machine bears.

All of it is arithmetic on measured times (`machine_speed`). A camera takes

    decoding x frames/s of the stream
    + capture x fps
    + share x fps x (view + looks x detector + persons x pose)

of a core. The share of the frames that are looked at is 1 in the worst case: something moves
everywhere, all the time. In the usual case it is `USUAL`, and one person is in such a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from models.vision.tile_grid import looks
from pipeline.config.model_needs import pose_count
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Camera, Config, Site
from workers.setup.machine_speed import FPS, WIDTH, DetectorSpeed, MachineSpeed

STREAM = (1280, 720)  # px, of a camera that was not read
STREAM_FPS = 25.0  # frames/s, likewise
USUAL = 0.25  # of the frames, and of the seconds of sound
ROOM = 0.7  # of the cores that may be used
KEYFRAMES = 0.5  # frames/s that `decode: keyframes` decodes
LOWER = (5.0, 4.0, 3.0, 2.0, 1.0)  # frames/s that are proposed where there is no room for more
WORST, USUALLY, NO = "worst", "usual", "no"

HEAD = "detector                AP     input     ms a look  looks/s  usual  worst case  enough for"

Place = tuple[str, str]  # site, camera


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a config takes in one case: cores, and runs of the detector a second."""

    cores: float
    looks: float


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A detector with the settings that go with it, and its load."""

    detector: str
    kind: str
    fps: float  # frames/s; the highest of a camera
    poses: int | None  # the most persons of a frame; none: as the config says
    worst: Load
    usual: Load
    fits: str  # worst, usual or no: the case for which this machine is enough


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The proposal, and all that led to it."""

    cameras: int
    microphones: int
    speed: MachineSpeed
    setting: str  # the setting below `models` that the detector is for
    choices: tuple[Choice, ...]  # every detector that is here, with the settings of the config
    best: Choice | None
    read: Mapping[str, float]  # site/camera -> cores of reading it
    unread: Mapping[str, str]  # site/camera -> why it could not be read
    assumed: tuple[str, ...]


def recommend(
    config: Config,
    speed: MachineSpeed,
    read: Mapping[Place, float],
    unread: Mapping[Place, str],
) -> Recommendation:
    """Returns the proposal; `read` are the cores that reading cameras took."""
    loads, sites = _Loads(config, speed, read), config.sites.values()
    choices = [loads.choice(one) for one in speed.detectors]
    return Recommendation(
        cameras=len(loads.cameras),
        microphones=sum(len(site.microphones) for site in sites),
        speed=speed,
        setting=loads.setting,
        choices=tuple(sorted(choices, key=lambda one: (one.worst.cores, one.detector))),
        best=_best(loads),
        read={"/".join(place): cores for place, cores in read.items()},
        unread={"/".join(place): why for place, why in unread.items()},
        assumed=tuple(_assumed(loads)),
    )


def _best(loads: _Loads) -> Choice | None:
    """The detector of the highest precision that fits.

    The worst case must fit, or else the usual one. Where neither does, there are fewer poses, and
    then fewer frames. A detector whose precision is not known is only proposed where it is alone.
    """
    detectors = [one for one in loads.speed.detectors if one.ap] or loads.speed.detectors
    ranked = sorted(detectors, key=lambda one: (-one.ap, one.busy))
    fewer: list[tuple[float | None, int | None]]
    fewer = [(None, poses) for poses in (2, 1) if poses < loads.most_poses]
    fewer += [(fps, min(1, loads.most_poses)) for fps in LOWER if fps < loads.most_fps]
    for settings, fits in (
        ((None, None), (WORST,)),
        *((each, (WORST, USUALLY)) for each in ((None, None), *fewer)),
    ):
        for detector in ranked:
            choice = loads.choice(detector, *settings)
            if choice.fits in fits:
                return choice
    return None


class _Loads:
    """The loads of a config by detector, frames a second and poses."""

    def __init__(self, config: Config, speed: MachineSpeed, read: Mapping[Place, float]) -> None:
        self.config, self.speed, self.read = config, speed, read
        self.cameras: list[tuple[Place, Site, Camera]] = [
            ((site_name, name), site, camera)
            for site_name, site in config.sites.items()
            for name, camera in site.cameras.items()
        ]
        self.most_fps = max((camera.detect.fps for *_, camera in self.cameras), default=0.0)
        self.most_poses = max((pose_count(site, one) for _, site, one in self.cameras), default=0)
        high = [camera.detect.quality == "high" for *_, camera in self.cameras]
        self.setting = "detector_high" if high and all(high) else "detector"
        other = (
            config.models.detector_high if self.setting == "detector" else config.models.detector
        )
        self.other = next((one for one in speed.detectors if one.name == other.weights), None)
        self.mixed = any(high) and not all(high)

    def choice(
        self, detector: DetectorSpeed, fps: float | None = None, poses: int | None = None
    ) -> Choice:
        """The detector with at most so many frames a second and poses, and its load."""
        worst = self._load(detector, fps, poses, usual=False)
        usual = self._load(detector, fps, poses, usual=True)

        def enough(load: Load) -> bool:
            return load.cores <= ROOM * self.speed.cores and load.looks <= ROOM * detector.rate

        return Choice(
            detector=detector.name,
            kind=detector.kind,
            fps=min(fps or self.most_fps, self.most_fps),
            poses=poses,
            worst=worst,
            usual=usual,
            fits=WORST if enough(worst) else USUALLY if enough(usual) else NO,
        )

    def _load(
        self, detector: DetectorSpeed, fps: float | None, poses: int | None, *, usual: bool
    ) -> Load:
        speed, cores, runs = self.speed, 0.0, 0.0
        for place, site, camera in self.cameras:
            detect = camera.detect
            rate, scale = min(detect.fps, fps or detect.fps), (detect.width / WIDTH) ** 2
            share = USUAL if usual and detect.gate == "auto" else 1.0
            persons = min(pose_count(site, camera), poses or 16, 1 if usual else 16)
            used = detector
            if self.mixed and detect.quality == "high":
                used = self.other or detector
            times = looks(*STREAM, detect.tiles)
            view = speed.view * scale + times * max(used.look, used.busy)
            cores += self._reading(place, camera, rate * speed.capture * scale, share)
            cores += share * rate * (view + persons * (speed.pose or 0.0))
            runs += share * rate * times
        for site in self.config.sites.values():
            for microphone in site.microphones.values():
                gated = usual and microphone.hear.gate == "auto"
                cores += (USUAL if gated else 1.0) * (speed.sound or 0.0)
        return Load(cores=cores, looks=runs)

    def _reading(self, place: Place, camera: Camera, capture: float, moving: float) -> float:
        """Cores for decoding a stream, and for motion and JPEG, which take `capture`."""
        if place in self.read:
            return self.read[place]
        pixels = STREAM[0] * STREAM[1] / self.speed.decoded_pixels
        rate = {
            "all": STREAM_FPS,
            "keyframes": KEYFRAMES,
            "auto": moving * STREAM_FPS + (1 - moving) * KEYFRAMES,
        }[camera.detect.decode]
        return rate * self.speed.decode * pixels + capture


def _assumed(loads: _Loads) -> Iterator[str]:
    speed, config = loads.speed, loads.config
    if unread := len(loads.cameras) - len(loads.read):
        yield (
            f"{_counted(unread, 'camera')} not read (`--connect` reads them): taken for"
            f" {STREAM[0]} x {STREAM[1]} at {STREAM_FPS:g} frames/s, with the cost of decoding of"
            " the demo's film, by pixels"
        )
    yield "worst case: every frame is looked at, with all the poses, and all sound is heard"
    yield (
        f"usual case: {USUAL:.0%} of the frames and of the sound pass the gates, with one person"
        " in a frame; with `gate: off` it is all"
    )
    yield f"{1 - ROOM:.0%} of the cores stay free for speech, rules, alerts, the log and peaks"
    if any(site.microphones for site in config.sites.values()):
        yield "speech is not in the load: it costs while somebody speaks, and waits for the rest"
    if any(camera.detect.tiles > 1 for *_, camera in loads.cameras):
        yield "tiles are counted for frames of 16:9"
    if speed.pose is None and loads.most_poses:
        yield "poses are not in the load: their model is not here"
    if speed.sound is None and any(site.microphones for site in config.sites.values()):
        yield "sound is not in the load: its model is not here"
    if loads.mixed and loads.other is None:
        yield "`quality: high` is not in the load: its detector is not here"
    if any(
        isinstance(rule, BehaviourRule) for site in config.sites.values() for rule in site.rules
    ):
        yield f"behaviours were measured at {FPS} frames/s; with fewer they tell less"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def lines(made: Recommendation) -> Iterator[str]:
    """The proposal for a person to read."""
    speed = made.speed
    told = f"{_counted(made.cameras, 'camera')}, {_counted(made.microphones, 'microphone')}"
    yield f"{_counted(speed.cores, 'core')} here; {told}"
    yield ""
    yield "measured, in ms of CPU time"
    wide, high = STREAM
    decode = speed.decode * wide * high / speed.decoded_pixels
    yield f"  decoding a frame of {wide} x {high}: {_ms(decode)}"
    yield f"  motion and JPEG of a frame: {_ms(speed.capture)}"
    yield f"  a frame that is looked at, without the detector: {_ms(speed.view)}"
    yield f"  a pose: {_ms(speed.pose)}; a second of sound: {_ms(speed.sound)}"
    for place, cores in made.read.items():
        yield f"  reading {place}: {cores:.2f} cores"
    for place, why in made.unread.items():
        yield f"  reading {place}: not measured: {why}"
    yield ""
    yield HEAD
    enough = {WORST: "the worst case", USUALLY: "the usual case", NO: "neither"}
    by_name = {one.name: one for one in speed.detectors}
    for choice in made.choices:
        one = by_name[choice.detector]
        yield (
            f"{one.name[-22:]:22}  {f'{one.ap:.3f}' if one.ap else '?':5}"
            f"  {one.size[0]:>4}x{one.size[1]:<4} {_ms(max(one.look, one.busy)):>10}"
            f" {one.rate:>8.0f} {choice.usual.cores:>6.2f} {choice.worst.cores:>11.2f}"
            f"  {enough[choice.fits]}"
        )
    yield from (f"{one.name}: {one.why}" for one in speed.missing)
    yield ""
    yield from _proposal(made)
    yield ""
    yield "assumed"
    yield from (f"  {each}" for each in made.assumed)


def _proposal(made: Recommendation) -> Iterator[str]:
    best = made.best
    if best is None:
        what = "no detector is here" if not made.choices else "this machine is not enough"
        yield f"proposal: none; {what}. Fewer cameras, or a worker on another machine"
        return
    case = "the worst case" if best.fits == WORST else "the usual case; in the worst, frames wait"
    yield f"proposal, which this machine bears in {case} (nothing was written)"
    yield f"  models: {{{made.setting}: {{kind: {best.kind}, weights: {best.detector}}}}}"
    poses = "" if best.poses is None else f", poses: {best.poses}"
    yield f"  each camera: detect: {{fps: {best.fps:g}{poses}}} at most"
    yield (
        f"  expected: {best.usual.cores:.2f} cores usually, {best.worst.cores:.2f} at worst, of"
        f" {made.speed.cores}; {best.usual.looks:.0f} and {best.worst.looks:.0f} looks a second"
    )


def _ms(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds * 1e3:.1f}"
