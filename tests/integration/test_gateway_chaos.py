"""A seeded schedule of faults: gateway, broker and store die and hang in any order; no record is lost."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway_parts import Store, eventually, open_outbox
from tests.support.gateway_process import configuration_text
from tests.support.mosquitto import Mosquitto

REPOSITORY = Path(__file__).resolve().parents[2]


class Gateway:
    """A gateway process that can be killed and started again."""

    def __init__(self, path: Path, log: Path) -> None:
        self._path = path
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.gateway_process", str(self._path)],
                cwd=REPOSITORY,
                stderr=log,
            )

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int) -> int:
        self.send(number)
        self.send(signal.SIGCONT)
        assert self._process is not None
        return self._process.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nothing_is_lost_under_a_schedule_of_faults(tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "gateway.toml"
    schedule = []
    with Mosquitto(tmp_path / "broker") as broker, contextlib.ExitStack() as stack:
        path.write_text(
            configuration_text(tmp_path / "data", brokers={"broker": broker.port}, connections={"one": 3})
            + "keepalive_secs = 1\n"
        )
        store = stack.enter_context(Store(broker.port))
        gateway = Gateway(path, tmp_path / "gateway.log")
        gateway.start()
        stack.callback(lambda: gateway.end(signal.SIGKILL))
        await eventually(lambda: len(store.records) > 20, 20)
        for _ in range(6):
            fault = chance.choice(
                ["gateway", "broker", "deaf", "frozen broker", "frozen gateway", "forgetful"]
            )
            secs = chance.uniform(0.2, 2.5)
            schedule.append((fault, round(secs, 1)))
            match fault:
                case "gateway":
                    gateway.end(signal.SIGKILL)
                    await asyncio.sleep(secs / 4)
                    gateway.start()
                case "broker":
                    broker.kill()
                    await asyncio.sleep(secs)
                    broker.start()
                case "deaf":
                    store.receipts = False
                    await asyncio.sleep(secs)
                    store.receipts = True
                case "frozen broker":
                    broker.freeze()
                    await asyncio.sleep(secs)
                    broker.thaw()
                case "frozen gateway":
                    gateway.send(signal.SIGSTOP)
                    await asyncio.sleep(secs)
                    gateway.send(signal.SIGCONT)
                case "forgetful":
                    newest = max(store.records)
                    store.forget(range(newest + 1, newest + 20))
            await asyncio.sleep(chance.uniform(0.3, 1.5))
        before = len(store.records)
        await eventually(lambda: len(store.records) > before + 50, 30)
        await asyncio.sleep(3)
        assert gateway.end(signal.SIGTERM) == 0, (tmp_path / "gateway.log").read_text()
        with contextlib.closing(open_outbox(tmp_path / "data")) as outbox:
            left = outbox.read(0, 2**53, max_records=10**6, max_bytes=10**9)
            last = outbox.next_sequence - 1
            assert outbox.statistics().quarantined == 0
        held = set(store.records) | {record.sequence for record in left}
        missing = [s for s in range(min(held), last + 1) if s not in held]
        assert missing == [], schedule
        for record in left:
            if record.sequence in store.records:
                assert json.loads(record.payload) == store.records[record.sequence], (
                    "one sequence, one content"
                )
        assert store.conflicts == [], "a sequence is never used for another record"
