"""What a connection's lane puts on disk."""

from pathlib import Path

from gateway.pipeline import Lane
from gateway.sources.port import TagBatch
from tests.support.opcua_gateway import MemoryOutbox, clock_us, configured

MACHINE = {"name": "m1", "state": {"node": "ns=2;s=S", "map": {"1": "running"}}, "total_units": "ns=2;s=T"}


def test_a_new_process_asks_anew_for_first_values_that_only_memory_had(tmp_path: Path) -> None:
    """The server has acknowledgements for them, and tells of a tag that rests only when it is asked anew."""
    configuration = configured("opc.tcp://127.0.0.1:1", [MACHINE], tmp_path)
    outbox = MemoryOutbox()

    def process() -> Lane:
        return Lane(configuration, configuration.connection[0], outbox, clock_us)

    def batch(lane: Lane, handle: int, value: object, checkpoint: bytes) -> None:
        now_us = clock_us()
        lane.on_batch(
            TagBatch(
                handles=[handle],
                values=[value],
                statuses=[0],
                source_us=[now_us],
                received_us=now_us,
                checkpoint=checkpoint,
            )
        )

    lane = process()
    lane.on_subscribed([1, 2], resumed=False)
    lane.on_checkpoint(b"subscribed")
    assert process().saved == b"subscribed"
    batch(lane, 1, 1, b"half")
    batch(lane, 2, 7, b"whole")
    assert process().saved == b"whole"
    lane.on_lost(clock_us(), "cut")
    lane.on_subscribed([1, 2], resumed=False)
    lane.on_checkpoint(b"subscribed anew")
    batch(lane, 1, 1, b"half again")
    assert process().saved is None
    batch(lane, 2, 9, b"whole again")
    assert [one.total_units for one in outbox.telemetry] == [7, 9]
    assert process().saved == b"whole again"
