"""The command line: one function a command; each returns the exit code.

Exit codes: those of `workers/exit_codes.py`, and 70 when a defect of ours ended the daemon.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from pipeline.errors import ConfigError, FusewatchError, OutsideError
from workers import cli_topics, cli_training
from workers.exit_codes import FOUND, OK, OUTSIDE, WRONG, usage

WORKERS = ("capture", "vision", "hearing", "text", "fusion", "alert", "delivery")
SLOWEST = 0.01  # times real time that a scene may be played


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; without `argv`, this process is the command's own."""
    code = _done(argv)
    if argv is None and any(thread.daemon for thread in threading.enumerate()):
        # One hangs in a device or a decoder: Python would abort as it ends such a thread.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _done(argv: Sequence[str] | None) -> int:
    """Every error that Fusewatch raises on purpose is one clear line, no trace."""
    # OpenCV and FFmpeg print addresses with their passwords: they are told to be quiet before cv2
    # is imported anywhere.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    given = _parser().parse_args(argv)
    _speak()
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        return command(given)
    except ConfigError as error:
        return _told(error, WRONG)
    except FusewatchError as error:
        return _told(error, OUTSIDE)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        # Adapters give their errors words of their own; a full disk may strike anywhere.
        return _told(OutsideError(f"{error.filename or 'a file'}: {error.strerror}"), OUTSIDE)


def _speak() -> None:
    """What takes time on the way, like a download, is told on stderr; `run` has its own view."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fusewatch: %(message)s"))
    log = logging.getLogger("fusewatch")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


def _told(error: FusewatchError, code: int) -> int:
    print(f"fusewatch: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusewatch",
        description="Cameras, microphones and people's words in; signed, explained alerts out.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], help_: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_, description=help_)
        made.set_defaults(command=command)
        return made

    made = add("init", _init, "write a commented config, a token and a webhook secret")
    made.add_argument("config", type=Path, nargs="?", default=Path("fusewatch.yaml"))
    made.add_argument("--state", type=Path, help="state folder (default: ~/.local/state/fusewatch)")

    made = add("run", _run, "watch: the whole pipeline in this process, until it is stopped")
    made.add_argument("config", type=Path)
    made.add_argument("--scene", type=Path, help="play this recorded scene instead of the sources")
    made.add_argument("--state", type=Path, help="state folder, instead of the config's")
    made.add_argument("--speed", type=_speed, default=None, help="of a scene: max (default) or 1")

    _worker_options(add("worker", _worker, "one stage in a process of its own, over Kafka"))

    _replay_options(
        add(
            "replay",
            _replay,
            "recorded scenes through the same pipeline, the same bytes every time; or what was "
            "observed, judged again",
        )
    )

    made = add("check", _check, "read a config and say everything that is wrong with it")
    made.add_argument("config", type=Path)
    made.add_argument("--json", action="store_true")

    made = add(
        "doctor", _doctor, "look at devices, weights and each source: a frame, a second of sound"
    )
    made.add_argument("config", type=Path, nargs="?")
    made.add_argument("--json", action="store_true")

    made = add("report", _report, "tell a running daemon what you saw")
    made.add_argument("site")
    made.add_argument("text")
    made.add_argument("--author", required=True)
    made.add_argument("--config", type=Path, help="of the daemon: has its address and its token")
    made.add_argument("--url", help="of the daemon (default: http://127.0.0.1:8674)")
    made.add_argument("--state", type=Path, help="state folder that holds the token")

    hooks = add("webhooks", usage, "webhook subscribers").add_subparsers(
        required=True, metavar="ACTION"
    )
    made = hooks.add_parser("test", help="send a signed test event and say what came back")
    made.set_defaults(command=_webhooks_test)
    made.add_argument("config", type=Path)
    made.add_argument("name", nargs="?", help="of the webhook; default: all")

    files = add("weights", usage, "model files").add_subparsers(required=True, metavar="ACTION")
    for action, help_ in (
        ("list", "what there is"),
        ("pull", "download"),
        ("verify", "check the hashes"),
    ):
        made = files.add_parser(action, help=help_)
        made.set_defaults(command=_weights, action=action)
        made.add_argument("names", nargs="*")
        made.add_argument("--json", action="store_true")

    cli_topics.add_commands(add)
    cli_training.add_commands(add)

    made = add("demo", _demo, "replay a break-in, deliver it to a local receiver, tell the story")
    made.add_argument("--scene", type=Path)
    made.add_argument("--config", type=Path)

    made = add("version", _version, "versions and where the weights are")
    made.add_argument("--json", action="store_true")
    return parser


def _worker_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("stage", choices=WORKERS, metavar="STAGE", help=", ".join(WORKERS))
    made.add_argument("config", type=Path)
    made.add_argument("--instance", default="", help="a name that stays over restarts: `vision-2`")
    made.add_argument("--recorded", action="store_true", help="the input is a scene: every frame")
    made.add_argument("--faust", action="store_true", help="under Faust: vision, hearing, text")
    made.add_argument("--state", type=Path, help="state folder, instead of the config's")
    made.add_argument("--scene", type=Path, help="capture: play this recorded scene")
    made.add_argument("--speed", type=_speed, default=None, help="of a scene: max (default) or 1")
    made.add_argument("--sites", help="capture: only these of the config, with commas")


def _replay_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path)
    made.set_defaults(parser=made)
    made.add_argument("scenes", type=Path, nargs="*", metavar="SCENE")
    made.add_argument(
        "--since", help="instead of scenes: judge again what was observed since this time"
    )
    made.add_argument("--until", help="... and before this time (default: now)")
    made.add_argument("--state", type=Path, help="state folder of the daemon, for --since")
    made.add_argument(
        "--out", required=True, help="a .jsonl file, or a folder/: a file for each scene"
    )
    made.add_argument("--speed", type=_speed, default=None, help="max (default) or 1: real time")
    made.add_argument("--deliver", action="store_true", help="send the alerts to the webhooks, too")
    made.add_argument("--json", action="store_true", help="print the summary as JSON")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not SLOWEST <= speed < math.inf:
        msg = f"max, or a factor from {SLOWEST:g} on (1 is real time)"
        raise argparse.ArgumentTypeError(msg)
    return speed


def _init(given: argparse.Namespace) -> int:
    from workers.init_config import init

    init(given.config, given.state)
    return OK


def _run(given: argparse.Namespace) -> int:
    from workers import daemon

    if given.speed is not None and given.scene is None:
        msg = "--speed is for a scene: what lives has a speed of its own; add --scene SCENE"
        raise ConfigError(msg)
    return daemon.run(given.config, scene=given.scene, state=given.state, speed=given.speed)


def _worker(given: argparse.Namespace) -> int:
    from workers import worker

    order = worker.WorkerOptions(
        stage=given.stage,
        instance=given.instance,
        recorded=given.recorded,
        faust=given.faust,
        state=given.state,
        scene=given.scene,
        speed=given.speed,
        sites=tuple(given.sites.split(",")) if given.sites else (),
    )
    return worker.run(order, given.config)


def _replay(given: argparse.Namespace) -> int:
    from workers.replay import command

    if bool(given.scenes) == bool(given.since):
        given.parser.error("either scenes, or --since TIME for what the log has observed")
    if given.since:
        return command.again(
            given.config,
            given.since,
            given.until,
            out=given.out,
            state=given.state,
            as_json=given.json,
        )
    return command.run(
        given.config,
        given.scenes,
        out=given.out,
        speed=given.speed,
        deliver=given.deliver,
        as_json=given.json,
    )


def _check(given: argparse.Namespace) -> int:
    from workers.config import loader

    try:
        settings = loader.load(given.config)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            raise  # nothing was found in the config: it could not be read
        if given.json:
            print(json.dumps({"ok": False, "problems": str(error).splitlines()}))
        else:
            print(error, file=sys.stderr)
        return FOUND
    sites = ", ".join(
        f"{name} ({len(site.cameras)} cameras, {len(site.microphones)} microphones,"
        f" {len(site.rules)} rules)"
        for name, site in settings.sites.items()
    )
    print(json.dumps({"ok": True}) if given.json else f"{given.config}: fine. {sites}")
    return OK


def _doctor(given: argparse.Namespace) -> int:
    from workers.config import loader
    from workers.doctor import doctor, show

    config: Path | None = given.config
    checks = doctor(loader.load(config), base=config.parent) if config else doctor(None)
    show(checks, as_json=given.json)
    return OK if all(check.ok for check in checks) else FOUND


def _report(given: argparse.Namespace) -> int:
    from pipeline.config.schema import Api
    from workers.capture.report_client import read_token, send_report
    from workers.config import loader
    from workers.config.secrets import Secrets

    settings = loader.load(given.config) if given.config else None
    state: Path | None = given.state or (Path(settings.state) if settings else None)
    if settings and settings.api.token and not given.state:
        secrets = Secrets(base=given.config.parent)
        token = secrets.lookup(settings.api.token, "api.token").reveal()
    else:
        token = read_token(state)
    listen = settings.api.listen if settings else Api().listen
    url = f"http://{listen}" if given.url is None else given.url
    send_report(url, token, given.site, given.text, given.author)
    print("accepted")
    return OK


def _webhooks_test(given: argparse.Namespace) -> int:
    from workers.config import loader
    from workers.config.secrets import Secrets
    from workers.delivery.subscribers import try_webhooks

    settings = loader.load(given.config)
    if not settings.webhooks:
        msg = f"{given.config}: webhooks: there are none to test"
        raise ConfigError(msg)
    outcomes = try_webhooks(settings, given.name, Secrets(base=given.config.parent))
    for one in outcomes:
        answer = one.status if one.status is not None else "no answer"
        print(f"{one.place}: {answer} {one.detail} ({one.seconds:.2f} s)")
    return OK if all(one.ok for one in outcomes) else OUTSIDE


def _weights(given: argparse.Namespace) -> int:
    from models import weights
    from models.registry import REGISTRY

    if unknown := [name for name in given.names if name not in REGISTRY]:
        msg = f"no such weights: {unknown[0]!r}; there are {', '.join(REGISTRY)}"
        raise ConfigError(msg)
    match given.action:
        case "list":
            named = given.names or REGISTRY
            rows = [row for row in weights.list_weights() if row["name"] in named]
            if given.json:
                print(json.dumps(rows))
            else:
                for row in rows:
                    print("  ".join(str(value) for value in row.values()))
            return OK
        case "pull":
            for name in given.names or REGISTRY:
                print(f"{name}: {weights.pull(name)}")
            return OK
        case _:
            return OK if weights.verify(given.names, as_json=given.json) else FOUND


def _demo(given: argparse.Namespace) -> int:
    from workers.demo import demo

    return demo(given.config, given.scene)


def _version(given: argparse.Namespace) -> int:
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
    if given.json:
        print(json.dumps(versions))
    else:
        for name, version in versions.items():
            print(f"{name} {version}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
