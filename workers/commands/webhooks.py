"""The commands for subscribers: `webhooks test` and `webhooks enable`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipeline.errors import ConfigError
from workers.commands.options import (
    Config,
    Json,
    State,
    command,
    command_group,
    flag,
    text_argument,
)
from workers.exit_codes import OK, OUTSIDE

if TYPE_CHECKING:
    from workers.setup.subscriber_enable import Enabled

app = command_group("Webhook subscribers.")


@command(app, "test")
def _test(
    config: Config,
    name: Annotated[str | None, text_argument("The webhook (default: all).")] = None,
    enable: Annotated[
        bool, flag("--enable", "Enable a disabled webhook that takes the event.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Send a signed test event and say what came back."""
    import json

    from msgspec import to_builtins

    from workers.config import loader
    from workers.config.secrets import Secrets
    from workers.delivery.webhook import try_webhooks

    settings = loader.load(config)
    if not settings.webhooks:
        msg = f"{config}: webhooks: there are none to test"
        raise ConfigError(msg)
    outcomes = try_webhooks(settings, name, Secrets(base=config.parent))
    for one in outcomes:
        if not as_json:
            answer = f"{one.status}" if one.status is not None else "no answer"
            detail = one.detail.removeprefix(f"{one.place}: ").removeprefix(f"{answer} ")
            print(f"{one.name} at {one.place}: {answer}, {detail} ({one.seconds:.2f} s)")
    taken = [one.name for one in outcomes if one.ok]
    enabled = _enable(config, taken, state, only_disabled=True) if enable else {}
    if as_json:
        rows = [{**to_builtins(one), "enabled": enabled.get(one.name)} for one in outcomes]
        print(json.dumps(to_builtins(rows)))
    else:
        for each in enabled.values():
            print("\n".join(each.lines()))
        if enable and not enabled:
            print("none of those that took the event was disabled")
    return OK if all(one.ok for one in outcomes) else OUTSIDE


@command(app, "enable")
def _enable_command(
    config: Config,
    name: Annotated[str, text_argument("The subscriber.")],
    state: State = None,
    as_json: Json = False,
) -> int:
    """Send alerts again to a subscriber that answered 410 Gone; a daemon may run meanwhile."""
    import json

    from msgspec import to_builtins

    (done,) = _enable(config, [name], state, only_disabled=False).values()
    print(json.dumps(to_builtins(done)) if as_json else "\n".join(done.lines()))
    return OK


def _enable(
    path: Path, names: list[str], state: Path | None, *, only_disabled: bool
) -> dict[str, Enabled]:
    from pipeline.config.schema import LocalBus
    from workers.capture.running_daemons import running
    from workers.config import loader
    from workers.config.secrets import Secrets
    from workers.setup import subscriber_enable
    from workers.setup.subscriber_health import with_state

    secrets, settings = Secrets(base=path.parent), loader.load(path)
    # Over Kafka the one that runs here may be a capture worker, with another state folder.
    daemons = running() if isinstance(settings.bus, LocalBus) else ()
    settings = with_state(settings, path, state, daemons)
    if only_disabled:
        disabled = subscriber_enable.disabled_webhooks(settings, secrets)
        names = [name for name in names if name in disabled]
    return {
        name: subscriber_enable.enable(settings, path, name, secrets, daemons) for name in names
    }
