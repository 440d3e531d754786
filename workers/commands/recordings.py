"""The commands of recordings: `record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from workers.commands.options import (
    Config,
    Json,
    Panel,
    State,
    command,
    command_group,
    path_option,
    text_option,
    time_option,
)

app = command_group("Recordings.")


@command(app, "record", Panel.RECORDINGS)
def _record(
    config: Config,
    out: Annotated[Path, path_option("--out", "A folder for the files; a new one.", "DIR")],
    site: Annotated[str | None, text_option("--site", "SITE", "Only this site.")] = None,
    length: Annotated[
        str | None,
        text_option("--for", "SPAN", "How long, such as 10m (default: until it is stopped)."),
    ] = None,
    since: Annotated[
        str | None,
        time_option("--since", "From then on, as far as the log still has it."),
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Record what a running daemon sees, hears and decides, as MCAP files.

    The daemon goes on. Foxglove opens the files, and `replay` judges them again.
    """
    from workers.recorder.record_command import RecordOptions, record_command

    options = RecordOptions(out=out, site=site, for_=length, since=since, state=state)
    return record_command(config, options, as_json=as_json)
