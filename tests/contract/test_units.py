"""The systemd units: what they let a process do, and what they keep of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from workers.exit_codes import WRONG

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = ("fusewatch.service", "fusewatch-worker@.service")
MOST = 3.0  # of systemd's exposure level, from 0 to 10


def read(name: str) -> dict[str, list[str]]:
    """The settings of a unit's section [Service], each with all its values."""
    section = (DEPLOY / name).read_text().partition("[Service]\n")[2].partition("\n[")[0]
    found = defaultdict(list)
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_keeps_what_it_writes_private_and_starts_no_wrong_config_again(name: str) -> None:
    unit = read(name)
    assert unit["UMask"] == ["0077"]
    assert unit["StateDirectoryMode"] == unit["CacheDirectoryMode"] == ["0700"]
    assert unit["CacheDirectory"] == ["fusewatch"]
    assert "XDG_CACHE_HOME=/var/cache/fusewatch" in unit["Environment"][0].split()
    assert all(file.startswith("-/etc/fusewatch/") for file in unit["EnvironmentFile"])
    assert unit["EnvironmentFile"]
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(WRONG)]
    assert f"/var/lib/{unit['StateDirectory'][0]}".replace("%i", "$$1") in unit["ExecStart"][0]


@pytest.mark.parametrize("name", UNITS)
def test_cameras_sound_cards_and_the_models_are_allowed(name: str) -> None:
    unit = read(name)
    assert unit["SupplementaryGroups"] == ["video audio"]
    assert {"char-video4linux rw", "char-alsa rw"} <= set(unit["DeviceAllow"])
    assert "PrivateDevices" not in unit
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= set(unit["RestrictAddressFamilies"][0].split())
    # Tried: under MemoryDenyWriteExecute Whisper ends with "could not create a primitive"
    assert "MemoryDenyWriteExecute" not in unit
    assert unit["SystemCallFilter"][-1] == "sched_setaffinity", "onnxruntime calls it"


def test_both_units_are_confined_alike() -> None:
    own = {"EnvironmentFile", "Environment", "ExecStart", "StateDirectory"}
    one, other = (
        {key: value for key, value in read(name).items() if key not in own} for name in UNITS
    )
    assert one == other


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_little_that_is_open(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", DEPLOY / name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert level, said[-500:]
    assert float(level[1]) < MOST


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    files = [tmp_path / name.replace("@.", "@vision-2.") for name in UNITS]
    for name, file in zip(UNITS, files, strict=True):
        text = (DEPLOY / name).read_text()
        file.write_text(text.replace("/opt/fusewatch/.venv/bin/fusewatch", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--no-pager", "--man=no", *files],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "fusewatch" in line]
    assert ours == []
