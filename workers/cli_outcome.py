"""How a command ends: its exit code, and why, in one line on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from pipeline.errors import ConfigError, FusewatchError, OutsideError
from workers.cli_options import complain
from workers.exit_codes import DEFECT, INTERRUPTED, OK, OUTSIDE, WRONG
from workers.runtime import stderr_log


def done(command: Callable[[], int]) -> int:
    """Run a command; a defect is a traceback, as a JSON line where all lines are."""
    try:
        return _told_apart(command)
    except Exception:
        if not stderr_log.is_json():
            raise
        logging.getLogger("fusewatch").critical("the command failed", exc_info=True)
        return DEFECT


def _told_apart(command: Callable[[], int]) -> int:
    """Every error that Fusewatch raises on purpose is one clear line, no trace."""
    # OpenCV and FFmpeg print addresses with their passwords: they are told to be quiet before cv2
    # is imported anywhere.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        return command()
    except ConfigError as error:
        return _told(error, WRONG)
    except FusewatchError as error:
        return _told(error, OUTSIDE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing can be said.
        _drop_output()
        return OK
    except OSError as error:
        # Adapters give their errors words of their own; a full disk may strike anywhere.
        return _told(OutsideError(f"{error.filename or 'a file'}: {error.strerror}"), OUTSIDE)


def flushed(code: int) -> int:
    """Write out what was printed; an error would come too late for us when Python ends."""
    if sys.stdout is None:  # closed by who started us
        return code
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
