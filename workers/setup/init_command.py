"""The conversation of `fusewatch init`: asks, tries each address, and writes the config.

Without a terminal nothing is asked: options say what the config is to hold. Nothing is written
before all answers are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import msgspec
from rich.console import Console
from rich.prompt import Prompt
from rich.text import Text

from pipeline.config.checks import nearest_timezone
from pipeline.config.fields import NAME
from pipeline.config.schema import Camera, Microphone, Site, Webhook
from pipeline.errors import ConfigError, OutsideError, install_hint
from workers.config import source_address, ssrf_guard
from workers.config.secrets import Secrets, checkable
from workers.config.source_address import NETWORK_SCHEMES, host_hint
from workers.setup.init_config import (
    DEFAULT_CAMERA,
    DEFAULT_MICROPHONE,
    NewConfig,
    NewSource,
    refuse_existing,
    write_config,
)
from workers.setup.machine_timezone import is_timezone, machine_timezone
from workers.setup.source_trial import TRIAL_TIMEOUT, Heard, Seen, try_connection, within

NONE, SAME = "none", "same"
SOUND_LOOKED_FOR = 8.0  # s that the camera's stream may take to show that it has sound
WEBCAM = Path("/dev/video0")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

Use = Callable[[str], str]  # returns the value to use of a typed one; raises ConfigError


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of the command say; None: not given."""

    camera: str | None = None
    record: str | None = None
    microphone: str | None = None
    site: str | None = None
    timezone: str | None = None
    webhook: str | None = None
    state: Path | None = None


def run_init(path: Path, given: Given, *, ask: bool, env: Mapping[str, str] = os.environ) -> None:
    """Writes a config to `path` of what is `given`, and of answers if it may `ask`.

    Raises ConfigError for an option that cannot be used, KeyboardInterrupt if the user gives up.
    """
    refuse_existing(path)
    talk = _Conversation(ask, env)
    try:
        new = talk.config(given)
    except EOFError:
        raise KeyboardInterrupt from None
    write_config(path, new, talk.print)


class _Conversation:
    """Takes options as they are, and asks for what they leave open."""

    def __init__(self, ask: bool, env: Mapping[str, str]) -> None:
        self._ask = ask
        self._env = env
        self._console = Console(highlight=False, soft_wrap=True)

    def print(self, text: str) -> None:
        """Prints a text as it is: brackets in it are no markup."""
        self._console.out(text, end="", highlight=False)

    def config(self, given: Given) -> NewConfig:
        """Returns what the new config is to hold."""
        if self._ask:
            self.print(
                "Enter takes what stands in brackets. Nothing is written before the last answer.\n"
            )
        camera, microphone = self._sources(given)
        return NewConfig(
            camera=camera,
            record=self._large_stream(given.record, camera),
            microphone=microphone,
            site=self._value("Name of the site", "--site", given.site, "home", _site),
            timezone=self._value(
                "Time zone", "--timezone", given.timezone, machine_timezone(self._env), _timezone
            ),
            webhook=self._value(
                "Webhook: the https address that gets signed alerts, or none",
                "--webhook",
                given.webhook,
                NONE,
                _webhook,
            ),
            state=given.state,
        )

    def _sources(self, given: Given) -> tuple[NewSource | None, NewSource | None]:
        if not self._ask and given.camera is None and given.microphone is None:
            self.print(
                "no camera and no microphone is named: the config names those of this computer, "
                "device:0 and device:default; change them to yours\n"
            )
            return DEFAULT_CAMERA, DEFAULT_MICROPHONE
        while True:
            camera = self._source("camera", given.camera, None)
            microphone = self._source("microphone", given.microphone, camera)
            if camera or microphone:
                return camera, microphone
            what = "a site needs a camera or a microphone"
            if not self._ask or (given.camera is not None and given.microphone is not None):
                raise ConfigError(what)
            self.print(f"  {what}\n")

    def _large_stream(self, option: str | None, camera: NewSource | None) -> NewSource | None:
        """Returns the large stream of the camera, if one is named."""
        if option is None:
            return None
        if camera is None:
            msg = "--record: names the large stream of a camera; name its small one by --camera"
            raise ConfigError(msg)
        record = self._source("camera", option, None, "--record")
        return record and msgspec.structs.replace(record, name=f"{camera.name}-record")

    def _source(
        self, kind: str, option: str | None, camera: NewSource | None, flag: str = ""
    ) -> NewSource | None:
        """Returns a source that works, or one that is kept though it fails, or None."""
        typed = option
        while True:
            if typed is None and not self._ask:
                return None
            if typed is None:
                typed = self._asked_address(kind, camera)
            try:
                source = parsed(kind, typed, camera)
            except ConfigError as error:
                self._refuse(flag or f"--{kind}", error)
            else:
                if source is None:
                    return None
                outcome = self._tried(kind, source)
                if isinstance(outcome, NewSource):
                    return outcome
                typed = outcome
                continue
            typed = None

    def _tried(self, kind: str, source: NewSource) -> NewSource | str | None:
        """Tries a source; returns it, with a login if it needs one, or another address, or None:
        ask again."""
        while True:
            shown = str(source_address.parse(_setting(source), kind, Path.cwd()))
            self.print(f"  trying {shown} ...\n")
            try:
                self.print(f"  {tried(kind, source, self._env)}\n")
                return source
            except (ConfigError, OutsideError) as error:
                failed = str(error)
            self.print(f"  it fails: {failed}\n")
            if not self._ask:
                self.print("  it is written as it is; try it again: fusewatch doctor\n")
                return source
            answers = ["again", "keep"]
            if "(401)" in failed:
                answers = ["login", *answers]
            answer = self._prompt(
                f"  Another address, or one of: {', '.join(answers)}", answers[0]
            ).strip()
            if answer == "again":
                return None
            if answer not in answers:
                return answer
            if answer == "keep":
                return source
            source = msgspec.structs.replace(
                source,
                username=self._prompt("  User", ""),
                password=Prompt.ask("  Password (not shown)", console=self._console, password=True),
            )

    def _asked_address(self, kind: str, camera: NewSource | None) -> str:
        if kind == "camera":
            default = DEFAULT_CAMERA.url if WEBCAM.exists() else ""
            question = "Camera: rtsp://.., http://.., device:0, a video file, or none"
        else:
            default = self._default_microphone(camera)
            streamed = camera is not None and not camera.url.startswith("device:")
            same = f"{SAME} (the sound of the camera's stream), " if streamed else ""
            question = f"Microphone: {same}device:default, rtsp://.., a sound file, or none"
        while not (typed := self._prompt(question, default).strip()):
            self.print(f"  write an address, or `{NONE}`\n")
        return typed

    def _default_microphone(self, camera: NewSource | None) -> str:
        if camera is not None and not camera.url.startswith("device:"):
            heard = msgspec.structs.replace(camera, name=DEFAULT_MICROPHONE.name)
            try:
                tried("microphone", heard, self._env, SOUND_LOOKED_FOR)
            except (ConfigError, OutsideError):
                return NONE
            return SAME
        if find_spec("pyaudio") is None:
            return NONE
        from workers.capture.microphone import microphones  # noqa: PLC0415 - an extra

        return DEFAULT_MICROPHONE.url if microphones() else NONE

    def _value(self, question: str, option: str, given: str | None, default: str, use: Use) -> str:
        """Returns what is given or answered, as `use` has it."""
        typed = given
        while True:
            if typed is None:
                typed = self._prompt(question, default) if self._ask else default
            try:
                return use(typed)
            except ConfigError as error:
                self._refuse(option, error)
            typed = None

    def _refuse(self, option: str, error: ConfigError) -> None:
        if not self._ask:
            msg = f"{option}: {error}"
            raise ConfigError(msg) from None
        self.print(f"  {error}\n")

    def _prompt(self, question: str, default: str) -> str:
        return Prompt.ask(
            Text(question), console=self._console, default=default, show_default=bool(default)
        )


def parsed(kind: str, typed: str, camera: NewSource | None = None) -> NewSource | None:
    """Returns the source of a typed address, its login apart from it; None for `none`.

    Raises ConfigError for what is no address of a `kind`: camera or microphone.
    """
    name = DEFAULT_MICROPHONE.name if kind == "microphone" else "camera"
    if typed in ("", NONE):
        return None
    if typed == SAME and kind == "microphone":
        if camera is None or camera.url.startswith("device:"):
            msg = "there is no stream of a camera whose sound could be taken"
            raise ConfigError(msg)
        return msgspec.structs.replace(camera, name=name)
    if "${" in typed:
        checked = checkable(typed, {})
        if checked is not None:
            source_address.parse(checked, kind)
        return NewSource(name=name, url=typed)
    address = source_address.parse(typed, kind, Path.cwd())
    if address.scheme not in NETWORK_SCHEMES:
        name = DEFAULT_CAMERA.name if address.scheme == "device" and kind == "camera" else name
        return NewSource(name=name, url=f"{address.scheme}:{address.target}")
    scheme, _, rest = address.target.partition("//")
    end = next((i for i, sign in enumerate(rest) if sign in "/?"), len(rest))
    login, _, host = rest[:end].rpartition("@")
    user, _, password = login.partition(":")
    return NewSource(
        name=name,
        url=f"{scheme}//{host}{rest[end:]}",
        username=unquote(user),
        password=unquote(password),
    )


def tried(
    kind: str, source: NewSource, env: Mapping[str, str], timeout: float = TRIAL_TIMEOUT
) -> Seen | Heard:
    """Returns what a source gave; raises ConfigError, or OutsideError with the reason."""
    given = Secrets(env).source(_setting(source), source.name)
    address = source_address.parse(given, kind, Path.cwd())
    if kind == "camera":
        site, camera, room = Site(cameras={source.name: Camera(source="")}), source.name, ""
    else:
        site, camera, room = Site(microphones={source.name: Microphone(source="")}), "", source.name
    try:
        trial = within(
            timeout, lambda: try_connection(address, "home", site, camera=camera, microphone=room)
        )
    except ImportError as error:
        msg = f"it needs a package ({error.name}): {install_hint('microphone')}"
        raise OutsideError(msg) from error
    except OutsideError as error:
        hint = host_hint(os.path.relpath(address.target)) if address.scheme == "file" else ""
        if hint:
            msg = f"{error}; the address {hint}"
            raise OutsideError(msg) from error
        raise
    return trial.camera() if kind == "camera" else trial.microphone()


def _setting(source: NewSource) -> str | dict[str, str]:
    if not source.username and not source.password:
        return source.url
    return {"url": source.url, "username": source.username, "password": source.password}


def _site(typed: str) -> str:
    if not _NAME.fullmatch(typed):
        msg = f"a name must be {NAME}"
        raise ConfigError(msg)
    return typed


def _timezone(typed: str) -> str:
    if not is_timezone(typed):
        msg = f"this is no time zone, like Europe/Berlin{nearest_timezone(typed)}"
        raise ConfigError(msg)
    return typed


def _webhook(typed: str) -> str:
    if typed in ("", NONE):
        return ""
    url = checkable(typed, {})
    if isinstance(url, str):
        ssrf_guard.target(Webhook(url=url, secret=""))
    return typed
