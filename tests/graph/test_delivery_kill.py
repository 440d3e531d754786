"""Delivery in a process of its own, killed by SIGKILL again and again, to a real receiver."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog, Retention
from tests.make import alert
from workers.delivery.cloudevent import event_id
from workers.delivery.receiver import Receiver, Reply

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
COUNT = 300
DURABLE = {topics.ALERTS: Retention(hold=True, durable=True)}

CHILD = """
import random, sys, threading, time
from pathlib import Path
from pipeline import topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Webhook as Settings
from workers.delivery.delivery import Delivery, DeliveryEnvironment, Subscriber
from workers.delivery.delivery import dead_letter_publisher
from workers.delivery.webhook import Webhook

folder, url, secret = sys.argv[1:]
durable = {topics.ALERTS: Retention(hold=True, durable=True)}
bus = LocalLog(Path(folder), clock=time.time_ns, retention=durable)
who = Subscriber(name="siem", sink=Webhook(Settings(url=url, secret=secret)))
outside = DeliveryEnvironment(clock=time.time, random=random.random, pause=time.sleep)
delivery = Delivery(who, bus.reader(topics.ALERTS, who.group), dead_letter_publisher(bus), outside)
while not delivery.idle:
    delivery.step(0.1)
delivery.close()
bus.close()
"""


@pytest.mark.slow
def test_every_alert_reaches_the_receiver_whenever_the_process_is_killed(tmp_path):
    chance = random.Random(5)
    log = LocalLog(tmp_path, clock=lambda: 0, retention=DURABLE)
    for n in range(COUNT):
        one = alert(id=f"{n:04x}")
        log.publish(topics.ALERTS, one.site, codec.encode(one))
    log.flush()
    log.close()

    failed = set()

    def answer(received):  # some fail, once: what fails often is for tests without a real clock
        ident = received.event["id"]
        if ident in failed or chance.random() < 0.96:
            return Reply()
        failed.add(ident)
        return Reply(chance.choice((422, 503)))

    kills = 0
    with Receiver(SECRET, answer=answer) as receiver:
        ended = None
        while ended is None:
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(tmp_path), receiver.url, SECRET],
                stderr=subprocess.PIPE,
            )
            with child:
                more = len(receiver.events) + chance.randrange(5, 70)
                if more < COUNT:
                    came = receiver.wait(more, seconds=60)
                    child.kill()
                    assert came, child.stderr.read().decode()
                    kills += 1
                    child.wait()
                else:
                    ended = child.wait(timeout=120)
                    assert ended == 0, child.stderr.read()
    assert set(receiver.events) == {f"{n:04x}_0" for n in range(COUNT)}
    assert kills >= 5
    times = Counter(post.headers["webhook-id"] for post in receiver.posts)
    bodies = {(post.headers["webhook-id"], post.body) for post in receiver.posts}
    assert len(bodies) == len(times), "one id never carries two contents"
    assert event_id(alert(id="0000")) in times
