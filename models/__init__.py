"""Encoders and fusion heads: each maps a batch to one result per item.

A model has no access to time, sites, the bus or the config file. `registry`, `download` and
`weights` find the model files. Rooms: `vision`, `hearing`, `language`, `behaviour`, `fusion`, and
`training` (torch).
May import: `pipeline/`.

Libraries that run models send usage data to their makers, look for updates, download and install by
default. All of that is switched off here, before any of them can be imported: some read these
variables only once, when they are loaded. Child processes inherit them.
"""

import os
import sys

os.environ |= {
    # ONNX Runtime looks up its maker's host and keeps a device id and a database in the user's
    # cache. `disable_telemetry_events()` comes too late for both.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, which faster-whisper imports: only `models/download.py` downloads
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # ultralytics: usage data, crash reports, updates, and packages that it installs itself
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    # https://consoledonottrack.com: what is added later may heed it
    "DO_NOT_TRACK": "1",
}
# OpenVINO, which ultralytics may use, tells Google Analytics of each import, and no variable turns
# that off. It goes without this package where the package is absent.
sys.modules.setdefault("openvino_telemetry", None)
