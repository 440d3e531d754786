"""Guards the files that a command replaces by its output."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError, OutsideError


def check_output(option: str, file: Path, begin: bytes, kind: str) -> None:
    """Raises ConfigError if `file` is there and is no older output, which may be replaced.

    An older output is empty, or begins with `begin`; `kind` names it. So a config or an input that
    is named by mistake is never lost. Raises OutsideError for a path that cannot be looked at.
    """
    try:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            msg = f"{option} {file}: is no regular file, and would be replaced; name another"
            raise ConfigError(msg)
        if not file.exists():
            return
        with file.open("rb") as there:
            head = there.read(len(begin))
    except OSError as error:
        msg = f"{option} {file}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    if not begin.startswith(head):
        msg = f"{option} {file}: is there already, and is no {kind}; name another"
        raise ConfigError(msg)
