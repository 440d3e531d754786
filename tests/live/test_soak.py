"""Worker processes that are killed with -9 again and again tell what undisturbed ones tell.

`make soak` is the full form: three brokers, 30 kills. What runs in CI is a short one.
Figures: docs/explanations/soak.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import codec
from pipeline.types import Alert
from tests.live.brokers import Brokers
from tests.live.likeness import Likeness, likenesses, replayed, spoken
from tests.live.soak import Plan, Soak, Told
from tests.live.three_sites import merged, scenes_of
from workers.config import loader
from workers.delivery.cloudevent import event_bytes, event_id

FULL = os.environ.get("FUSEWATCH_SOAK") == "full"
SEED = int(os.environ.get("FUSEWATCH_SOAK_SEED", "4"))  # whose first five are of four kinds
KILLS = int(os.environ.get("FUSEWATCH_SOAK_KILLS", "30" if FULL else "5"))
SPEED = float(os.environ.get("FUSEWATCH_SOAK_SPEED", "1" if FULL else "2"))  # times real time
full = pytest.mark.skipif(not FULL, reason="takes half an hour: make soak")

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def expected(
    scenes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Likeness]:
    """What a replay says of each scene."""
    folder = tmp_path_factory.mktemp("replayed")
    path = folder / "three.yaml"
    path.write_text(json.dumps(merged(folder, brokers=["127.0.0.1:1"])))
    files = [file for site in scenes_of(scenes).values() for file in site]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FUSEWATCH_WEIGHTS", str(weights))
        found = replayed(loader.load(path), files)
    assert sum(each.revisions.total() for each in found.values()) >= len(found)
    return found


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Three brokers."""
    with Brokers(tmp_path_factory.mktemp("three") / "kafka", 3) as brokers:
        yield brokers


def contents(pairs: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """What came under each id; one that came with two contents is the worst there is."""
    found: dict[str, bytes] = {}
    for ident, content in pairs:
        assert found.setdefault(ident, content) == content, f"{ident} has two contents"
    return found


def compare(told: Told, expected: dict[str, Likeness]) -> None:
    """Nothing missing, nothing changed, nothing twice, nothing unexpected."""
    assert told.unsigned == 0
    arrived = contents(told.posts)
    alerts = [codec.decode(value) for value in told.stored["alerts.v1"]]
    stored = [(event_id(a), event_bytes(a)) for a in alerts if isinstance(a, Alert)]
    assert contents(stored) == arrived, "what stands in the topic and what arrived differ"
    assert told.stored["dead.v1"] == []
    assert told.stored["late.v1"] == []

    events = [json.loads(body) for body in arrived.values()]
    found = likenesses(events, told.stored["observations.v1"])
    scenes = {
        (site, number): scene
        for site, played in told.played.items()
        for number, scene in enumerate(played)
    }
    assert found.keys() == scenes.keys()
    for place, scene in scenes.items():
        assert found[place].revisions == expected[scene].revisions, f"{scene}: {place}"
        other = {
            what
            for what in found[place].said.keys() | expected[scene].said.keys()
            if found[place].said.get(what) != expected[scene].said.get(what)
        }
        assert other == set(), f"what models said in {scene}, {place}, is missing or changed"


def counts(told: Told) -> str:
    """For people, and for docs/explanations/soak.md."""
    kills = ", ".join(f"{n} {who}" for who, n in sorted(told.kills.items()))
    scenes = "; ".join(f"{site}: {', '.join(played)}" for site, played in told.played.items())
    ids, seen = len(dict(told.posts)), told.stored["observations.v1"]
    return "\n".join(
        (
            f"{sum(told.kills.values())} kills: {kills or 'none'}",
            f"{sum(map(len, told.played.values()))} scenes: {scenes}",
            f"{len(told.posts)} posts, {ids} ids, {len(told.posts) - ids} duplicates; "
            f"{len(told.stored['alerts.v1'])} records in alerts.v1",
            f"{len(seen)} records in observations.v1: {len(spoken(seen))} different "
            f"things that models said; {len(seen) - len(set(seen))} records repeated",
            f"{len(told.stored['dead.v1'])} dead, {len(told.stored['late.v1'])} late",
            f"frames that each worker looked at in its last life: {told.looked}",
            f"{told.seconds:.0f} s",
        )
    )


def soaked(folder: Path, plan: Plan, shared: Path, brokers: Brokers) -> Told:
    print(f"\n{plan}", flush=True)
    told = Soak(folder, plan, shared, brokers).run()
    print(counts(told), flush=True)
    return told


def test_five_kills_lose_nothing_and_change_nothing(
    expected: dict[str, Likeness], scenes: Path, tmp_path: Path
) -> None:
    plan = Plan(kills=min(KILLS, 5), seed=SEED, faust=("vision",), speed=SPEED)
    with Brokers(tmp_path / "kafka") as brokers:
        told = soaked(tmp_path / "run", plan, scenes.parent, brokers)
    assert sum(told.kills.values()) >= plan.kills
    compare(told, expected)


@full
def test_over_kafka_undisturbed_it_is_as_replayed(
    expected: dict[str, Likeness], scenes: Path, tmp_path: Path, three: Brokers
) -> None:
    told = soaked(tmp_path / "run", Plan(kills=0, brokers=3, prefix="calm"), scenes.parent, three)
    assert len(told.posts) == len(dict(told.posts))
    assert all(told.looked.values()), "the workers do not share the cameras"
    compare(told, expected)


@full
@pytest.mark.parametrize("faust", [(), ("vision",)], ids=["plain", "faust"])
def test_thirty_kills_of_any_process_and_a_broker_lose_nothing_and_change_nothing(
    expected: dict[str, Likeness],
    scenes: Path,
    tmp_path: Path,
    three: Brokers,
    faust: tuple[str, ...],
) -> None:
    plan = Plan(
        kills=KILLS,
        seed=SEED,
        brokers=3,
        broker_kills=1,
        faust=faust,
        speed=SPEED,
        prefix="faust" if faust else "plain",
    )
    told = soaked(tmp_path / "run", plan, scenes.parent, three)
    assert sum(told.kills.values()) >= plan.kills
    assert told.kills["broker"] == 1
    compare(told, expected)
