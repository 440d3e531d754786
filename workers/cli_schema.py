"""The command that prints what editors and receivers check documents with: schema."""

from __future__ import annotations

import json
from typing import Annotated

from workers.cli_options import choice_argument, flag
from workers.exit_codes import OK
from workers.schemas.shipped import SCHEMAS, shipped


def schema(
    name: Annotated[str, choice_argument("NAME", tuple(SCHEMAS))],
    as_yaml: Annotated[bool, flag("--yaml", "Print YAML instead of JSON.")] = False,
) -> int:
    """Print a schema: of an alert, of a config, or the AsyncAPI document of the webhooks.

    Editors complete a config by it: fusewatch schema config > fusewatch.schema.json
    """
    text = shipped(name)
    if as_yaml:
        import yaml

        text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=100)
    print(text, end="")
    return OK
