"""The demo: replays a recorded break-in, delivers its alerts, verifies them and tells the story."""

from __future__ import annotations

import base64
import secrets
import tempfile
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress as Bar

from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config, Webhook
from pipeline.errors import OutsideError
from pipeline.types import Alert
from workers.config import loader
from workers.config.output_file import check_output
from workers.config.secrets import Secrets
from workers.delivery.cloudevent import event_id
from workers.delivery.jsonl import write_all
from workers.delivery.receiver import Received, Receiver
from workers.delivery.snapshots import SnapshotSink, least_scores
from workers.delivery.subscribers import deliver_now
from workers.demo import page, terminal
from workers.demo.story import Chapter, ChapterReader, Story, tell
from workers.explain.html import PAGE_BEGIN
from workers.replay.scene_player import scene_of
from workers.replay.scene_replay import new_records, replay
from workers.runtime.printable import printable
from workers.stages.encoders import Encoders, load_available

SHIPPED = Path(__file__).parent / "scene"
OUT_FOLDER = Path("out/demo")
PAGE = OUT_FOLDER / "story.html"
Browse = Callable[[str], bool]  # opens an address; returns False where there is no browser


def demo(
    config: Path | None = None,
    scene: Path | None = None,
    *,
    page_file: Path | None = None,
    open_page: bool = False,
    browse: Browse = webbrowser.open,
) -> int:
    """Plays the shipped scene, or `scene`; returns 0 when every alert arrived, else 3.

    `page_file` is where the page is written; it is `PAGE` when only `open_page` is given. Raises
    ConfigError for a scene that does not fit, OutsideError for a folder that cannot be written.
    """
    console = Console(highlight=False, soft_wrap=True)
    path = scene or SHIPPED / "scene.yaml"
    settings = loader.load(config or SHIPPED / "site.yaml")
    began = time.monotonic()
    # What is wrong with the scene or the folders is said before models are loaded.
    scene_of(settings, path)
    page_file = page_file or (PAGE if open_page else None)
    if page_file is not None:
        check_output("--page", page_file, PAGE_BEGIN, "page of Fusewatch")
    _make_folders(OUT_FOLDER, page_file.parent if page_file else OUT_FOLDER)
    needed = needed_encoders(settings)
    encoders, left_out = load_available(settings.models, recorded=True, needed=needed)
    terminal.tell_left_out(console, left_out)
    console.print(
        f"models loaded in {time.monotonic() - began:.1f} s; playing {printable(path.stem)} ...\n",
        markup=False,
    )
    story = play(settings, path, encoders, console=console, left_out=left_out)
    terminal.tell_end(console, story, OUT_FOLDER)
    if page_file is not None:
        _show_page(console, story, page_file, browse if open_page else None)
    terminal.tell_next(console)
    return 0 if all(chapter.post for chapter in story.chapters) else 3


def play(
    settings: Config,
    path: Path,
    encoders: Encoders,
    *,
    console: Console,
    left_out: dict[str, str],
    folder: Path = OUT_FOLDER,
) -> Story:
    """Plays a scene, and prints and delivers each alert as soon as it is there."""
    scene, bus = scene_of(settings, path), MemoryBus()
    alerts = bus.reader(topics.ALERTS, "demo")
    pictures = SnapshotSink(folder / "evidence", bus, least=least_scores(settings))
    reader = ChapterReader(folder / "evidence")
    chapters: list[Chapter] = []
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with (
        Receiver(secret) as receiver,
        Bar(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        hook = Webhook(url=receiver.url, secret=secret, name="demo")
        hooked = msgspec.structs.replace(settings, webhooks=(hook,))
        task = bar.add_task(printable(path.stem), total=1.0)

        def tell_new(done: int = 1, total: int = 1) -> None:
            bar.update(task, completed=done / total)
            for alert in new_records(alerts, Alert):
                pictures.send(alert)
                if all(chapter.post for chapter in chapters):  # else the receiver is out of reach
                    deliver_now(hooked, (alert,), Secrets())
                chapters.append(reader.chapter(alert, _post(receiver, alert)))
                terminal.tell_chapter(console, scene.start, chapters[-1])

        played = replay(settings, scene, encoders, bus=bus, heard=tell_new)
        tell_new()
    write_all(folder / "alerts.jsonl", played.alerts)
    credits = path.parent / "CREDITS.md"
    return tell(
        scene,
        settings.sites[scene.site],
        bus,
        chapters,
        left_out=left_out,
        seconds=played.seconds,
        credits=credits.read_text() if path.parent == SHIPPED else "",
    )


def _make_folders(*folders: Path) -> None:
    """Creates the folders for what the demo writes, and tries them; raises OutsideError."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            msg = f"{folder}: cannot be written: {error.strerror}; start the demo in another folder"
            raise OutsideError(msg) from error


def _post(receiver: Receiver, alert: Alert) -> Received | None:
    """The verified request that brought this revision of an alert; None if none did."""
    wanted = event_id(alert)
    found = (post for post in receiver.posts if post.event and post.event["id"] == wanted)
    return next(found, None) if wanted in receiver.events else None


def _show_page(console: Console, story: Story, file: Path, browse: Browse | None) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(page.rendered(story), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        msg = f"{file}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    console.print(f"Page of the story: {printable(str(file))}", markup=False)
    if browse is not None and not browse(file.absolute().as_uri()):
        console.print("No browser could be started here; open that file in yours.")
