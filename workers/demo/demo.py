"""The demo: replays a recorded break-in, delivers its alerts, verifies and prints them."""

from __future__ import annotations

import base64
import secrets
import time
from pathlib import Path

import msgspec
from rich.console import Console

from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Webhook
from pipeline.errors import ConfigError
from pipeline.types import SECOND, Alert, rfc3339
from workers import daemon
from workers.config import loader
from workers.config.secrets import Secrets
from workers.delivery.cloudevent import event_id
from workers.delivery.jsonl import write_all
from workers.delivery.receiver import Receiver
from workers.delivery.snapshots import SnapshotSink
from workers.delivery.subscribers import deliver_now
from workers.replay.scene_replay import Replayed, replay
from workers.stages.encoders import load_encoders

ROOT = Path(__file__).resolve().parents[1]
DEVICE = Path("/dev/video0")
OUT_FOLDER = Path("out/demo")
NO_SCENE = (
    "there is no recorded scene and no webcam here. Give a scene (docs/guides/scenes.md says how to"
    " make one of your own clips): fusewatch demo --scene FILE; or plug in a webcam and try again"
)


def example(name: str, root: Path = ROOT) -> Path:
    """The path of an example config; raises ConfigError if the source tree is not there."""
    path = root / f"deploy/examples/{name}.yaml"
    if not path.is_file():
        msg = (
            "the example configs come with the sources (deploy/examples) and not with this install;"
            " name one of yours: fusewatch demo --config FILE --scene FILE, or `fusewatch init`"
        )
        raise ConfigError(msg)
    return path


def demo(config: Path | None, scene: Path | None) -> int:
    """Replays, delivers, verifies and prints; returns 0 when every alert arrived, else 3.

    Without a scene it runs the daemon on the webcam. Raises ConfigError.
    """
    console = Console(highlight=False, soft_wrap=True)
    if scene is None:
        if not DEVICE.exists():
            raise ConfigError(NO_SCENE)
        console.print(f"no scene given: watching {DEVICE} until Ctrl-C")
        return daemon.run(
            config or example("webcam"), scene=None, state=OUT_FOLDER / "state", speed=None
        )
    settings = loader.load(config or example("office"))
    began = time.monotonic()
    encoders = load_encoders(settings.models, recorded=True)
    console.print(f"models loaded in {time.monotonic() - began:.1f} s; replaying {scene.name} ...")
    bus = MemoryBus()
    played = replay(settings, scene, encoders, bus=bus)
    write_all(OUT_FOLDER / "alerts.jsonl", played.alerts)
    pictures = SnapshotSink(OUT_FOLDER / "evidence", bus)
    for alert in played.alerts:
        pictures.send(alert)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with Receiver(secret) as receiver:
        hook = Webhook(url=receiver.url, secret=secret, name="demo")
        deliver_now(msgspec.structs.replace(settings, webhooks=(hook,)), played.alerts, Secrets())
        arrived = set(receiver.events)
    _tell(console, played, arrived)
    return 0 if arrived == {event_id(alert) for alert in played.alerts} else 3


def _tell(console: Console, played: Replayed, arrived: set[str]) -> None:
    lasted = (played.scene.end - played.scene.start) / SECOND
    console.print(
        f"{lasted:g} s of {played.scene.site} in {played.seconds:.1f} s:"
        f" {played.factor:.1f} times real time\n"
    )
    for alert in played.alerts:
        _tell_one(console, played, alert, event_id(alert) in arrived)
    console.print(f"{len(arrived)} of {len(played.alerts)} webhooks arrived, signatures verified.")
    console.print(
        f"Alerts: {OUT_FOLDER / 'alerts.jsonl'}    pictures with boxes: {OUT_FOLDER / 'evidence'}/"
    )


def _tell_one(console: Console, played: Replayed, alert: Alert, arrived: bool) -> None:
    after = (alert.time - played.scene.start) / SECOND
    colour = {"opened": "bold red", "updated": "yellow", "closed": "green"}[alert.state]
    console.print(
        f"[{colour}]{after:6.1f} s  {alert.state}[/]  {', '.join(alert.labels)} at {alert.site}"
        f"  (severity {alert.severity}, score {alert.score:.2f})"
    )
    end = "goes on" if alert.end is None else f"to {rfc3339(alert.end)[11:19]}"
    rules = ", ".join(alert.rules)
    console.print(f"          from {rfc3339(alert.start)[11:19]}, {end}; rules: {rules}")
    for reason in alert.reasons:
        console.print(f"          - {reason}", markup=False)
    for text in alert.transcript:
        console.print(f'          "{text}"', markup=False)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in alert.contributions.items())
    sources = ", ".join(f"{name} {state.value}" for name, state in alert.presence.items())
    console.print(f"          because of {shares}; sources: {sources}")
    verified = "delivered, signature verified" if arrived else "NOT DELIVERED"
    console.print(f"          webhook-id {event_id(alert)}: {verified}\n")
