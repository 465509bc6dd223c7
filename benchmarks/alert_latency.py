"""From a state change at the PLC to the alert at its channel, in a running demo.

`oee demo` plays machines that stand now and then; a rule raises an alert for each that stands for
`--threshold` seconds, and a webhook on loopback takes it. The state change is the PLC's own timestamp, the
arrival is when the webhook has the whole message. Both clocks are this machine's.

    python -m benchmarks.alert_latency [--alerts 20] [--threshold 2]
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import arguments, conclude, machine, table
from oee.ports import choose

PROMISE_SECS = 5.0
SETTLE_SECS = 10.0
"""What changed before is none of ours: the service takes the rule within so long."""
PATIENCE_SECS = 900.0
ALERTS_TOML = """\
[[rule]]
name = "stands"
kind = "idle"
states = ["idle", "stopped", "faulted"]
after_secs = {threshold}
clear_after_secs = 0

[[channel]]
name = "webhook"
kind = "apprise"
url = "json://127.0.0.1:{port}"
events = ["raised"]
title = "{{since}}"
body = "{{id}}"
"""


class Told(NamedTuple):
    """What became of one stand [s]."""

    until_raised: float
    until_taken: float
    """From there until the webhook had it."""

    @property
    def whole(self) -> float:
        """Return how long the alert took from the state change on [s]."""
        return self.until_raised + self.until_taken


class Webhook(ThreadingHTTPServer):
    """Takes alerts and notes when each was there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.arrived: dict[str, float] = {}


class Taker(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived.setdefault(json.loads(body)["message"], time.time())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def wait(what: str, until: float, process: "subprocess.Popen[bytes]", done: Any) -> None:
    while not done():
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"{what}: the demo ended or took too long")
        time.sleep(0.1)


def measure(alerts: int, threshold: float, folder: Path) -> list[Told]:
    """Return how long each alert took."""
    board = choose(18080, "the board", fixed=False)
    opcua = choose(14840, "the PLCs", fixed=False, count=2)
    broker = choose(11883, "the broker", fixed=False)
    command = [
        *(sys.executable, "-m", "oee", "demo", "--scenario", "small-stops", "--no-browser"),
        *("--data-dir", str(folder / "demo"), "--board-port", str(board), "--opcua-port", str(opcua)),
        *("--broker-port", str(broker)),
    ]
    webhook = Webhook()
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    with (folder / "demo.log").open("wb") as log:
        demo = subprocess.Popen(command, stdout=log, stderr=log)
    alerts_toml = folder / "demo" / "config" / "alerts.toml"
    delays: list[Told] = []
    until = time.monotonic() + PATIENCE_SECS
    try:
        while not alerts_toml.exists():
            check(demo, until, folder)
        alerts_toml.write_text(ALERTS_TOML.format(threshold=threshold, port=webhook.server_port))
        since = time.time() + SETTLE_SECS
        while len(delays) < alerts:
            check(demo, until, folder)
            delays = found(f"http://127.0.0.1:{board}", webhook, since)
            print(f"\r  {len(delays)} of {alerts} alerts", end="", file=sys.stderr, flush=True)
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=60)
        webhook.shutdown()
    return delays


def check(demo: "subprocess.Popen[bytes]", until: float, folder: Path) -> None:
    """Wait a little; end everything when the demo has ended or nothing comes of it."""
    time.sleep(1)
    if demo.poll() is not None or time.monotonic() > until:
        print((folder / "demo.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        sys.exit("the demo ended, or takes too long")


def found(board: str, webhook: Webhook, since: float) -> list[Told]:
    """Return how long the alerts took whose state changed after an instant."""
    try:
        with urllib.request.urlopen(f"{board}/api/v1/alerts", timeout=10) as answer:
            known = {alert["id"]: alert for alert in json.load(answer)}
    except OSError:
        return []  # not yet there
    return [
        Told(alert["raised_epochtime"] - alert["since_epochtime"], at - alert["raised_epochtime"])
        for name, at in list(webhook.arrived.items())
        if (alert := known.get(name)) is not None and alert["since_epochtime"] > since
    ]


def percentile_99(secs: list[float]) -> float:
    """Return what 99 % stay below."""
    return statistics.quantiles(secs, n=100, method="inclusive")[98]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--alerts", type=int, default=20, help="how many are waited for")
    parser.add_argument("--threshold", type=float, default=2.0, metavar="SECS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oee-alerts-") as folder:
        delays = measure(options.alerts, options.threshold, Path(folder))
    beyond = sorted(delay.whole - options.threshold for delay in delays)
    p99 = percentile_99(beyond)
    print(machine())
    print(f"command: python -m benchmarks.alert_latency {' '.join(sys.argv[1:])}".rstrip())
    table(
        {
            "alerts": str(len(beyond)),
            "threshold": f"{options.threshold:g} s",
            "beyond it, p50": f"{statistics.median(beyond):.2f} s",
            "beyond it, p99": f"{p99:.2f} s",
            "beyond it, longest": f"{beyond[-1]:.2f} s",
            "of that at the channel, p99": f"{percentile_99([delay.until_taken for delay in delays]):.2f} s",
            "threshold + p99": f"{options.threshold + p99:.2f} s",
        }
    )
    conclude("alert_latency", p99, "s", {}, {"p99_secs": PROMISE_SECS}, met=p99 <= PROMISE_SECS)
    return 0 if p99 <= PROMISE_SECS else 1


if __name__ == "__main__":
    sys.exit(main())
