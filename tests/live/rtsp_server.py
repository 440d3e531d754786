"""An RTSP server that plays a file in a loop, for tests; runs under the system's own Python.

    /usr/bin/python3 tests/live/rtsp_server.py FILE [--port 8554] [--sound] [--user U --password P]
    /usr/bin/python3 tests/live/rtsp_server.py FILE... --copy

With --copy the H.264 of MP4 files is sent as it is: that of the first at /live, of the next at
/live1, and so on. A file is not repeated then.

It needs the Debian packages in deploy/apt.txt (gir1.2-gst-rtsp-server-1.0, python3-gi) and prints
`ready PORT` when cameras may connect; port 0 takes a free one. It is no part of what is installed.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PICTURE = (
    "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=GOP "
    "! rtph264pay name=pay0 pt=96 config-interval=1"
)
COPY = "h264parse ! rtph264pay name=pay0 pt=96 config-interval=1"
SOUND = (
    "audioconvert ! audioresample ! audio/x-raw,rate=48000 ! avenc_aac ! rtpmp4gpay name=pay1 pt=97"
)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("file", nargs="+")
    ask.add_argument("--port", default="8554")
    ask.add_argument("--sound", action="store_true", help="send the file's sound too")
    ask.add_argument("--tone", action="store_true", help="send a tone of 440 Hz as the sound")
    ask.add_argument("--gop", type=int, default=10, help="frames from one keyframe to the next")
    ask.add_argument("--copy", action="store_true", help="send the picture without encoding it")
    ask.add_argument("--user")
    ask.add_argument("--password")
    ask.add_argument("--digest", action="store_true", help="ask for the password as a digest")
    given = ask.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    for number, file in enumerate(given.file):
        factory = _factory(server, given, file)
        server.get_mount_points().add_factory(f"/live{number or ''}", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {given.port} is taken")
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


def _factory(server, given, file):
    factory = GstRtspServer.RTSPMediaFactory()
    if given.copy:
        launch = f"filesrc location={file} ! qtdemux ! {COPY}"
    else:
        picture = PICTURE.replace("GOP", str(given.gop))
        launch = f"filesrc location={file} ! decodebin name=d d. ! queue ! {picture}"
    if given.sound:
        launch += f" d. ! queue ! {SOUND}"
    if given.tone:
        launch += f" audiotestsrc is-live=true ! {SOUND}"
    factory.set_launch(f"( {launch} )")
    factory.set_shared(True)
    if given.user:
        _guard(server, factory, given.user, given.password, digest=given.digest)
    return factory


def _guard(server, factory, user, password, *, digest) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string(
            "viewer,media.factory.access=true,media.factory.construct=true"
        )
    )


if __name__ == "__main__":
    main()
