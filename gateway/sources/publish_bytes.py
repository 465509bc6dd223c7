"""Publish requests as bytes, without an object of the library's for each of their parts. Pure.

Written after OPC UA parts 4 (the request) and 6 (its encoding).
"""

import struct
from collections.abc import Iterable
from typing import Final

from gateway.sources.items import TICKS_PER_US, US_TO_1970

PUBLISH_RESPONSE: Final = b"\x01\x00\x3d\x03"
"""The type of a good answer: a node of a small number."""
_PUBLISH_REQUEST: Final = b"\x01\x00\x3a\x03"
_HEADER: Final = struct.Struct("<qIIiI3x")
"""After the session's token: timestamp, handle, diagnostics wanted, audit entry, time-out, nothing else."""
_NO_TEXT: Final = -1


def publish_request(token: bytes, handle: int, at_us: int, subscription: int, acks: Iterable[int]) -> bytes:
    """Return a publish request that waits for as long as it takes.

    token: the session's, as a node in binary
    at_us: [us since 1970] when it is sent
    acks: sequence numbers of the subscription's messages that are safe here
    """
    pairs = [part for sequence in acks for part in (subscription, sequence)]
    ticks = (at_us + US_TO_1970) * TICKS_PER_US
    return b"".join(
        (
            _PUBLISH_REQUEST,
            token,
            _HEADER.pack(ticks, handle, 0, _NO_TEXT, 0),
            struct.pack(f"<i{len(pairs)}I", len(pairs) // 2, *pairs),
        )
    )
