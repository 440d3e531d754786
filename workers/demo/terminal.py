"""Prints the story on a terminal, alert by alert, as it is told.

Every text that comes from a scene is printed by `printable`: none of it reaches the terminal as a
command.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from pipeline.types import SECOND, rfc3339
from workers.delivery.cloudevent import event_id
from workers.demo import terminal_picture
from workers.demo.story import Chapter, Story
from workers.media import jpeg
from workers.runtime.printable import printable

COLOURS = {"opened": "bold red", "updated": "yellow", "closed": "green"}
INDENT = " " * 10

# what is next -> the words after `fusewatch`; each writes a file of its own
NEXT: Mapping[str, str] = {
    "my camera": "init camera.yaml --camera device:0",
    "my microphone": "init microphone.yaml --microphone device:default",
    "my webhook": "init webhook.yaml --webhook http://127.0.0.1:8000/alerts",
}


def tell_left_out(console: Console, left_out: Mapping[str, str]) -> None:
    """Prints one line for each model that could not be had."""
    for name, why in left_out.items():
        console.print(f"left out: {name}. {printable(why)}", markup=False)


def tell_chapter(console: Console, start: int, chapter: Chapter) -> None:
    """Prints one revision of an alert: what is new in it, why, and that it arrived."""
    alert = chapter.alert
    after = (alert.time - start) / SECOND
    labels = printable(", ".join(alert.labels))
    console.print(
        f"[{COLOURS[alert.state]}]{after:6.1f} s  {alert.state}[/]  {labels} at {alert.site}"
        f"  (severity {alert.severity}, score {alert.score:.2f})"
    )
    lines = [f"- {reason}" for reason in chapter.reasons]
    lines += [f'"{words}"' for words in chapter.words]
    if chapter.rules:
        lines.append(
            f"by {'rules' if len(chapter.rules) > 1 else 'rule'} {', '.join(chapter.rules)}"
        )
    if alert.state == "closed" and alert.end is not None:
        lines.append(f"from {rfc3339(alert.start)[11:19]}Z to {rfc3339(alert.end)[11:19]}Z")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in alert.contributions.items())
    lines.append(f"because of {shares}")
    if chapter.sources:
        lines.append(f"sources: {', '.join(chapter.sources)}")
    arrived = "delivered, signature verified" if chapter.post else "NOT DELIVERED"
    lines.append(f"webhook {event_id(alert)}: {arrived}")
    for line in lines:
        console.print(INDENT + printable(line), markup=False)
    console.print()


def tell_picture(console: Console, picture: Path, env: Mapping[str, str] = os.environ) -> None:
    """Prints the path of the picture, after the picture itself where the terminal can show it."""
    kind = terminal_picture.protocol(env) if console.is_terminal else ""
    if kind:
        data = picture.read_bytes()
        console.file.write(terminal_picture.shown(kind, data, jpeg.opened(data)))
        console.file.flush()
    console.print(f"Picture with boxes: {printable(str(picture))}", markup=False)


def tell_end(console: Console, story: Story, folder: Path) -> None:
    """Prints the summary, the picture, and what to do next."""
    lasted = (story.scene.end - story.scene.start) / SECOND
    arrived = sum(chapter.post is not None for chapter in story.chapters)
    delivered = f"{arrived} of {len(story.chapters)} webhooks arrived, signatures verified."
    console.print(
        f"{lasted:g} s of {story.scene.site} in {story.seconds:.1f} s:"
        f" {lasted / story.seconds:.1f} times real time."
        f" {delivered if story.chapters else 'No alert was told.'}"
    )
    console.print(f"Alerts: {printable(str(folder / 'alerts.jsonl'))}", markup=False)
    if story.hero is not None and story.hero.picture is not None:
        tell_picture(console, story.hero.picture)


def tell_next(console: Console) -> None:
    """Prints three commands to go on with."""
    name = command()
    console.print(f"\nNext, with addresses of yours (then: {name} run FILE):", markup=False)
    for what, words in NEXT.items():
        console.print(f"  {what:<14} {name} {words}", markup=False)


def command(argv0: str | None = None) -> str:
    """How the user calls this program: `fusewatch` where the shell finds it, else its path."""
    called = Path(sys.argv[0] if argv0 is None else argv0)
    found = shutil.which("fusewatch")
    if found is not None and called.exists() and Path(found).resolve() == called.resolve():
        return "fusewatch"
    return printable(str(called)) if called.name == "fusewatch" else "fusewatch"
