"""Records for ever, and says after each chunk how much is written: for a test that kills it.

python -m tests.recording_process FOLDER
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from pipeline.types import ns
from tests.recorded import BEGIN, entry, second_of
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About

if __name__ == "__main__":
    writer = FolderWriter(
        Path(sys.argv[1]), About(log="killed", since=ns(BEGIN)), most_bytes=200_000
    )
    offsets: dict[str, int] = {}
    for second in count():
        for topic, record in second_of(second):
            offsets[topic] = offsets.get(topic, -1) + 1
            writer.add(topic, entry(record, offsets[topic], topic))
        if not writer.tick():
            writer.flush()
        print(second, flush=True)
