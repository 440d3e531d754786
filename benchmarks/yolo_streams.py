"""`yolo track` on several live streams at once, for `benchmarks.sixteen`; needs ultralytics alone.

    python benchmarks/yolo_streams.py MODEL --seconds 60 URL...

One model and one tracker in a thread for each stream, as ultralytics' guide says ("Multithreaded
Tracking"), since the model takes one picture at a time. Every second frame of 10 frames/s is taken.
Prints JSON: the frames that were tracked of each stream, the seconds, the CPU seconds, and the
largest memory in bytes (RSS).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time

WARM_UP = 5  # results of each stream before the count begins
PATIENCE = 120.0  # s for the warm-up


def spent() -> float:
    """CPU seconds of this process and its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measures, prints one line of JSON and ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"] = "true", "false"
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    done = [0] * len(asked.urls)

    def track(number: int, url: str) -> None:
        model = YOLO(asked.model, task="detect")
        for _ in model.track(url, stream=True, verbose=False, vid_stride=2, imgsz=640):
            done[number] += 1

    for number, url in enumerate(asked.urls):
        threading.Thread(target=track, args=(number, url), daemon=True).start()
    until = time.monotonic() + PATIENCE
    while min(done) < WARM_UP and time.monotonic() < until:
        time.sleep(0.2)
    before, began, used = list(done), time.monotonic(), spent()
    time.sleep(asked.seconds)
    seconds, cpu = time.monotonic() - began, spent() - used
    frames = [now - was for now, was in zip(done, before, strict=True)]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"frames": frames, "seconds": seconds, "cpu": cpu, "rss": rss}), flush=True)
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main()
