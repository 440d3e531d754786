"""The figures of the architecture: boxes and arrows. Names come from the code where it has them."""

from __future__ import annotations

from collections.abc import Mapping

from docs.generate.figures import timelines
from docs.generate.figures.drawing import Box, Drawing
from pipeline.config.model_needs import HIGH
from pipeline.config.schema import KafkaBus
from pipeline.stages import CAPTURE, DELIVERY, TABLE, WORKERS
from pipeline.topics import ALERTS, ANOMALIES, AUDIO, CHUNKS, DEAD, FRAMES, LATE, OBSERVATIONS


def every() -> Mapping[str, str]:
    """Name -> SVG of every figure."""
    return {
        "capture": capture(),
        "stages": stages(),
        "host": host(),
        "windows": timelines.windows(),
        "incident": timelines.incident(),
        "delivery": delivery(),
        "workers": workers(),
    }


def capture() -> str:
    """From the sources to the chunk topics."""
    drawing = Drawing(
        860, 400, "Capture: each source has a reader, a bounded buffer and a publisher"
    )
    rows = (
        ("camera", "RTSP, MJPEG, V4L2, file", "newest frame", "1 frame", FRAMES),
        ("microphone", "device, stream, file", "sound in order", "100 chunks, 10 s", AUDIO),
    )
    for i, (source, kinds, holds, bound, topic) in enumerate(rows):
        y = 20 + 110 * i
        first = drawing.box(10, y, f"{source}\n{kinds}", "outside", width=190)
        reader = drawing.box(260, y, "read loop\nreconnects", width=130)
        buffer = drawing.box(430, y, f"{holds}\n{bound}", "state", width=150)
        publisher = drawing.box(620, y, "publish", width=80, height=54)
        out = drawing.box(740, y, topic, "topic", width=110, height=54)
        drawing.right(first, reader)
        drawing.right(reader, buffer)
        drawing.right(buffer, publisher)
        drawing.right(publisher, out)
    person = drawing.box(10, 240, "person\nPOST /v1/reports", "outside", width=190)
    server = drawing.box(260, 240, "endpoint\nchecks the token", width=150)
    publisher = drawing.box(620, 240, "publish", width=80, height=54)
    out = drawing.box(740, 240, CHUNKS[2], "topic", width=110, height=54)
    drawing.right(person, server)
    drawing.right(server, publisher, "durable before 202")
    drawing.right(publisher, out)
    also = (
        "each stream also carries promises (Progress) and, every 10 s, the list of sources (Roster)"
    )
    drawing.pill(430, 335, also)
    drawing.pill(
        430, 370, "a lost source is published too: Progress(alive=false) with the reason", "bad"
    )
    return drawing.svg()


def stages() -> str:
    """The table of stages: what each reads and writes, and its models."""
    width, gap = 186, 27
    drawing = Drawing(845, 620, "The stages: each reads one topic and writes one topic")
    first = [row for row in TABLE if row.reads in CHUNKS]
    boxes = {
        row.name: drawing.box(
            10 + i * (width + gap),
            110,
            f"{row.name}\n{', '.join(name for name in row.encoders if name != HIGH)}",
            width=width,
            height=58,
        )
        for i, row in enumerate(first)
    }
    for topic in CHUNKS:
        readers = [boxes[row.name] for row in first if row.reads == topic]
        middle = (readers[0].middle[0] + readers[-1].middle[0]) / 2
        box = drawing.box(middle - 65, 20, topic, "topic", width=130)
        for each in readers:
            drawing.down(box, each)
    observations = drawing.box(10, 230, OBSERVATIONS, "topic", width=825)
    for i, row in enumerate(first):
        drawing.down(boxes[row.name], observations, to=(i * (width + gap) + width / 2) / 825)
    before = observations
    for i, row in enumerate(row for row in TABLE if row.reads not in CHUNKS):
        y = 310 + 150 * i
        box = drawing.box(300, y, f"{row.name}\n{_ABOUT[row.name]}", width=245, height=54)
        topic = drawing.box(342, y + 86, row.writes, "topic", width=160)
        drawing.down(before, box)
        drawing.down(box, topic)
        before = topic
    side = drawing.box(640, 310, f"{LATE}  {DEAD}\nwhat a stage cannot use", "bad", width=195)
    drawing.right(Box(300, 310, 245, 54), side, dashed=True)
    done = drawing.box(640, 546, "delivery\none a subscriber", width=195, height=54)
    drawing.right(before, done)
    return drawing.svg()


_ABOUT = {"fusion": "tracks, windows, rules, head", "alert": "incidents and their revisions"}


def host() -> str:
    """The loop that runs every stage."""
    drawing = Drawing(
        860, 330, "The loop of every stage: poll, infer, feed, publish, flush, commit"
    )
    topic = drawing.box(10, 120, "topic\nthat it reads", "topic", width=130)
    steps = (
        "poll\nat most 64",
        "infer\nmodel, in a batch",
        "feed\nstate of a site",
        "publish\nanswers",
    )
    x, before = 180, topic
    for text in steps:
        box = drawing.box(x, 120, text, width=140)
        drawing.right(before, box)
        before, x = box, x + 170
    feed = Box(520, 120, 140, 54)
    out = drawing.box(690, 20, "topic\nthat it writes", "topic", width=140)
    drawing.down(before, out)
    flush = drawing.box(690, 230, "flush\nnow it is on disk", width=140)
    commit = drawing.box(520, 230, "commit\nsafe + note", width=140)
    drawing.down(before, flush)
    _left(drawing, flush, commit)
    _left(
        drawing, commit, drawing.box(250, 230, "restart\nreads on from `safe`", "state", width=190)
    )
    drawing.down(drawing.box(490, 20, "state\nnever stored", "state", width=170), feed, at=0.59)
    drawing.pill(
        345, 310, "a kill between flush and commit says the same bytes twice; readers know repeats"
    )
    return drawing.svg()


def _left(drawing: Drawing, a: Box, b: Box) -> None:
    """Draws an arrow to the left: from the left edge of `a` to the right edge of `b`."""
    drawing.right(Box(a.x, a.y, 0, a.height), Box(b.x + b.width + 6, b.y, 0, b.height))


def delivery() -> str:
    """From an alert to its receiver."""
    drawing = Drawing(860, 410, "Delivery: each subscriber reads the alerts by itself")
    alerts = drawing.box(10, 140, f"{ALERTS}\nkept until read", "topic", width=150)
    rows = (
        ("webhook", "signed POST", "your receiver"),
        ("jsonl", "a line", "file"),
        ("evidence", "cut from the chunks", "pictures, sound"),
    )
    for i, (name, how, where) in enumerate(rows):
        y = 20 + 120 * i
        reader = drawing.box(210, y, f"{name}\nown position", width=130)
        waiting = drawing.box(380, y, "outbox\nwhat is pending", "state", width=150)
        target = drawing.box(700, y, where, "outside", width=150, height=54)
        drawing.right(alerts, reader)
        drawing.right(reader, waiting)
        drawing.right(waiting, target, how)
    dead = drawing.box(380, 358, DEAD, "bad", width=150)
    drawing.down(Box(380, 260, 150, 54), dead)
    drawing.pill(700, 376, "of every outbox: refused, or given up", "bad")
    drawing.pill(180, 376, "no subscriber waits for another")
    return drawing.svg()


def workers() -> str:
    """The processes over Kafka, with the topics between them."""
    drawing = Drawing(
        860, 440, "Workers over Apache Kafka: each process runs the stages of one row"
    )
    bus = KafkaBus(brokers=("",))
    topics = [each for each in _TOPICS if each != DEAD]
    drawing.group(10, 170, 840, 92, "Apache Kafka: topic, default partitions")
    where = {}
    for i, topic in enumerate(topics):
        count = getattr(bus.partitions, topic.split(".")[0])
        where[topic] = drawing.box(
            22 + 137 * i, 192, f"{topic}\n{count} partitions", "topic", width=128
        )
    top = {CAPTURE: 1, "fusion": 3, DELIVERY: 5}
    boxes = {}
    for name, column in top.items():
        boxes[name] = drawing.box(22 + 137 * column - 18, 40, _worker(name), width=165, height=60)
    for i, name in enumerate(n for n in WORKERS if n not in top):
        x = (22, 215, 408, 633)[i]
        boxes[name] = drawing.box(x, 340, _worker(name), width=165, height=60)
    for topic in CHUNKS:
        drawing.down(boxes[CAPTURE], where[topic])
    for row in {(row.worker, row.reads, row.writes): row for row in TABLE}.values():
        worker, read, write = boxes[row.worker], where[row.reads], where[row.writes]
        drawing.down(read, worker, at=0.4 if row.worker != "fusion" else 0.5, to=0.35)
        drawing.down(worker, write, at=0.65, to=0.6)
    drawing.down(where[ALERTS], boxes[DELIVERY])
    drawing.pill(430, 424, "start as many of each worker as its topic has partitions")
    return drawing.svg()


_TOPICS = (*CHUNKS, OBSERVATIONS, ANOMALIES, ALERTS)


def _worker(name: str) -> str:
    runs = WORKERS[name]
    word = "stage" if len(runs) == 1 else "stages"
    others = {CAPTURE: "spool on disk", DELIVERY: "webhooks, files"}
    return f"{name}\n{others.get(name) or f'{word}: ' + ', '.join(runs)}"
