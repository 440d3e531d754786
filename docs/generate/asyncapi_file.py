"""The AsyncAPI document of the webhooks, workers/schemas/webhooks.asyncapi.json."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from docs.generate.example_events import alert_example, test_example
from docs.generate.schema_files import Schema, definitions
from workers.delivery import cloudevent
from workers.delivery.alert_document import AlertEvent, TestEvent

ROOT = Path(__file__).resolve().parents[2]

ABOUT = """\
Fusewatch sends each alert as one signed HTTP POST. The body is a CloudEvent 1.0 in structured JSON.
The headers follow Standard Webhooks 1.0. Delivery is at least once: the same event may come again,
with the same `webhook-id`. A later revision of an alert may come before an earlier one; the larger
`revision` is right.

Any answer of 2xx takes the event. 410 disables the webhook. After any other answer, and without
one, Fusewatch tries again."""
SIGNED = """\
HMAC-SHA256 over `webhook-id`, `webhook-timestamp` and the body, with dots between them, in base64,
as `v1,SIGNATURE`; several with spaces between them while a secret is rotated. The key is the secret
without `whsec_`, from base64."""
HEADERS: Schema = {
    "type": "object",
    "properties": {
        "content-type": {"const": cloudevent.CONTENT_TYPE},
        "webhook-id": {
            "type": "string",
            "pattern": "^[A-Za-z0-9_-]{1,128}$",
            "description": "The `id` of the event, the same in every attempt.",
        },
        "webhook-timestamp": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "When this attempt was made, in seconds since 1970-01-01 UTC.",
        },
        "webhook-signature": {
            "type": "string",
            "pattern": "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$",
            "description": " ".join(SIGNED.split()),
        },
        "traceparent": {
            "type": "string",
            "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            "description": "W3C Trace Context of the record that caused the revision. Not signed.",
        },
    },
    "required": ["content-type", "webhook-id", "webhook-timestamp", "webhook-signature"],
}


def asyncapi() -> Schema:
    """The document, AsyncAPI 3.0."""
    template = "#/components/schemas/{name}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    schemas = definitions(AlertEvent, template) | definitions(TestEvent, template)
    messages = {
        "alert": _message("Alert", "One revision of an alert.", AlertEvent, alert_example()),
        "test": _message("Test", "Sent by `fusewatch webhooks test`.", TestEvent, test_example()),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fusewatch webhooks",
            "version": project["version"],
            "description": "\n\n".join(" ".join(each.split()) for each in ABOUT.split("\n\n")),
            "license": {"name": project["license"]},
        },
        "defaultContentType": cloudevent.CONTENT_TYPE,
        "channels": {
            "webhook": {
                "address": None,
                "title": "The webhook of a receiver",
                "description": "The `url` of an entry of `webhooks` in the config.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "send": {
                "action": "send",
                "channel": {"$ref": "#/channels/webhook"},
                "title": "Sends an event to the receiver",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
                "messages": [{"$ref": f"#/channels/webhook/messages/{name}"} for name in messages],
            }
        },
        "components": {"schemas": schemas, "messages": messages},
    }


def _message(title: str, summary: str, of: type, example: Any) -> Schema:
    return {
        "name": title.lower(),
        "title": title,
        "summary": summary,
        "contentType": cloudevent.CONTENT_TYPE,
        "headers": HEADERS,
        "payload": {"$ref": f"#/components/schemas/{of.__name__}"},
        "examples": [{"name": title.lower(), "payload": example}],
    }
