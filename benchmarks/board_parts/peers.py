"""The same board by NiceGUI and by Dash, each in an environment of its own that is made when it is needed.

Eight machines with six figures each, new every two seconds, as our board sends them to a few pages.
"""

import contextlib
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

INSTALL_SECS: Final = 300.0
START_SECS: Final = 60.0
NAMES: Final = tuple(
    f"{name}-{line}" for line in (1, 2) for name in ("filler", "capper", "labeller", "packer")
)
FIGURES: Final = f"""
import sys, time
NAMES = {NAMES!r}
FIGURES = ("OEE", "Availability", "Performance", "Quality", "Good units", "State")
PORT = int(sys.argv[1])

def value(machine, figure):
    second = int(time.time())
    if figure == "State":
        return "stopped" if machine == 0 and second // 10 % 2 else "running"
    return str(3 * second % 100_000) if figure == "Good units" else f"{{60 + (second + machine) % 40}} %"
"""
NICEGUI: Final = (
    FIGURES
    + """
from nicegui import ui

@ui.page("/")
def board():
    shown = []
    for machine, name in enumerate(NAMES):
        with ui.card():
            ui.label(name)
            for figure in FIGURES:
                with ui.row():
                    ui.label(figure)
                    shown.append((ui.label(value(machine, figure)), machine, figure))

    def renew():
        for label, machine, figure in shown:
            label.set_text(value(machine, figure))

    ui.timer(2.0, renew)

ui.run(host="127.0.0.1", port=PORT, reload=False, show=False)
"""
)
DASH: Final = (
    FIGURES
    + """
from dash import Dash, Input, Output, dcc, html

def cards():
    return [
        html.Div([html.H3(name), *(html.P([what, " ", html.B(value(machine, what))]) for what in FIGURES)])
        for machine, name in enumerate(NAMES)
    ]

app = Dash(__name__, update_title=None)
app.layout = html.Div([dcc.Interval(id="tick", interval=2000), html.Div(cards(), id="board")])

@app.callback(Output("board", "children"), Input("tick", "n_intervals"))
def renew(_):
    return cards()

app.run(host="127.0.0.1", port=PORT, debug=False)
"""
)
SCRIPTS: Final = {"nicegui": NICEGUI, "dash": DASH}


class Peer(NamedTuple):
    """A running peer."""

    address: str
    pid: int
    version: str


class MissingError(RuntimeError):
    """A peer cannot be installed or started here."""


@contextlib.contextmanager
def peer(package: str, folder: Path, port: int) -> Iterator[Peer]:
    """Install a peer into a folder and serve its board; raise MissingError where that cannot be done."""
    python = folder / package / "bin" / "python"
    try:
        venv.create(folder / package, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECS)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"{package} cannot be installed") from error
    asked = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([str(python), "-c", asked], check=True, capture_output=True, text=True)
    script = folder / f"{package}_board.py"
    script.write_text(SCRIPTS[package])
    with (
        (folder / f"{package}.log").open("wb") as log,
        subprocess.Popen([str(python), str(script), str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait(address, process)
            yield Peer(address, process.pid, version.stdout.strip())
        finally:
            process.terminate()


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise MissingError("it did not start") from error
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit("this is a part of benchmarks.board")
