"""Resolves the secrets of a config, only where they are used, and keeps them out of logs.

`${NAME}` stands for an environment variable, `file:PATH` for the content of a file; inside of a
text it is `${file:PATH}`. `check` and `replay` resolve no secret; `check` only looks whether it is
there. Code that needs one calls `Secrets`. `Redacting` is the second layer: it removes every
resolved value from the logs, in case one is written there by accident.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from pipeline.config.problem import Way
from pipeline.config.schema import Config, KafkaBus, Tls, Webhook, addresses
from pipeline.errors import ConfigError
from workers.config.system_files import system_file

MAX_FILE_BYTES = 65_536  # bytes of a secret in a file
MIN_HIDDEN_LENGTH = 4  # shorter values are not removed from logs: "5" is in every line
HIDDEN_VALUE = "***"

_REFERENCE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]{0,99})|file:([^${}]{1,1000}))\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:([^/?#]*)@)?[^/?#]*(.*)", re.DOTALL)
_LONG_VALUE, _LONG_PART = 6, 16  # least characters of a query's value, a path's part to hide

Source = str | Mapping[str, str]


class Secret:
    """A text that is printed as `***`; only `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Returns the text; do not store it where it may be printed."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN_VALUE

    __str__ = __repr__

    def __reduce__(self) -> str:
        msg = "a secret is not written to disk"
        raise TypeError(msg)


class Secrets:
    """Resolves references to the environment and to files for one config.

    `base` is the config's folder, to which `file:` paths are relative. Every method raises
    ConfigError, which names the setting's `path` and the variable or file, but no value.
    """

    def __init__(self, env: Mapping[str, str] = os.environ, base: Path | None = None) -> None:
        self._env, self._base = env, base
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._told: Callable[[frozenset[str]], object] = lambda known: None

    def source(self, source: Source, path: str) -> Source:
        """Returns the address of a camera or microphone with its variables resolved."""
        if isinstance(source, str):
            return self._address(source, path)
        taken = {
            key: (self.lookup if key == "password" else self.expand)(value, f"{path}.{key}")
            for key, value in source.items()
        }
        if "url" in taken:
            self._address(source["url"], f"{path}.url")
        self.remember(*(taken[key].reveal() for key in ("username", "password") if key in taken))
        return {key: value.reveal() for key, value in taken.items()}

    def webhook(self, webhook: Webhook, path: str) -> Webhook:
        """Returns the settings of a webhook with its address and secrets resolved."""
        given = (webhook.secret,) if isinstance(webhook.secret, str) else webhook.secret
        secrets = tuple(self.lookup(each, f"{path}.secret").reveal() for each in given)
        url = self._address(webhook.url, f"{path}.url")
        return msgspec.structs.replace(webhook, url=url, secret=secrets)

    def bus(self, bus: KafkaBus) -> KafkaBus:
        """Returns the settings with the password resolved and the TLS paths based on the
        config's folder."""
        sasl, tls = bus.sasl, bus.tls
        if sasl is not None:
            username = self.expand(sasl.username, "bus.sasl.username").reveal()
            password = self.lookup(sasl.password, "bus.sasl.password").reveal()
            sasl = msgspec.structs.replace(sasl, username=username, password=password)
        if tls is not None:
            names = ((name, getattr(tls, name)) for name in Tls.__struct_fields__)
            tls = Tls(**{name: self._path(path, f"bus.tls.{name}") for name, path in names})
        return msgspec.structs.replace(bus, sasl=sasl, tls=tls)

    def lookup(self, reference: str, path: str) -> Secret:
        """Returns the secret of `reference`: `file:...`, or text with `${NAME}` in it."""
        text = self.expand(reference, path).reveal()
        if reference.startswith("file:"):
            text = self._file(text.removeprefix("file:"), path)
        self.remember(text)
        return Secret(text)

    def expand(self, text: str, path: str) -> Secret:
        """Returns `text` with every `${NAME}` replaced by the environment's value, and every
        `${file:PATH}` by what the file holds."""

        def value(found: re.Match[str]) -> str:
            if found[2]:
                given = self._file(found[2], path)
                self.remember(given)
                return given
            given = self._env.get(found[1], "")
            if not given:
                msg = (
                    f"{path}: the environment variable {found[1]} is not set; set it and try again"
                )
                raise ConfigError(msg)
            self.remember(given)
            return given

        return Secret(_replaced(text, value, path))

    def remember(self, *secrets: str) -> None:
        """Registers values that `redact` removes from now on, in all their spellings."""
        for secret in secrets:
            # Logs are written line by line, also those of a secret with several lines.
            forms = {secret, *secret.splitlines(), quote(secret, safe=""), unquote(secret)}
            forms |= {json.dumps(form)[1:-1] for form in forms}
            self._known |= {form for form in forms if len(form) >= MIN_HIDDEN_LENGTH}
        self._pattern = None
        self._told(frozenset(self._known))

    def tell(self, told: Callable[[frozenset[str]], object]) -> None:
        """Calls `told` with all values to hide: now, and whenever there are more."""
        self._told = told
        told(frozenset(self._known))

    def redact(self, text: str) -> str:
        """Returns `text` without any resolved secret."""
        if self._pattern is None and self._known:
            longest = sorted(self._known, key=lambda secret: (-len(secret), secret))
            self._pattern = re.compile("|".join(map(re.escape, longest)))
        return self._pattern.sub(HIDDEN_VALUE, text) if self._pattern else text

    def _address(self, text: str, path: str) -> str:
        filled = self.expand(text, path).reveal()
        if found := _URL.match(filled):
            user, _, password = (found[1] or "").partition(":")
            self.remember(found[1] or "", password or user, *_telling(found[2]))
        return filled

    def _path(self, name: str, path: str) -> str:
        return str(self._below(self.expand(name, path).reveal())) if name else ""

    def _below(self, name: str) -> Path:
        file = Path(name).expanduser()
        return file if self._base is None else self._base / file

    def _file(self, name: str, path: str) -> str:
        file = self._below(name)
        if system_file(file, handed_over=True):
            msg = f"{path}: the secret's file {file} is a system file; name a file of your own"
            raise ConfigError(msg)
        try:
            with file.open("rb") as opened:
                raw = opened.read(MAX_FILE_BYTES + 1)
            text = raw.decode().strip()
        except OSError as error:
            msg = f"{path}: the secret's file {file} cannot be read: {error.strerror}"
            raise ConfigError(msg) from error
        except UnicodeDecodeError:
            msg = f"{path}: the secret's file {file} is not text"
            raise ConfigError(msg) from None
        if not text or len(raw) > MAX_FILE_BYTES:
            msg = f"{path}: the secret's file {file} is {'too long' if text else 'empty'}"
            raise ConfigError(msg)
        return text


class Redacting(logging.Filter):
    """A log filter that removes known secrets from records; put it on every handler."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Cleans message, traceback and stack, and never drops a record."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments of a library that do not fit
            message = f"{record.msg} {record.args!r}"
        record.msg, record.args = self._secrets.redact(message), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secrets.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self._secrets.redact(record.stack_info)
        return True


def _telling(path: str) -> Iterator[str]:
    """Yields parts of an address's path and query that may be secret: many services put a key
    there."""
    for part in re.split("[/?&;#]", path):
        _, equals, value = part.partition("=")
        if len(value) >= _LONG_VALUE:
            yield value
        elif not equals and len(part) >= _LONG_PART:
            yield part


def references(config: Config) -> Iterator[tuple[Way, str, bool]]:
    """Yields each setting that may name a variable: its path, its text, and whether `file:` in it
    names a secret's file."""
    for site_name, site in config.sites.items():
        for kind, sources in (("cameras", site.cameras), ("microphones", site.microphones)):
            for name, settings in sources.items():
                for at, source in addresses(settings).items():
                    way: Way = ("sites", site_name, kind, name, *at)
                    if isinstance(source, str):
                        yield way, source, False
                    else:
                        for key, text in source.items():
                            yield (*way, key), text, key == "password"
    for i, webhook in enumerate(config.webhooks):
        yield ("webhooks", i, "url"), webhook.url, False
        given = webhook.secret
        for secret in (given,) if isinstance(given, str) else given:
            yield ("webhooks", i, "secret"), secret, True
    yield ("api", "token"), config.api.token, True
    if isinstance(config.bus, KafkaBus):
        for of, part in (("tls", config.bus.tls), ("sasl", config.bus.sasl)):
            for name in part.__struct_fields__ if part is not None else ():
                yield ("bus", of, name), getattr(part, name), name == "password"


def unset(text: str, env: Mapping[str, str]) -> list[str]:
    """Returns the names of the variables in `text` that the environment does not set."""
    names = dict.fromkeys(name for name, _ in _REFERENCE.findall(text) if name)
    return [name for name in names if not env.get(name)]


def files(text: str, env: Mapping[str, str], *, whole: bool) -> list[str]:
    """Returns the paths of the secrets' files in `text`; with `whole`, `file:PATH` is one too."""
    found = [file for _, file in _REFERENCE.findall(text) if file]
    if whole and text.startswith("file:") and not unset(text, env):
        found.append(str(checkable(text, env)).removeprefix("file:"))
    return found


def checkable(source: Source, env: Mapping[str, str]) -> Source | None:
    """Returns an address as far as it can be checked: an unset variable, or what a file holds, is
    replaced by `1`.

    Returns None if such a thing stands at the start, where the scheme is. Raises ConfigError for
    `${` that starts no variable.
    """
    if not isinstance(source, str):
        parts = {key: checkable(value, env) for key, value in source.items()}
        return {key: "1" if part is None else str(part) for key, part in parts.items()}
    first = _REFERENCE.match(source)
    if first and not (first[1] and env.get(first[1])):
        return None
    return _replaced(source, lambda found: (found[1] and env.get(found[1])) or "1", "")


def _replaced(text: str, value: Callable[[re.Match[str]], str], path: str) -> str:
    if "${" in _REFERENCE.sub("", text):
        msg = f"{path}: `${{` must be followed by a variable's name, or `file:PATH`, and `}}`"
        msg = msg.removeprefix(": ")
        raise ConfigError(msg)
    return _REFERENCE.sub(value, text)
