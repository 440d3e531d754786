"""The command line: one function a command; each returns the exit code.

Exit codes: those of `workers/exit_codes.py`, and 70 when a defect of ours ended the daemon.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from pipeline.errors import ConfigError, FusewatchError, OutsideError
from pipeline.limits import MAX_PIXELS
from workers.commands import (
    explain,
    modes,
    recordings,
    replay,
    setup,
    study,
    topics,
    training,
    webhooks,
    weights,
)
from workers.commands.options import (
    Config,
    Json,
    Panel,
    Speed,
    State,
    command,
    command_group,
    complain,
    flag,
    misused,
    path_option,
)
from workers.exit_codes import DEFECT, INTERRUPTED, OK, OUTSIDE, WRONG
from workers.runtime import stderr_log

COMPLETE = "_FUSEWATCH_COMPLETE"  # a shell sets it to ask what may come next
SERVICES = (["run"], ["worker"])  # they handle signals themselves, and their stderr is a log

app = command_group("Cameras, microphones and people's words in; signed, explained alerts out.")
app.add_typer(weights.app, name="weights", rich_help_panel=Panel.DAILY)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=Panel.SUBSCRIBERS)
app.add_typer(recordings.app)
app.add_typer(study.app)
app.add_typer(training.app)
app.add_typer(topics.app)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come; `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; without `argv`, this process is the command's own."""
    words = sys.argv[1:] if argv is None else argv
    if sys.stdout is None:  # closed by who started us: `fusewatch ... >&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    service = list(words[:1]) in SERVICES
    if argv is None and not service:
        _clean_up_when_terminated()
    as_json = service and not stderr_log.on_terminal()
    with stderr_log.json_stderr() if as_json else nullcontext():
        code = _flushed(_done(words))
    if argv is None and (as_json or any(thread.daemon for thread in threading.enumerate())):
        # One hangs in a device or a decoder: Python would abort as it ends such a thread. And what
        # libraries print as Python ends would be no JSON.
        if sys.stderr is not None:
            sys.stderr.flush()
        os._exit(code)
    return code


def _clean_up_when_terminated() -> None:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: it removes its temporary files."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, end)


def _done(argv: Sequence[str]) -> int:
    """Run the words; a defect is a traceback, as a JSON line where all lines are."""
    try:
        return _told_apart(argv)
    except Exception:
        if not stderr_log.is_json():
            raise
        logging.getLogger("fusewatch").critical("the command failed", exc_info=True)
        return DEFECT


def _told_apart(argv: Sequence[str]) -> int:
    """Every error that Fusewatch raises on purpose is one clear line, no trace."""
    # OpenCV and FFmpeg print addresses with their passwords: they are told to be quiet before cv2
    # is imported anywhere.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # pictures of devices, in JPEG
    try:
        return _ran(argv)
    except ConfigError as error:
        return _told(error, WRONG)
    except FusewatchError as error:
        return _told(error, OUTSIDE)
    except KeyboardInterrupt as ended:
        return ended.code if isinstance(ended, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing can be said.
        _drop_output()
        return OK
    except OSError as error:
        # Adapters give their errors words of their own; a full disk may strike anywhere.
        return _told(
            OutsideError(f"{error.filename or 'a file or the output'}: {error.strerror}"), OUTSIDE
        )


def _flushed(code: int) -> int:
    """Write out what was printed; an error would come too late for us when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        return _told(OutsideError(f"the output cannot be written: {error.strerror}"), OUTSIDE)
    return code


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: FusewatchError, code: int) -> int:
    complain(str(error))
    return code


def _ran(argv: Sequence[str]) -> int:
    """Parse the words and run their command.

    Typer's own `main` is not used for it: that one ends a broken pipe with 1.
    """
    fusewatch = get_command(app)
    if os.environ.get(COMPLETE):
        # No help of ours has markup, and Rich, which would remove it, takes 70 ms to load.
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
        fusewatch.main([], prog_name="fusewatch")
    try:
        with fusewatch.make_context("fusewatch", list(argv)) as context:
            return int(fusewatch.invoke(context))
    except typer.Exit as ended:  # --help and --version have said what they say
        return ended.exit_code
    except typer.TyperException as error:
        return misused(error)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"fusewatch {metadata.version('fusewatch')}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What takes time on the way, like a download, is told on stderr; `run` has its own view."""
    if stderr_log.is_json():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fusewatch: %(message)s"))
    log = logging.getLogger("fusewatch")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


Scene = Annotated[
    Path | None, path_option("--scene", "Play this recorded scene instead of the sources.")
]


command(app, "init", Panel.DAILY)(setup.init)


@command(app, "run", Panel.DAILY)
def _run(config: Config, scene: Scene = None, state: State = None, speed: Speed = None) -> int:
    """Watch: run the whole pipeline in this process until it is stopped."""
    from workers import daemon

    if speed is not None and scene is None:
        msg = "--speed is for a scene: what lives has a speed of its own; add --scene SCENE"
        raise ConfigError(msg)
    return daemon.run(config, scene=scene, state=state, speed=speed)


command(app, "replay", Panel.RECORDINGS)(replay.replay)
command(app, "explain", Panel.RECORDINGS)(explain.explain)


for name, function in (
    ("check", setup.check),
    ("doctor", setup.doctor),
    ("report", setup.report),
    ("mode", modes.mode),
    ("snooze", modes.snooze),
    ("schema", setup.schema),
):
    command(app, name, Panel.DAILY)(function)


@command(app, "demo", Panel.DAILY)
def _demo(
    scene: Annotated[Path | None, path_option("--scene", "A scene of your own.")] = None,
    config: Annotated[Path | None, path_option("--config", "The config of its site.")] = None,
    page: Annotated[Path | None, path_option("--page", "Write the story as a page, too.")] = None,
    open_page: Annotated[bool, flag("--open", "Write the page and open it in a browser.")] = False,
) -> int:
    """Play a recorded break-in, deliver its alerts to a local receiver, tell the story."""
    from workers.demo.demo import demo

    return demo(config, scene, page_file=page, open_page=open_page)


@command(app, "version", Panel.DAILY)
def _version(as_json: Json = False) -> int:
    """Show the versions of Fusewatch and of what it runs models with."""
    from importlib import metadata

    names = (
        "fusewatch",
        "onnxruntime",
        "faster-whisper",
        "ai-edge-litert",
        "opencv-python-headless",
        "av",
    )
    versions = {name: metadata.version(name) for name in names}
    versions["python"] = sys.version.split()[0]
    if as_json:
        print(json.dumps(versions))
    else:
        for name, version in versions.items():
            print(f"{name} {version}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
