"""The modes of a site, such as `armed` and `home`: the settings, and the check of them.

A rule may name the modes in which it holds. The mode at a time is that of the schedule, or one that
a person has set (`pipeline/judge/modes.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.config.fields import Name, Settings
from pipeline.config.problem import Problem, Way, known_only, tried
from pipeline.config.schedule import Schedule

ARMED = "armed"
MODES = (ARMED, "disarmed", "home")  # every site has these
AUTO, SNOOZED = "auto", "snoozed"  # no modes of a site: see `Mode` in `pipeline/types.py`


class Modes(Settings, frozen=True, kw_only=True):
    """The modes of a site. A rule that names modes holds in these only; `fusewatch mode` sets one
    by hand."""

    default: Name = ARMED  # the mode while no schedule holds
    # The hours of modes: `{home: "mon-fri 18:00-23:00"}`; where several hold, the first counts
    schedule: Mapping[Name, str] = {}
    names: tuple[Name, ...] = ()  # more modes of this site, beside armed, disarmed and home

    @property
    def known(self) -> tuple[str, ...]:
        """All modes that the site may be in."""
        return tuple(dict.fromkeys((*MODES, *self.names)))


def mode_problems(modes: Modes, here: Way) -> Iterator[Problem]:
    """What is wrong with the modes of a site; `here` is the way to them."""
    for i, name in enumerate(modes.names):
        if name in (AUTO, SNOOZED):
            yield Problem((*here, "names", i), f"`{name}` has a meaning of its own; use another")
    yield from _known((modes.default,), modes, (*here, "default"))
    for name, hours in modes.schedule.items():
        yield from _known((name,), modes, (*here, "schedule"), keys=True)
        at = (*here, "schedule", name)
        if not hours.strip():
            yield Problem(at, "is empty; give hours, like mon-fri 18:00-08:00")
        yield from tried(Schedule.parse, hours, at, lambda _: "")


def named_modes(words: Sequence[str], modes: Modes, way: Way) -> Iterator[Problem]:
    """A problem for each mode that a rule names and the site does not have."""
    yield from _known(words, modes, (*way, "modes"))


def _known(
    words: Sequence[str], modes: Modes, way: Way, *, keys: bool = False
) -> Iterator[Problem]:
    listed = "`modes.names` of the site adds one"
    yield from known_only(words, modes.known, way, "mode of this site", keys=keys, listed=listed)
