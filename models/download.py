"""Downloads one file over HTTPS, resumes after a cut, and checks its hash.

A partial download is in `NAME.part` beside the target, so a cut download continues where it
stopped, even in another process. Proxies and extra certificates come from the environment
(`HTTPS_PROXY`, `SSL_CERT_FILE`).
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pipeline import backoff
from pipeline.errors import WeightsError

MAX_TRIES = 5  # limit of consecutive tries without a byte
HURRIED_TRIES = 2  # the same for a file that has another source
RETRY_DELAYS = backoff.doubling(first=2.0, longest=30.0)  # s
SPARE_BYTES = 50_000_000  # bytes that must stay free on the disk
MOST_BYTES = 500_000_000  # bytes; the largest file whose size only its server knows
TIMEOUT = httpx.Timeout(30, connect=20)  # s between two bytes; the total is not limited
HURRIED_TIMEOUT = httpx.Timeout(30, connect=8)
UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

Told = Callable[[int], None]  # number of bytes downloaded so far


class HostUnreachable(WeightsError):
    """No connection to `host` could be made."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} cannot be reached ({reason})")
        self.host, self.reason = host, reason


class Wanted:
    """The expected file: its address, its size in bytes and its SHA-256 in hex.

    The size 0 is not known: it becomes that which the server says, `MOST_BYTES` at most.
    """

    def __init__(self, url: str, size: int, sha256: str) -> None:
        self.url, self.size, self.sha256 = url, size, sha256


def fetch(
    wanted: Wanted,
    target: Path,
    told: Told = lambda _: None,
    *,
    hurry: bool = False,
    timeout: httpx.Timeout | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Downloads `wanted` to `target` atomically; raises WeightsError and never leaves wrong bytes.

    Allows only https (and http on this machine), for redirects too. When two processes fetch the
    same file, the second waits for the first. With `hurry` there is another source: a host that
    cannot be reached raises HostUnreachable at once, and a busy one is asked only twice.
    """
    timeout = timeout or (HURRIED_TIMEOUT if hurry else TIMEOUT)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.parent, ".lock"):
            if target.exists() and digest(target) == wanted.sha256:
                return
            _room(wanted, part)
            _download(wanted, part, told, timeout, wait, hurry=hurry)
            _accept(wanted, part, target)
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror or error}"
        raise WeightsError(msg) from error


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock `name` in `folder`; other threads and processes wait for it."""
    with (folder / name).open("w") as lock:  # not removed: removal would be a race
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _room(wanted: Wanted, part: Path) -> None:
    needed = wanted.size - (part.stat().st_size if part.exists() else 0) + SPARE_BYTES
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        msg = f"{part.parent}: {free // 10**6} MB are free, {needed // 10**6} MB are needed"
        raise WeightsError(msg)


def _download(
    wanted: Wanted,
    part: Path,
    told: Told,
    timeout: httpx.Timeout,
    wait: Callable[[float], None],
    *,
    hurry: bool,
) -> None:
    """Downloads until `part` has the right size; a try that brings bytes resets the failure
    count."""
    host = httpx.URL(wanted.url).host
    failed, reason = 0, ""
    hooks = {"request": [_only_https]}
    with httpx.Client(
        follow_redirects=True, max_redirects=5, timeout=timeout, event_hooks=hooks
    ) as client:
        while failed < (HURRIED_TRIES if hurry else MAX_TRIES):
            before = _size(part)
            if wanted.size and before == wanted.size:
                return
            if failed:
                wait(backoff.delay(failed, RETRY_DELAYS))
            try:
                reason = _once(client, wanted, part, told)
            except httpx.TooManyRedirects:
                msg = f"{wanted.url}: redirects in circles"
                raise WeightsError(msg) from None
            except httpx.HTTPError as error:
                if hurry and isinstance(error, UNREACHABLE) and _size(part) == before:
                    raise HostUnreachable(host, str(error) or type(error).__name__) from error
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            failed = 0 if _size(part) > before else failed + 1
    msg = f"{part.stem} cannot be downloaded from {host}: {reason}"
    if not hurry:
        msg += f"; try again later, or bring it from another machine to {part.with_suffix('')}"
    raise WeightsError(msg)


def _once(client: httpx.Client, wanted: Wanted, part: Path, told: Told) -> str:
    """Makes one request; returns why it was incomplete, or ""."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "fusewatch"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with client.stream("GET", wanted.url, headers=headers) as answer:
        if answer.status_code == 416 or (answer.status_code == 206 and not _goes_on(answer, have)):
            part.unlink(missing_ok=True)
            return "the server resumes at another place"
        if answer.status_code in RETRY_STATUSES:
            return f"it answers {answer.status_code}"
        if answer.status_code not in (200, 206):
            msg = f"{answer.url.host} answers {answer.status_code} for {wanted.url}"
            raise WeightsError(msg)
        _plausible(answer, wanted)
        if answer.status_code == 200:
            have = 0  # the server does not support ranges: start again
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            for piece in answer.iter_raw():  # unbuffered: bytes that arrive before a cut are kept
                have += len(piece)
                if have > wanted.size:
                    file.truncate(0)
                    msg = f"{wanted.url} is larger than the {wanted.size} bytes that it should be"
                    raise WeightsError(msg)
                file.write(piece)
                told(have)
    return "" if have == wanted.size else "it ended early"


def _plausible(answer: httpx.Response, wanted: Wanted) -> None:
    """Refuses what is not the file, such as the page of a proxy or of a login to a network."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status_code == 206:
        size = answer.headers.get("content-range", "").rpartition("/")[2]
    else:
        size = answer.headers.get("content-length", "")
    if not wanted.size and kind != "text/html":
        if not size.isdecimal() or not 0 < int(size) <= MOST_BYTES:
            told = f"{size} bytes" if size.isdecimal() else "no size"
            msg = f"{answer.url.host} says {told} for {wanted.url}: 1 to {MOST_BYTES} are believed"
            raise WeightsError(msg)
        wanted.size = int(size)
    if kind == "text/html" or (size.isdecimal() and int(size) != wanted.size):
        what = f"a web page ({kind})" if kind == "text/html" else f"{size} bytes"
        msg = (
            f"{answer.url.host} answers with {what} in place of the {wanted.size or ''} bytes of "
            "the file; a proxy or a login page may stand between"
        )
        raise WeightsError(msg)


def _goes_on(answer: httpx.Response, have: int) -> bool:
    return have > 0 and answer.headers.get("content-range", "").startswith(f"bytes {have}-")


def _only_https(request: httpx.Request) -> None:
    url = request.url
    if url.scheme != "https" and not (url.scheme == "http" and _here(url.host)):
        msg = f"weights come by https only, not from {url.scheme}://{url.host}"
        raise WeightsError(msg)


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _accept(wanted: Wanted, part: Path, target: Path) -> None:
    if digest(part) != wanted.sha256:
        part.unlink()
        msg = (
            f"{target.name} from {httpx.URL(wanted.url).host} is not the file that it should be "
            "(wrong SHA-256); it was removed. If a proxy changed it, go around the proxy"
        )
        raise WeightsError(msg)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
