"""Publish requests written here are, byte for byte, those that the library writes."""

import datetime as dt
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import nodeid_to_binary, struct_to_binary

from gateway.sources.publish_bytes import publish_request

AT_US = 1_700_000_000_123_456
TOKENS = {
    "none yet": ua.NodeId(),
    "small": ua.NodeId(7, 3),
    "large": ua.NodeId(70_000, 3),
    "text": ua.NodeId("token", 2),
    "opaque": ua.NodeId(b"\x00\xff" * 16, 1),
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("acks", [(), (5,), (1, 2**32 - 1, 7)], ids=["no ack", "an ack", "acks"])
def test_a_request_is_written_as_the_library_writes_it(token: Any, acks: tuple[int, ...]) -> None:
    request = ua.PublishRequest()
    header = request.RequestHeader
    header.AuthenticationToken, header.RequestHandle, header.TimeoutHint = token, 2**32 - 1, 0
    header.Timestamp = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=AT_US)
    request.Parameters.SubscriptionAcknowledgements = [
        ua.SubscriptionAcknowledgement(9, sequence) for sequence in acks
    ]
    ours = publish_request(nodeid_to_binary(token), 2**32 - 1, AT_US, 9, acks)
    assert ours == struct_to_binary(request)
