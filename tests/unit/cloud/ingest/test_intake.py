"""From the inbox to the store: what is told of, and when, where the store fails for a while."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from cloud.config import IngestTable
from cloud.errors import StoreError
from cloud.ingest.intake import Intake
from cloud.ingest.message import Message
from cloud.store.port import Appended
from cloud.store.sqlite import SqliteStore
from contract.delivery import Receipt, Status
from contract.states import MachineState
from contract.telemetry import Telemetry, encode

AT = 1_625_040_000.0
RECORD = Telemetry(
    epochtime=AT,
    site="berlin",
    area="packaging",
    line="line-1",
    machine="filler-1",
    state=MachineState.RUNNING,
    gateway="gw",
    sequence=1,
)
STATUS = Status(gateway="gw", site="berlin", online=True, epochtime=AT, first_sequence=1)
MESSAGES = [
    Message("oee/v1/berlin/packaging/line-1/filler-1/telemetry", encode(RECORD)),
    Message("oee/v1/berlin/gateways/gw/status", msgspec.json.encode(STATUS)),
]


class Stumbling(SqliteStore):
    """A store that has no room for a status at first."""

    failures = 1

    def set_status(self, status: Status, received_us: int) -> Receipt:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        return super().set_status(status, received_us)


class Broker:
    """The inbox and the answers: gives the messages once and notes what is sent back."""

    def __init__(self) -> None:
        self.waiting = list(MESSAGES)
        self.acknowledged: list[Message] = []
        self.published: list[tuple[str, bytes]] = []
        self.is_done = asyncio.Event()

    async def take(self, limit: int, linger_secs: float) -> list[Message]:
        taken, self.waiting = self.waiting, []
        if not taken:
            self.is_done.set()
            await asyncio.Event().wait()
        return taken

    def acknowledge(self, message: Message) -> None:
        self.acknowledged.append(message)

    def publish_retained(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Stumbling]:
    opened = Stumbling(tmp_path / "store")
    yield opened
    opened.close()


async def test_records_are_told_of_though_a_status_beside_them_has_to_wait(store: Stumbling) -> None:
    broker, told = Broker(), list[Appended]()
    with ThreadPoolExecutor(1) as executor:
        intake = Intake(
            store,
            broker,
            broker,
            IngestTable(),
            max_future_secs=300.0,
            clock_us=lambda: round(AT * 1e6),
            executor=executor,
            on_stored=told.append,
        )
        running = asyncio.create_task(intake.run())
        await asyncio.wait_for(broker.is_done.wait(), 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [len(each.fresh) for each in told] == [1], "live figures hear of each record, and once"
    assert intake.statistics()[:3] == (1, 0, 0)
    assert store.failures == 0
    assert intake.store_fault is None
    assert broker.acknowledged == MESSAGES
    assert broker.published[-1][0] == "oee/v1/berlin/gateways/gw/receipt"
    assert msgspec.json.decode(broker.published[-1][1], type=Receipt).stored_through == 1
