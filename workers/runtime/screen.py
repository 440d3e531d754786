"""Lays out the terminal view: what there is to show, as lines that fit a terminal.

Everything here is a function of its arguments. A terminal counts cells: a character takes one, two
or none. Widths are estimated high, so that no terminal ever wraps a line.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from rich.cells import get_character_cell_size
from rich.text import Text

from pipeline.types import SECOND
from workers.runtime.printable import printable

WIDEST = 200  # columns that are used of a wider terminal
CUT = "…"  # stands for what a line has no room for
STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "default"}
# Title, cells, and the least width of a terminal that shows the column.
_COLUMNS = (
    ("STATE", 10, 24),
    ("CAPTURED", 9, 72),
    ("LOOKED AT", 9, 56),
    ("BEHIND", 8, 44),
    ("PRESENCE", 8, 64),
)
_GAP = "  "
_MIN_NAME = 8  # cells of a source's name
MOST_CAUSES = 3  # lines below an alert
_DETAILED = 60  # columns from which an alert's line has its severity, or that it is closed
_JOINING = dict.fromkeys([0x200C, 0x200D, *range(0xFE00, 0xFE10)])


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A source: its names, the cells of its columns, or what is wrong instead of them."""

    site: str
    source: str
    cells: tuple[str, ...]  # in the order of the columns
    wrong: str = ""  # in place of the cells
    troubled: bool = False


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """The newest revision of an incident."""

    time: str
    severity: str
    what: str  # its labels, and where
    causes: tuple[str, ...]  # the oldest first
    closed: bool = False


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown; `notes` are lines about what does not work."""

    head: str
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    alerts: Sequence[AlertRow] = ()  # the newest first


def lines(screen: Screen, width: int, height: int) -> list[Text]:
    """The lines of the view: fewer than `height`, none with more than `width` - 1 cells."""
    width, room = max(1, min(width, WIDEST) - 1), max(1, height - 1)
    notes = [Text(fit(clean(note), width), "bold red") for note in screen.notes]
    shown = _share(room - 1 - len(notes), len(screen.rows), len(screen.alerts))
    made = [Text(fit(clean(screen.head), width), "bold"), *_sources(screen.rows, shown[0], width)]
    made += notes
    if shown[1]:
        made += [Text(), Text(fit("LAST ALERTS", width), "dim")]
        alerts = screen.alerts[: shown[1]]
        longest = max((cells(clean(alert.time)) for alert in alerts), default=0)
        spare = room - len(made) - len(alerts)
        for alert in alerts:
            told = _alert(alert, longest, width, spare)
            spare -= len(told) - 1
            made += told
        if not screen.alerts:
            made.append(Text(fit("none yet", width), "dim"))
    return made[:room]


def _share(room: int, rows: int, alerts: int) -> tuple[int, int]:
    """The lines for sources, with their heading, and for alerts, without theirs."""
    wanted, alerts = rows + 1, max(1, alerts)
    room -= 2  # a blank line and the heading of the alerts
    if room < 3:
        return max(0, room + 2), 0
    given = min(alerts, max(room - wanted, room // 3, 1))
    return room - given, given


def _sources(rows: Sequence[Row], room: int, width: int) -> list[Text]:
    """A heading and a line for each source; if there are more, the troubled ones come first."""
    columns = [n for n, (_, _, least) in enumerate(_COLUMNS) if width + 1 >= least]
    taken = sum(_COLUMNS[n][1] + len(_GAP) for n in columns)
    longest = max((cells(clean(f"{row.site}/{row.source}")) for row in rows), default=0)
    name = max(min(longest, width - taken), min(_MIN_NAME, width))
    titles = [fit("SOURCE", name, pad=True)]
    titles += [fit(_COLUMNS[n][0], _COLUMNS[n][1], pad=True) for n in columns]
    made = [Text(fit(_GAP.join(titles), width).rstrip(), "dim")]
    room -= 1
    if len(rows) > room:
        rows = sorted(rows, key=lambda row: not row.troubled)
        rest = rows[max(0, room - 1) :]
        rows, ill = rows[: max(0, room - 1)], sum(row.troubled for row in rest)
        left = f"and {len(rest)} more, " + (f"{ill} of them in trouble" if ill else "all well")
        more = [Text(fit(left, width), "bold red" if ill else "dim")]
    else:
        more = []
    for row in rows:
        told = [fit(clean(row.cells[n]), _COLUMNS[n][1], pad=True) for n in columns]
        line = fit_name(row.site, row.source, name) + _GAP
        line += clean(row.wrong) if row.wrong else _GAP.join(told)
        made.append(Text(fit(line, width).rstrip(), "red" if row.troubled else "default"))
    return (made + more)[: room + 1]


def _alert(alert: AlertRow, longest: int, width: int, spare: int) -> list[Text]:
    """An alert on a line; the newest causes stand below it where they do not fit and lines are
    left."""
    cause = "; ".join(alert.causes)
    made = [_alert_line(alert, longest, width, cause)]
    whole = _alert_line(alert, longest, math.inf, cause)
    if spare <= 0 or width + 1 < _DETAILED or whole.plain == made[0].plain:
        return made
    indent = " " * (longest + len(_GAP))
    causes = alert.causes[-min(spare, MOST_CAUSES) :]
    return [
        _alert_line(alert, longest, width, ""),
        *(Text(fit(f"{indent}{clean(cause)}", width), made[0].style) for cause in causes),
    ]


def _alert_line(alert: AlertRow, longest: int, width: float, cause: str) -> Text:
    what = f"{alert.what}: {cause}" if cause else alert.what
    if width + 1 >= _DETAILED:
        what = f"{'closed' if alert.closed else alert.severity:8}{_GAP}{what}"
    time = fit(clean(alert.time), longest, pad=True)
    text = fit(f"{time}{_GAP}{clean(what)}", width)
    return Text(text, "dim" if alert.closed else STYLES.get(alert.severity, "default"))


def clean(text: str) -> str:
    """`text` on one line, without what a terminal executes and without joined characters, whose
    width no two terminals agree on."""
    return printable(text).translate(_JOINING)


def cells(text: str) -> int:
    """The most cells that a terminal uses for `text`."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    ambiguous = unicodedata.category(character) in {"So", "Sk"} and ord(character) >= 0x1F000
    return max(get_character_cell_size(character), 2 if ambiguous else 1)


def fit(text: str, width: float, *, pad: bool = False) -> str:
    """`text` in at most `width` cells, cut with an ellipsis; `pad` fills it with spaces."""
    if (size := cells(text)) > width:
        kept, size = "", 1
        for character in text:
            if size + _width(character) > width:
                break
            kept, size = kept + character, size + _width(character)
        text = kept + CUT if width else ""
    return text + " " * int(width - size) if pad else text


def fit_name(site: str, source: str, width: int) -> str:
    """`site/source` in `width` cells; both are cut if one alone leaves no room for the other."""
    site, source = clean(site), clean(source)
    if cells(site) + 1 + cells(source) > width:
        half = max(1, (width - 1) // 2)
        of_source = min(cells(source), max(half, width - 1 - cells(site)))
        source = fit(source, of_source)
        site = fit(site, max(0, width - 1 - cells(source)))
    return fit(f"{site}/{source}", width, pad=True)


def moment(time: int, zone: ZoneInfo, *, today: int | None = None, date: bool = False) -> str:
    """A time (ns UTC) as a clock of the zone shows it: `22:14:03 CET`.

    The date comes first if `date` is true, or if it is not that of `today` (ns UTC).
    """
    local = _local(time, zone)
    name = local.strftime("%Z")
    text = local.strftime("%H:%M:%S ") + (f"UTC{name}" if name[:1] in "+-" else name)
    if date:
        return f"{local:%Y-%m-%d} {text}"
    if today is not None and _local(today, zone).date() != local.date():
        return f"{local:%d %b} {text}"
    return text


def _local(time: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(time // SECOND, UTC).astimezone(zone)


def lasting(seconds: float) -> str:
    """A span in words: `40 s`, `4 min`, `2 h 5 min`, `3 days 2 h`."""
    whole = max(0, math.floor(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    return f"{minutes} min" if minutes else f"{left} s"
