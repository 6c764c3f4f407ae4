"""Remote control: what is logged of messages that are no commands."""

import base64
import json
import logging

import pytest

from producer.contract.message.celery_message import revocation
from workers.remote import LINE_EVERY_S, RemoteControl, fault


def test_a_flood_is_told_once_a_minute_with_its_number(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    remote = RemoteControl(lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            assert not remote.admits(b"garbage")
        now = LINE_EVERY_S
        assert not remote.admits(b"{}")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("it is not a message of Celery in JSON (JSONDecodeError)")
    assert second.endswith("(KeyError); so were 999 more since the last such line")


def test_a_revocation_of_ours_is_admitted() -> None:
    assert fault(revocation(["a-job"])) == ""


@pytest.mark.parametrize("kind", ["decimal", "datetime", "date", "time", "uuid"])
def test_what_claims_to_be_a_value_of_another_type_and_is_none_is_dropped(kind: str) -> None:
    """Kombu's reader raises errors of each type's own, an ``ArithmeticError`` among them."""
    value = {"__type__": kind, "__value__": "none of them"}
    envelope = json.loads(revocation(["a-job"]))
    command = json.loads(base64.b64decode(envelope["body"]))
    command["arguments"]["more"] = value
    body = base64.b64encode(json.dumps(command).encode()).decode()
    for document in ({**envelope, "more": value}, {**envelope, "body": body}):
        assert fault(json.dumps(document).encode())
