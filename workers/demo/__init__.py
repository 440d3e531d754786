"""The demo: plays a recorded scene, delivers its alerts, and tells the story.

`demo` plays and delivers, `story` collects what was seen and heard, `terminal` prints, and `page`
writes one HTML file. `scene/` has the recorded scene, the config of its site, and its credits.
May import: everything in `workers/` but the commands themselves.
"""
