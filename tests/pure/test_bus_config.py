"""What a config may not say of its brokers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.checks import problems
from pipeline.config.schema import (
    Camera,
    Config,
    Detect,
    KafkaBus,
    Partitions,
    Sasl,
    Site,
    Storage,
    Tls,
)
from pipeline.errors import ConfigError
from pipeline.kafka_partitioner import partition_of
from workers.config import loader

SASL = Sasl(mechanism="PLAIN", username="fusewatch", password="planted-secret")


def told(sites: Any = None, storage: Storage | None = None, **bus: Any) -> list[str]:
    """What is wrong with a config over brokers."""
    given = KafkaBus(**({"brokers": ("kafka:9092",)} | bus))
    config = Config(
        version=1, sites=sites or {"lobby": Site()}, bus=given, storage=storage or Storage()
    )
    return [str(problem) for problem in problems(config)]


@pytest.mark.parametrize(
    "broker", ["kafka:9092", "10.0.0.5:9092", "[::1]:9092", "kafka-1.example.org:65535", "k_1:1"]
)
def test_a_broker_is_a_host_and_a_port(broker: str) -> None:
    assert told(brokers=(broker,)) == []


@pytest.mark.parametrize(
    ("broker", "what"),
    [
        ("kafka", "has no port"),
        ("::1", "has no port"),
        ("", "has no port"),
        ("kafka:", "must end with a port"),
        ("kafka:0", "must end with a port"),
        ("kafka:65536", "must end with a port"),
        ("kafka:9092x", "must end with a port"),
        ("kafka:٩٠٩٢", "must end with a port"),
        (":9092", "begins with what is no host"),
        ("-kafka:9092", "begins with what is no host"),
        ("kafka:9092,kafka:9093", "give several as a list"),
        ("kafka://planted:9092", "must be host:port alone"),
        ("fusewatch:planted-secret@kafka:9092", "must be host:port alone"),
        ("PLAINTEXT://kafka:9092", "must be host:port alone"),
    ],
)
def test_what_is_no_broker_is_told_and_never_quoted(broker: str, what: str) -> None:
    (problem,) = told(brokers=("fine:9092", broker))
    assert problem.startswith("bus.brokers[1]: ")
    assert what in problem
    assert "planted" not in problem


def test_a_broker_is_named_once() -> None:
    assert told(brokers=("a:1", "b:1", "a:1")) == ["bus.brokers[2]: is named twice"]


def test_more_acknowledgements_than_copies_could_never_come() -> None:
    assert told(replication=1) == [
        "bus.min_insync: is more than bus.replication (1): nothing could be written"
    ]
    assert told(replication=3, min_insync=3) == []


def test_a_key_without_its_certificate_is_refused() -> None:
    assert told(tls=Tls(key="k.pem"))[0].startswith("bus.tls.key: needs bus.tls.cert")
    assert told(tls=Tls(cert="both.pem")) == []


def test_a_password_goes_over_the_network_encrypted_or_not_at_all() -> None:
    assert told(sasl=SASL, tls=Tls()) == []
    for local in ("127.0.0.1:9092", "localhost:9092", "[::1]:9092"):
        assert told(sasl=SASL, brokers=(local,)) == []
    (problem,) = told(sasl=SASL, brokers=("127.0.0.1:9092", "10.0.0.5:9092"))
    assert problem.startswith("bus.sasl: would go over the network for all to read; add bus.tls")
    assert "planted" not in problem


@pytest.mark.parametrize("name", ["username", "password"])
def test_nobody_logs_in_without_name_and_password(name: str) -> None:
    words = {"username": "u", "password": "p"} | {name: " "}
    assert told(tls=Tls(), sasl=Sasl(mechanism="PLAIN", **words)) == [f"bus.sasl.{name}: is empty"]


@pytest.mark.parametrize("spool", ["99 MB", "2 TiX", "-1 GB"])
def test_a_spool_has_room_for_an_outage(spool: str) -> None:
    (problem,) = told(spool=spool)
    assert problem.startswith("bus.spool: must be ")
    assert told(spool="100 MB") == []


def test_a_picture_fits_into_a_record() -> None:
    wide = Site(cameras={"door": Camera(source="device:0", detect=Detect(width=1920))})
    (problem,) = told({"lobby": wide})
    assert problem.endswith(
        "pictures may outgrow bus.max_message (1000000 bytes); use at most 1414"
    )
    assert told({"lobby": wide}, max_message=2_000_000) == []


def test_a_cap_has_room_for_a_record_in_each_partition() -> None:
    (problem,) = told(storage=Storage(cap="150 MB"))
    assert problem == (
        "storage.cap: is too little for so many partitions: one of reports.v1 would keep 1.0 MB,"
        " and a record may have 1.0; at least 160 MB, or fewer bus.partitions"
    )
    assert told(storage=Storage(cap="160 MB")) == []
    assert told(storage=Storage(cap="100 MB"), partitions=Partitions(anomalies=1, reports=1)) != []


@pytest.mark.parametrize("kind", ["local", "kafka, brokers: [a:1]"])
def test_the_patience_with_a_stall_is_a_setting_of_either_bus(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "office.yaml"
    for given, patience in (("", 120), (", stall: 30", 30)):
        path.write_text(f"version: 1\nsites: {{lobby: {{}}}}\nbus: {{kind: {kind}{given}}}\n")
        assert loader.load(path).bus.stall == patience
    path.write_text(f"version: 1\nsites: {{lobby: {{}}}}\nbus: {{kind: {kind}, stall: 0}}\n")
    with pytest.raises(ConfigError, match=r"bus\.stall: must be more than 0"):
        loader.load(path)


def test_a_wrong_cap_is_told_once() -> None:
    assert len(told(storage=Storage(cap="much"))) == 1


def test_the_sites_of_a_partition_fit_into_the_note_of_a_commit() -> None:
    names = [f"site-{n:04d}" for n in range(2000)]
    found = told({name: Site() for name in names})
    assert [problem.partition(":")[0] for problem in found] == [
        "bus.partitions.observations",
        "bus.partitions.anomalies",
    ]
    enough = int(found[0].rpartition(" ")[2])
    assert told(
        {name: Site() for name in names}, partitions=Partitions(observations=enough, anomalies=50)
    ) == []  # fmt: skip
    fullest = max(sum(partition_of(name, enough) == n for name in names) for n in range(enough))
    assert fullest <= 300


def yaml(folder: Path, bus: str) -> Path:
    path = folder / "office.yaml"
    path.write_text(f"version: 1\nsites: {{lobby: {{}}}}\nbus:\n{bus}")
    return path


def test_a_whole_bus_is_read(tmp_path: Path) -> None:
    path = yaml(
        tmp_path,
        "  kind: kafka\n  brokers: [kafka-1:9093, kafka-2:9093]\n  prefix: north\n  tls: {}\n"
        "  sasl: {mechanism: SCRAM-SHA-512, username: fusewatch, password: 'file:pw'}\n"
        "  partitions: {frames: 24}\n  spool: 10 GB\n",
    )
    bus = loader.load(path, {}).bus
    assert isinstance(bus, KafkaBus)
    assert bus.tls == Tls()
    assert bus.partitions == Partitions(frames=24)
    assert "file:pw" not in repr(bus)


@pytest.mark.parametrize(
    ("bus", "what"),
    [
        ("  kind: kafak\n", "bus.kind: is not known; did you mean `kafka`?"),
        ("  kind: kafka\n", "bus.brokers: is missing"),
        (
            "  kind: kafka\n  brokers: [a:1]\n  max_message: 700000\n",
            "bus.max_message: must be at least 750000 and at most 67108864",
        ),
        ("  kind: kafka\n  broker: [a:1]\n", "is not a setting; did you mean `brokers`?"),
        ("  kind: kafka\n  brokers: a:1\n", "bus.brokers: must be a list"),
        ("  kind: kafka\n  brokers: []\n", "bus.brokers: "),
        (
            "  kind: kafka\n  brokers: [a:1]\n  sasl: {mechanism: SCRAM, username: u,"
            " password: planted}\n",
            "must be one of: PLAIN",
        ),
        (
            "  kind: kafka\n  brokers: [a:1]\n  partitions: {frame: 3}\n",
            "did you mean `frames`?",
        ),
        (
            "  kind: kafka\n  brokers: [a:1]\n  tls: {}\n"
            "  sasl: {mechanism: PLAIN, username: u, password: 'planted${'}\n",
            "bus.sasl.password: `${` must be followed by a variable's name",
        ),
    ],
)
def test_what_is_wrong_with_a_bus_is_told_with_its_line(
    tmp_path: Path, bus: str, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load(yaml(tmp_path, bus), {})
    assert what in str(caught.value)
    assert f"{tmp_path}/office.yaml:" in str(caught.value)
    assert "planted" not in str(caught.value)
