"""The whole product as processes on loopback: factory, broker, gateway, cloud side; each may be killed."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from simulator import configuration, scenarios
from simulator.scenarios import Scenario
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

_STOP_SECS = 15.0
_PR_SET_PDEATHSIG = 1
_REPOSITORY = Path(__file__).resolve().parents[2]


class Part:
    """One process: what it is called, how it is started, where its output goes.

    The output passes through a pipe, so that a process that may write no file can still speak.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        before_start: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self._command = list(command)
        self._environment = dict(environment or {})
        self._before_start = before_start
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Tell whether the process is there, stopped or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; its output goes on at the end of its log."""
        assert not self.is_running, f"{self.name} runs already"
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.log.parent,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY), **self._environment},
            preexec_fn=self._prepare,  # noqa: PLW1509 - it calls the kernel only
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        self.starts += 1

    def tell(self, line: str) -> None:
        """Write a line to the process's standard input."""
        assert self._process is not None, f"{self.name} was never started"
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Keep what the process says until it ends."""
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log, process.stdout as output:
            while said := output.read1(65_536):
                log.write(said)

    def _ended(self) -> None:
        """Give the pipes back once the process has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._listener is not None:
            self._listener.join(_STOP_SECS)

    def _prepare(self) -> None:
        """In the new process: end with the test, whatever ends it."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if self._before_start is not None:
            self._before_start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process as a power cut would."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(_STOP_SECS)
            self._ended()

    def stop(self) -> int:
        """Ask the process to end; kill it and fail where it does not. Returns its exit code."""
        if self._process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_SECS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end in {_STOP_SECS} s:\n{self.tail()}") from None
        self._ended()
        return code

    def said(self, text: str) -> bool:
        """Tell whether the log holds a text."""
        return self.log.exists() and text.encode() in self.log.read_bytes()

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )


class WholeSystem:
    """Four processes that fit each other. Nothing runs before `start`; everything is ended by `close`.

    scenario: the simulated factory, or the name of one
    simulate: a command that simulates it, in place of `oee simulate`; `{port}` and `{folder}` are filled in
    oee: the command for gateway and cloud side, in place of `oee`
    environments: what `gateway` and `cloud` have in their environment beside ours
    endpoint, gateway_broker, cloud_broker: from a real URL the one to look at instead, for proxies between
    """

    def __init__(
        self,
        folder: Path,
        scenario: Scenario | str,
        *,
        seed: int = 1,
        history_hours: float = 0.0,
        simulate: Sequence[str] = (),
        oee: Sequence[str] = (sys.executable, "-m", "oee"),
        gateway: Mapping[str, object] | None = None,
        connection: Mapping[str, object] | None = None,
        uplink: Mapping[str, object] | None = None,
        cloud: Mapping[str, object] | None = None,
        endpoint: Callable[[str], str] = lambda url: url,
        gateway_broker: Callable[[str], str] = lambda url: url,
        cloud_broker: Callable[[str], str] = lambda url: url,
        environments: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.scenario = scenarios.build(scenario, seed=seed) if isinstance(scenario, str) else scenario
        self.truth_log = folder / "truth.jsonl"
        self.broker = Mosquitto(folder / "broker")
        self.opcua_port = _free_in_a_row(len(self.scenario.factory.lines))
        self.health_port = free_port()
        self.web_port = free_port()
        broker_url = f"mqtt://127.0.0.1:{self.broker.port}"
        endpoints = {
            line.name: endpoint(f"opc.tcp://127.0.0.1:{self.opcua_port + place}")
            for place, line in enumerate(self.scenario.factory.lines)
        }
        (folder / "gateway.toml").write_text(
            configuration.gateway_toml(
                self.scenario.factory,
                endpoints,
                broker_url=gateway_broker(broker_url),
                data_dir=folder / "gateway",
                gateway=gateway,
                connection=connection,
                uplink=uplink,
                health_port=self.health_port,
            )
        )
        (folder / "plant.toml").write_text(configuration.plant_toml(self.scenario))
        (folder / "cloud.toml").write_text(self._cloud_toml(cloud_broker(broker_url), cloud or {}))
        simulate = simulate or [
            *(sys.executable, "-m", "oee", "simulate"),
            *("--scenario", self.scenario.name, "--seed", str(seed)),
            *("--history-hours", str(history_hours), "--port", "{port}"),
            *("--data-dir", "{folder}/factory", "--truth-log", "{folder}/truth.jsonl"),
        ]
        filled = [word.format(port=self.opcua_port, folder=folder) for word in simulate]
        self.simulator = Part("simulator", filled, folder / "simulator.log")
        self.gateway = Part(
            "gateway",
            [*oee, "gateway", "run", "--config", str(folder / "gateway.toml")],
            folder / "gateway.log",
            environment=environments.get("gateway"),
        )
        self.cloud = Part(
            "cloud",
            [*oee, "cloud", "run", "--config", str(folder / "cloud.toml")],
            folder / "cloud.log",
            environment=environments.get("cloud"),
        )

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Return the processes other than the broker, in the order in which data flows."""
        return self.simulator, self.gateway, self.cloud

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start everything, first those who listen."""
        self.broker.start()
        self.cloud.start()
        self.gateway.start()
        self.simulator.start()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for part in self.parts:
            part.signal(signal.SIGCONT)
            part.kill()
        self.broker.kill()

    def stop_in_order(self, timeout_secs: float = 60.0) -> None:
        """Stop the factory, let everything that it showed arrive, then end the others cleanly."""
        self.simulator.stop()
        self.wait_until(self.is_drained, "the outbox is empty", timeout_secs)
        time.sleep(1.0)  # the last records are stored; their shift may still be on its way to being closed
        assert self.gateway.stop() == 0, self.gateway.tail()
        assert self.cloud.stop() == 0, self.cloud.tail()
        self.broker.stop()

    def health(self) -> dict[str, Any] | None:
        """Return what the gateway tells of itself; None while it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.health_port}/healthz", timeout=2
            ) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except (OSError, ValueError):
            return None

    def is_drained(self) -> bool:
        """Tell whether every record of the gateway's is acknowledged."""
        health = self.health()
        return health is not None and health["outbox"]["records"] == 0

    def is_live(self) -> bool:
        """Tell whether the factory has played its past."""
        return self.simulator.said("live\n") or self.simulator.said("played\n")

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_secs: float) -> float:
        """Wait patiently for a condition; returns how long it took [s], fails with everybody's last words."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > timeout_secs * PATIENCE:
                words = "\n".join(f"--- {part.name}\n{part.tail()}" for part in self.parts)
                raise AssertionError(f"after {timeout_secs} s not yet: {what}\n{words}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def _cloud_toml(self, broker_url: str, cloud: Mapping[str, object]) -> str:
        keys: dict[str, object] = {
            "data_dir": str(self.folder / "cloud"),
            "plant": "plant.toml",
            "shift_close_grace_secs": 2.0,
            "revision_settle_secs": 1.0,
            **cloud,
        }
        table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        return (
            f"[cloud]\n{table}\n"
            f'[mqtt]\nurl = "{broker_url}"\nallow_insecure = true\n\n'
            f"[web]\nport = {self.web_port}\nsign_in = false\n"
        )


def _free_in_a_row(count: int) -> int:
    """Return the first of so many neighbouring free ports."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
