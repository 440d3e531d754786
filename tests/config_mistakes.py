"""Typical mistakes in a config, as people make them, and what `check` says of each.

python -m tests.config_mistakes        prints the table
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from workers.config.findings import ConfigFinding, FaultyFile
from workers.config.loader import examine

RIGHT = """\
version: 1
sites:
  shop:
    timezone: Europe/Berlin
    cameras:
      door:
        source: "rtsp://10.0.0.5/h264"
        detect: {fps: 5}
        zones:
          floor: {coordinates: "0,0, 1,0, 1,1, 0,1", objects: [person]}
    microphones:
      till: {source: "rtsp://10.0.0.5/h264"}
    rules:
      - {rule: zone, zone: floor, schedule: "22:00-06:00", severity: high}
      - {rule: sound, labels: {gunshot: 0.5}}
      - {rule: keyword, words: {en: [help]}}
webhooks:
  - {url: "https://example.org/hook", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
api: {listen: "127.0.0.1:8674"}
"""


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong with a file, and what must be said of it, from the line on."""

    name: str
    data: bytes
    says: str


def swapped(*pairs: str) -> bytes:
    """The right config with each text of a pair replaced by the next."""
    text = RIGHT
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(old), old
        text = text.replace(old, new, 1)
    return text.encode()


def findings(path: Path, data: bytes) -> list[ConfigFinding]:
    """All that `check` finds in a file that holds `data`."""
    path.write_bytes(data)
    try:
        found = examine(path, {})
    except FaultyFile as error:
        return list(error.findings)
    return [*found.problems, *(each for each in found.warnings if each.level == "warning")]


MISTAKES = (
    Mistake(
        "a tab as indentation",
        swapped("    timezone", "\ttimezone"),
        "4: a tab is no indentation in YAML; use spaces",
    ),
    Mistake(
        "a key without a colon",
        swapped("  shop:\n", "  shop\n"),
        "3: a key needs a colon and a space after it",
    ),
    Mistake(
        "no space after the colon",
        swapped("timezone: Europe", "timezone:Europe"),
        "4: a key needs a colon and a space after it",
    ),
    Mistake(
        "a wrong indentation",
        swapped("    microphones:", "   microphones:"),
        "11: does not fit the lines above: see its indentation, and the quotes above",
    ),
    Mistake(
        "a bracket that is not closed",
        swapped("[person]}", "[person}"),
        "10: a bracket or comma is missing in the `{..}` or `[..]` that begins in line 10",
    ),
    Mistake(
        "a quote that is not closed",
        swapped('h264"\n        detect', "h264\\n        detect"),
        "9: does not fit the lines above: see its indentation, and the quotes above",
    ),
    Mistake(
        "a value with `: ` in it and no quotes",
        swapped("timezone: Europe/Berlin", "timezone: zone: Berlin"),
        "4: a second `: ` on one line, or a wrong indentation; put the text in quotes",
    ),
    Mistake(
        "a camera without a stream",
        swapped('        source: "rtsp://10.0.0.5/h264"\n        detect', "        detect"),
        "6: sites.shop.cameras.door.source: is missing; a camera has `source` or `streams`",
    ),
    Mistake(
        "one stream and two",
        swapped(
            "        detect: {fps: 5}\n",
            "        streams: {detect: 'rtsp://10.0.0.5/a', record: 'rtsp://10.0.0.5/b'}\n",
        ),
        "8: sites.shop.cameras.door.streams: is in place of `source`; write one of the two",
    ),
    Mistake(
        "two streams, of which one has no address",
        swapped('source: "rtsp://10.0.0.5/h264"', 'streams: {detect: "rtsp://10.0.0.5/h264"}'),
        "7: sites.shop.cameras.door.streams.record: is missing",
    ),
    Mistake(
        "a stream that is no address",
        swapped(
            'source: "rtsp://10.0.0.5/h264"',
            'streams: {detect: "rtsp://10.0.0.5/a", record: "exec:id"}',
        ),
        "7: sites.shop.cameras.door.streams.record: the address has a scheme `exec:` that is not "
        "one of: rtsp, rtsps, http, https, device, file",
    ),
    Mistake(
        "keyframes by motion that nobody measures",
        swapped("{fps: 5}", "{decode: auto, gate: off}"),
        "8: sites.shop.cameras.door.detect.decode: needs the motion that `gate: auto` measures; "
        "write `all` or `keyframes`",
    ),
    Mistake(
        "a device that FFmpeg does not know",
        swapped("        detect: {fps: 5}\n", "        hwaccel: gpu\n"),
        "8: sites.shop.cameras.door.hwaccel: must be one of: off, auto, cuda, vaapi, qsv",
    ),
    Mistake(
        "a key twice",
        swapped(
            "        detect: {fps: 5}\n", "        detect: {fps: 5}\n        detect: {fps: 2}\n"
        ),
        "9: sites.shop.cameras.door.detect: is given twice; first in line 8",
    ),
    Mistake(
        "an anchor and a merge key",
        swapped("door:\n", "door: &door\n"),
        "6: an anchor (&name) is not allowed; write the value out",
    ),
    Mistake(
        "an alias",
        swapped("detect: {fps: 5}", "detect: *fast"),
        "8: an alias (*name) is not allowed; write the value out",
    ),
    Mistake(
        "an empty file",
        b"",
        "1: is empty; `fusewatch init` writes a config to start from",
    ),
    Mistake(
        "a list at the top",
        b"- version: 1\n- sites: {}\n",
        "1: must be a mapping, `name: ...`, and is a list",
    ),
    Mistake(
        "a file in Latin-1",
        swapped("high}", "high}  # f\u00fcr").decode().encode("latin-1"),
        "14: is not UTF-8; save the file in that encoding",
    ),
    Mistake(
        "a file in UTF-16",
        RIGHT.encode("utf-16"),
        "1: is UTF-16, and not UTF-8; save the file in that encoding",
    ),
    Mistake(
        "no version",
        swapped("version: 1\n", ""),
        "1: version: is missing",
    ),
    Mistake(
        "`camera:` for `cameras:`",
        swapped("cameras:", "camera:"),
        "5: sites.shop.camera: is not a setting; did you mean `cameras`?",
    ),
    Mistake(
        "a list of cameras, not names",
        swapped("      door:\n        source", "      - door:\n        source"),
        "5: sites.shop.cameras: must be a mapping, `name: ...`, and is a list",
    ),
    Mistake(
        "text for a mapping",
        swapped("detect: {fps: 5}", "detect: fast"),
        "8: sites.shop.cameras.door.detect: must be a mapping, `name: ...`, and is text",
    ),
    Mistake(
        "a number in quotes",
        swapped("{fps: 5}", '{fps: "5"}'),
        (
            "8: sites.shop.cameras.door.detect.fps: must be a number, and is text; write the "
            "number alone, without quotes and unit"
        ),
    ),
    Mistake(
        "a number out of range",
        swapped("{fps: 5}", "{fps: 100}"),
        "8: sites.shop.cameras.door.detect.fps: must be more than 0 and at most 60",
    ),
    Mistake(
        "a site with a space in its name",
        swapped("  shop:", "  My Shop:"),
        (
            "3: sites.My Shop: must be up to 40 small letters, digits, `-` and `_`, and begin "
            "with a letter or digit"
        ),
    ),
    Mistake(
        "an unknown time zone",
        swapped("Europe/Berlin", "Berlin"),
        (
            "4: sites.shop.timezone: is not a time zone, like Europe/Berlin; did you mean "
            "`Europe/Berlin`?"
        ),
    ),
    Mistake(
        "an unknown rule",
        swapped("rule: zone", "rule: zoen"),
        "14: sites.shop.rules[0].rule: is not known; did you mean `zone`?",
    ),
    Mistake(
        "a zone that no camera has",
        swapped("zone: floor", "zone: flor"),
        ("14: sites.shop.rules[0].zone: `flor` is no zone of a camera here; did you mean `floor`?"),
    ),
    Mistake(
        "an unknown object",
        swapped("[person]", "[people, truk]"),
        (
            "10: sites.shop.cameras.door.zones.floor.objects: `people` is no object; did you "
            "mean `person`? (`fusewatch check --words` lists all 80)\n10: "
            "sites.shop.cameras.door.zones.floor.objects: `truk` is no object; did you mean "
            "`truck`? (`fusewatch check --words` lists all 80)"
        ),
    ),
    Mistake(
        "an unknown sound",
        swapped("gunshot: 0.5", "gun shot: 0.5"),
        (
            "15: sites.shop.rules[1].labels.gun shot: `gun shot` is no sound; did you mean "
            "`gunshot`?"
        ),
    ),
    Mistake(
        "an unknown behaviour",
        swapped(
            "{rule: sound, labels: {gunshot: 0.5}}", "{rule: behaviour, labels: {falling: 0.5}}"
        ),
        ("15: sites.shop.rules[1].labels.falling: `falling` is no behaviour; did you mean `fall`?"),
    ),
    Mistake(
        "a behaviour that is always there",
        swapped("{rule: sound, labels: {gunshot: 0.5}}", "{rule: behaviour, labels: {fall: 0}}"),
        "15: sites.shop.rules[1].labels.fall: must be more than 0, or it alarms for ever",
    ),
    Mistake(
        "a behaviour that lasts longer than anything is remembered",
        swapped(
            "{rule: sound, labels: {gunshot: 0.5}}",
            "{rule: behaviour, labels: {lying: 0.5}, seconds: 118}",
        ),
        (
            "15: sites.shop.rules[1].seconds: is longer than 115 s (windows.horizon less 5 s), "
            "which is as far back as is remembered"
        ),
    ),
    Mistake(
        "an unknown language",
        swapped("words: {en:", "words: {english:"),
        "16: sites.shop.rules[2].words.english: is no language code; did you mean `en`?",
    ),
    Mistake(
        "an unknown severity",
        swapped("severity: high", "severity: hihg"),
        (
            "14: sites.shop.rules[0].severity: must be one of: low, medium, high, critical; "
            "did you mean `high`?"
        ),
    ),
    Mistake(
        "a schedule with a wrong hour",
        swapped("22:00-06:00", "022:00-06:00"),
        "14: sites.shop.rules[0].schedule: the hour 022 in '022:00-06:00' is not 00 to 24",
    ),
    Mistake(
        "a schedule with a wrong day",
        swapped("22:00-06:00", "monday 22:00-06:00"),
        (
            "14: sites.shop.rules[0].schedule: 'monday' is not a day: they are mon, tue, wed, "
            "thu, fri, sat, sun, or a range like mon-fri; did you mean 'mon'?"
        ),
    ),
    Mistake(
        "a rule with a mode that the site does not have",
        swapped('schedule: "22:00-06:00"', "modes: [amred]"),
        (
            "14: sites.shop.rules[0].modes: `amred` is no mode of this site; did you mean "
            "`armed`? (`modes.names` of the site adds one)"
        ),
    ),
    Mistake(
        "hours for a mode that the site does not have",
        swapped("timezone: Europe/Berlin", 'modes: {schedule: {night: "22:00-06:00"}}'),
        (
            "4: sites.shop.modes.schedule.night: `night` is no mode of this site; known: armed, "
            "disarmed, home (`modes.names` of the site adds one)"
        ),
    ),
    Mistake(
        "a zone in pixels",
        swapped("0,0, 1,0, 1,1, 0,1", "0,0, 640,0, 640,360"),
        (
            "10: sites.shop.cameras.door.zones.floor.coordinates: number 3 of the coordinates "
            "is 640: a fraction of the frame, 0 to 1; divide pixels by the width (x) or the "
            "height (y) of the picture"
        ),
    ),
    Mistake(
        "a zone of two points",
        swapped("0,0, 1,0, 1,1, 0,1", "0,0, 1,1"),
        (
            "10: sites.shop.cameras.door.zones.floor.coordinates: an area needs at least three "
            "different points, not 2"
        ),
    ),
    Mistake(
        "a scheme with a slip",
        swapped('source: "rtsp:', 'source: "rstp:'),
        (
            "7: sites.shop.cameras.door.source: the address has a scheme that is not one of: "
            "rtsp, rtsps, http, https, device, file; did you mean `rtsp`?"
        ),
    ),
    Mistake(
        "a camera's address without scheme",
        swapped("rtsp://10.0.0.5/h264", "10.0.0.5:554/h264"),
        (
            "7: sites.shop.cameras.door.source: the address begins with a host; write rtsp:// "
            "or http:// before it"
        ),
    ),
    Mistake(
        "a password with `@` in an address",
        swapped("rtsp://10.0.0.5", "rtsp://ops:p@ss@10.0.0.5"),
        (
            "7: sites.shop.cameras.door.source: the address holds more than one `@`, or one "
            "after the host; write `%40` in user and password, or give them beside it: {url: "
            "..., username: ..., password: ...}"
        ),
    ),
    Mistake(
        "a port out of range",
        swapped("10.0.0.5/h264", "10.0.0.5:70000/h264"),
        (
            "7: sites.shop.cameras.door.source: the address has a port that is not 1 to 65535 "
            "(in a password write `%2F`, `%3F` and `%3A`)"
        ),
    ),
    Mistake(
        "a still picture as a camera",
        swapped("rtsp://10.0.0.5/h264", "http://10.0.0.5/snapshot.jpg"),
        (
            "7: warning: sites.shop.cameras.door.source: leads to a single picture, which is "
            "no source; give a stream (rtsp:, or MJPEG or MPEG-TS over http:) or a video file"
        ),
    ),
    Mistake(
        "a path with a colon",
        swapped("rtsp://10.0.0.5/h264", "2026-01-05T22:00.mp4"),
        (
            "7: sites.shop.cameras.door.source: the address holds `:` as sign 14, which no "
            "path may hold: it may be read as something else; rename the file with `-` in its "
            "place"
        ),
    ),
    Mistake(
        "a webhook without https",
        swapped("https://example", "http://example"),
        (
            "18: webhooks[0].url: webhook http://example.org:80: plain http to a host name "
            "needs `allow_http: true`, or use https"
        ),
    ),
    Mistake(
        "a webhook's secret that is none",
        swapped("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "geheim"),
        (
            "18: webhooks[0].secret: must be whsec_..., ${VARIABLE} or file:PATH; `fusewatch "
            "init` makes one"
        ),
    ),
    Mistake(
        "an endpoint for all the network",
        swapped("127.0.0.1:8674", "0.0.0.0:8674"),
        "19: api.listen: must be a loopback address, like 127.0.0.1:8674",
    ),
    Mistake(
        "a size without a unit",
        swapped("api:", 'storage: {cap: "20"}\napi:'),
        "19: storage.cap: must be a number and a unit, like 500 MB or 20 GB",
    ),
    Mistake(
        "a kind of model with a slip",
        swapped("api:", "models: {detector: {kind: yolo, weights: yolox_nano}}\napi:"),
        "19: models.detector.kind: `yolo` is no kind of detector; did you mean `yolox`?",
    ),
    Mistake(
        "weights that nobody knows",
        swapped("api:", "models: {detector: {kind: yolox, weights: yolox_giant}}\napi:"),
        (
            "19: warning: models.detector.weights: is no registered name, and "
            "{here}/yolox_giant is not there; did you mean `yolox_nano`?"
        ),
    ),
    Mistake(
        "the weights of another kind of model",
        swapped("api:", "models: {pose: {kind: movenet, weights: blazepose}}\napi:"),
        (
            "19: models.pose.weights: `blazepose` is no model of the kind `movenet`; "
            "use `movenet_lightning_int8`, or a path"
        ),
    ),
    Mistake(
        "the weights of a sound model for the detector",
        swapped("api:", "models: {detector: {kind: yolox, weights: yamnet}}\napi:"),
        (
            "19: models.detector.weights: `yamnet` is no model of the kind `yolox`; "
            "use `yolox_nano` or `nanodet_plus_m_416`, another one of `fusewatch weights list`, or "
            "a path"
        ),
    ),
    Mistake(
        "a variable that is not set",
        swapped("10.0.0.5/h264", "ops:${DOOR_PASSWORD}@10.0.0.5/h264"),
        (
            "7: warning: sites.shop.cameras.door.source: the environment variable "
            "DOOR_PASSWORD is not set"
        ),
    ),
    Mistake(
        "the name of a device's decoder",
        swapped("detect: {fps: 5}", "hwaccel: nvdec"),
        "8: sites.shop.cameras.door.hwaccel: must be one of: off, auto, cuda, vaapi, qsv; did you "
        "mean `cuda`?",
    ),
    Mistake(
        "a behaviour that is often wrong, at a camera that shows too little",
        swapped(
            "detect: {fps: 5}",
            "detect: {fps: 2, width: 320}",
            "    rules:\n",
            "    rules:\n      - {rule: behaviour, labels: {fight: 0.5, running: 0.5}}\n",
        ),
        "8: warning: sites.shop.cameras.door.detect.fps: a rule judges behaviours at this camera, "
        "and they were measured at 5 frames/s; fewer show a fall too late, or not at all\n"
        "8: warning: sites.shop.cameras.door.detect.width: a rule judges behaviours at this camera,"
        " and they were measured at 640 pixels; in smaller pictures persons who are far have no "
        "pose\n"
        "14: warning: sites.shop.rules[0].labels.fight: is experimental: on our clips it was wrong "
        "in 3 of 10; expect false alerts\n"
        "14: warning: sites.shop.rules[0].labels.running: has not been measured on real videos; "
        "watch its alerts before you rely on it",
    ),
    Mistake(
        "a secret's file that is not there",
        swapped("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "file:/run/secrets/hook"),
        "18: warning: webhooks[0].secret: the secret's file /run/secrets/hook is not there",
    ),
    Mistake(
        "a head's folder that is not there",
        swapped("    rules:", "    fusion: {head: heads/mine}\n    rules:"),
        "13: warning: sites.shop.fusion.head: {here}/heads/mine is no folder of a head",
    ),
)


def told(folder: Path, mistake: Mistake) -> str:
    """What is said of a mistake, without the folder of the file."""
    found = findings(folder / "site.yaml", mistake.data)
    lines = [str(each).replace(f"{folder}/", "") for each in found]
    return "\n".join(lines).replace(os.getcwd(), "{here}")


def main() -> None:
    """Prints the table of mistakes and messages, in Markdown."""
    print("| mistake | what is said |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mistake in MISTAKES:
            lines = told(Path(folder), mistake).replace("|", "\\|").splitlines()
            print(f"| {mistake.name} | {'<br>'.join(lines)} |")


if __name__ == "__main__":
    main()
