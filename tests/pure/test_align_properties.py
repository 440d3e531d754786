"""What holds of windows whatever the sources say, and however they are mixed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.judge.align import Aligner, Output, Repeat, Unknown
from pipeline.types import Late, Observation, Progress, Record, Roster, Window, needed_until, ns
from tests import make

START = 1000.0  # s; everything happens on a grid of half seconds from here on
HORIZON = 12.0
SOURCES = ("desk", "room", "room/speech")
Stream = list[Record]

shapes = st.sampled_from([(4.0, 1.0), (2.5, 1.0), (3.0, 3.0), (4.0, 1.5)])
halves = st.integers(0, 6).map(lambda n: n / 2)
steps = st.lists(
    st.tuples(
        st.sampled_from(["frame", "frame", "see", "promise", "lose", "below", "again", "stray"]),
        halves,
        halves,
    ),
    max_size=12,
)


def observation(source: str, start: float, seconds: float) -> Observation:
    if source == "room":
        return make.sound(start, source=source)
    if source == "room/speech":
        return make.utterance(start, source=source, seconds=seconds)
    return make.detections(start, source=source, seconds=seconds)


def stream(source: str, began: float, plan: Sequence[tuple[str, float, float]]) -> Stream:
    """What one source says in its own order: promises kept, broken, made for it, and repeats."""
    said: Stream = []
    promise = began
    for what, one, two in plan:
        match what:
            case "frame":
                said.append(observation(source, promise + one, two))
                promise += one + 0.5
                said.append(make.progress(promise, source=source))
            case "see":
                said.append(observation(source, promise + one, two))
            case "promise" | "lose":
                promise += one
                said.append(make.progress(promise, source=source, alive=what == "promise"))
            case "below":
                said.append(observation(source, max(began, promise - one), two))
            case "again":
                said += said[-1 - int(2 * one) :]
            case "stray":
                said.append(observation("ghost", promise, two))
    return said


def with_rosters(said: Stream, rosters: Sequence[Roster]) -> Stream:
    """As capture does: each stream tells of a roster before it promises to be past its start."""
    out: Stream = []
    waiting = list(rosters)
    for record in said:
        while waiting and isinstance(record, Progress) and record.upto > waiting[0].start:
            out.append(waiting.pop(0))
        out.append(record)
    return out + waiting


@st.composite
def sites(draw: st.DrawFn, *, joins: bool = True) -> list[Stream]:
    """The streams of a site: sources of the first roster, and one that may join later."""
    names = SOURCES[: draw(st.integers(1, 3))]
    rosters = [make.roster(*names, start=START)]
    streams = [(name, stream(name, START + draw(halves), draw(steps))) for name in names]
    if joins and draw(st.booleans()):
        joined = START + draw(halves) * 2
        rosters.append(make.roster(*names, "gate", start=joined))
        late = stream("gate", joined + draw(halves), draw(steps))
        streams.append(("gate", late))
    full = [(name, [*said, make.progress(START + 80, source=name)]) for name, said in streams]
    return [[rosters[name == "gate"], *with_rosters(said, rosters[1:])] for name, said in full]


def mixed(streams: Sequence[Stream], order: Sequence[int]) -> Stream:
    """One log of all streams: `order` picks whose turn it is, each keeps its own order."""
    left = [list(reversed(said)) for said in streams]
    log: Stream = []
    for pick in order:
        waiting = [said for said in left if said]
        if not waiting:
            break
        log.append(waiting[pick % len(waiting)].pop())
    for said in left:
        log += reversed(said)
    return log


orders = st.lists(st.integers(0, 11), max_size=80)


def aligner(shape: tuple[float, float], floor: int = 0) -> Aligner:
    size, hop = shape
    return Aligner(make.SITE, ns(size), ns(hop), horizon=ns(HORIZON), floor=floor)


def feed(one: Aligner, log: Stream) -> list[Output]:
    return [output for record in log for output in one.push(record)]


def windows(outputs: Sequence[Output]) -> list[Window]:
    return [output for output in outputs if isinstance(output, Window)]


def overlaps(seen: Observation, window: Window) -> bool:
    return seen.start < window.end and max(seen.end, seen.start + 1) > window.start


def accepted(one: Aligner, log: Stream) -> tuple[list[Observation], list[Window]]:
    """What was used, in the order of the log, and the windows that came of it."""
    used: list[Observation] = []
    given_: list[Window] = []
    for record in log:
        out = one.push(record)
        refused = any(isinstance(o, Repeat | Late | Unknown) for o in out)
        if isinstance(record, Observation) and not refused:
            used.append(record)
        given_ += windows(out)
    return used, given_


@given(shapes, sites(), orders, orders)
def test_any_mixture_of_the_sources_gives_the_same(
    shape: tuple[float, float], streams: list[Stream], one: list[int], two: list[int]
) -> None:
    first = feed(aligner(shape), mixed(streams, one))
    second = feed(aligner(shape), mixed(streams, two))
    assert windows(first) == windows(second)
    others = [Counter(map(repr, out)) for out in (first, second)]
    assert others[0] == others[1]


@given(shapes, sites(), orders)
def test_what_is_used_is_in_exactly_the_windows_that_it_overlaps(
    shape: tuple[float, float], streams: list[Stream], order: list[int]
) -> None:
    used, closed = accepted(aligner(shape), mixed(streams, order))
    for window in closed:
        inside = [seen for seen in used if overlaps(seen, window)]
        assert list(window.observations) == sorted(
            inside, key=lambda o: (o.start, o.source, type(o).__name__, o.end)
        )
    assert all(any(overlaps(seen, window) for window in closed) for seen in used)


@given(shapes, sites(), orders)
def test_windows_come_once_and_in_order_and_none_is_left_out(
    shape: tuple[float, float], streams: list[Stream], order: list[int]
) -> None:
    one, (size, hop) = aligner(shape), map(ns, shape)
    used, closed = accepted(one, mixed(streams, order))
    given_ = [window.index for window in closed]
    assert given_ == sorted(set(given_))
    assert all((w.start, w.end) == (w.index * hop, w.index * hop + size) for w in closed)
    assert one.watermark is not None
    words = [r.upto for said in streams for r in said if isinstance(r, Progress)]
    first = (min([o.start for o in used] + words) - size) // hop + 1
    last = (one.watermark - size) // hop
    assert not given_ or given_[-1] <= last
    for index in set(range(first, last + 1)) - set(given_):  # only where all are silent for long
        start, end = index * hop, index * hop + size
        assert not any(o.start < end and o.end > start for o in used)
        since = (index - (ns(HORIZON) - size) // hop) * hop
        assert not any(since <= word < end // hop * hop for word in words)


@given(shapes, sites(), orders)
def test_no_window_closes_before_every_source_has_promised_its_end(
    shape: tuple[float, float], streams: list[Stream], order: list[int]
) -> None:
    one = aligner(shape)
    promised: dict[str, int] = {}
    for record in mixed(streams, order):
        if isinstance(record, Progress):
            before = promised.get(record.source, record.upto)
            promised[record.source] = max(before, record.upto)
        for window in windows(one.push(record)):
            assert all(promised.get(name, 0) >= window.end for name in window.presence)
    assert one.watermark == min(promised.values())


@given(shapes, sites(), orders, st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9))))
def test_repeats_change_nothing(
    shape: tuple[float, float],
    streams: list[Stream],
    order: list[int],
    crashes: list[tuple[int, int]],
) -> None:
    """A worker that dies starts again a little before: its last records come twice, in order."""
    again = [list(said) for said in streams]
    for at, back in crashes:
        said = again[at % len(again)]
        cut = at % (len(said) + 1)
        said[cut:cut] = said[max(0, cut - back) : cut]
    once = feed(aligner(shape), mixed(streams, order))
    twice = feed(aligner(shape), mixed(again, order))
    assert windows(once) == windows(twice)


@given(shapes, sites(), orders)
def test_a_record_sent_twice_is_used_once(
    shape: tuple[float, float], streams: list[Stream], order: list[int]
) -> None:
    one = aligner(shape)
    for record in mixed(streams, order):
        out = one.push(record)
        if isinstance(record, Observation) and not out:
            (repeat,) = one.push(record)
            assert isinstance(repeat, Repeat)


@given(shapes, sites(), orders)
def test_late_is_only_what_is_below_a_promise_made_for_its_source(
    shape: tuple[float, float], streams: list[Stream], order: list[int]
) -> None:
    one = aligner(shape)
    made_by: dict[str, int] = {}
    made_for: dict[str, int] = {}
    for record in mixed(streams, order):
        out = one.push(record)
        if isinstance(record, Progress):
            promises = made_by if record.alive else made_for
            promises[record.source] = max(promises.get(record.source, 0), record.upto)
        if isinstance(record, Observation) and record.source != "ghost":
            own = made_by.get(record.source, 0)
            late = own <= record.start < made_for.get(record.source, 0)
            told = [type(o) for o in out]
            if record.start < own:
                assert told == [Repeat]
            elif late:
                assert told in ([Late], [Repeat])
            else:
                assert told in ([], [Repeat])


@given(st.lists(st.tuples(st.booleans(), halves), min_size=1, max_size=30))
def test_a_lost_microphone_never_stalls_a_camera(hops: list[tuple[bool, float]]) -> None:
    one = aligner((4.0, 1.0))
    feed(one, [make.roster("desk", "room", start=START), make.progress(START, source="room")])
    now = START
    for heard, step in hops:
        now += step
        if heard:
            one.push(make.sound(now))
        one.push(make.progress(now, source="room", alive=heard))
        one.push(make.detections(now))
        one.push(make.progress(now))
        assert one.watermark == ns(now)


def played(one: Aligner, log: Sequence[Record], newest: int) -> list[list[Output]]:
    """As the fusion stage does: each record, and then whoever stalls is spoken for."""
    said = []
    for record in log:
        out = one.push(record)
        newest = max(newest, record.start if isinstance(record, Observation) else 0)
        forced, _ = one.declare_lost_until(newest - ns(HORIZON))
        said.append(out + forced)
    return said


@st.composite
def logs(draw: st.DrawFn) -> Stream:
    """A longer log, with a roster said every ten seconds, sources that stall, leave and join."""
    log: Stream = []
    clock = dict.fromkeys(SOURCES, START)
    rosters = [make.roster(*SOURCES[:2], start=START)]
    log.append(rosters[0])
    said = START
    for name, what, one, two in draw(
        st.lists(
            st.tuples(
                st.sampled_from(SOURCES),
                st.sampled_from(["frame", "frame", "see", "promise", "lose", "below", "roster"]),
                halves,
                halves,
            ),
            min_size=20,
            max_size=80,
        )
    ):
        now = max(clock.values())
        if what == "roster" or now >= said + 10:
            names = SOURCES[: 2 + (what == "roster" and one > 1.5)]
            log.append(make.roster(*names, start=now))
            said = now
            continue
        log += stream(name, clock[name], [(what, one, two)])
        clock[name] += one + 0.5 * (what == "frame")
    return log


@settings(max_examples=300)
@given(logs(), shapes, st.integers(1, 80))
def test_a_restart_from_the_floor_says_the_same_from_there_on(
    log: Stream, shape: tuple[float, float], reached: int
) -> None:
    """Only what `needed_until` keeps above the floor is read again; its outputs are not used."""
    reached = min(reached, len(log))
    first = aligner(shape)
    played(first, log[:reached], 0)
    floor = first.floor
    seen = [r.start for r in log[:reached] if isinstance(r, Observation)]
    after = played(first, log[reached:], max(seen, default=0))
    second = aligner(shape, floor)
    held = [record for record in log[:reached] if needed_until(record) > floor]
    kept = [r.start for r in held if isinstance(r, Observation)]
    played(second, held, 0)
    again = played(second, log[reached:], max(kept, default=0))
    assert [windows(out) for out in again] == [windows(out) for out in after]
    assert second.watermark == first.watermark
