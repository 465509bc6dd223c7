"""What the `oee` command calls of the cloud side: each returns the exit code and prints for people."""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from cloud.errors import AskedError, CloudError, ConfigError, Fault
from contract.printable import printable

if TYPE_CHECKING:
    from cloud.config import CloudConfig
    from cloud.ingest.files import BadLine
    from cloud.plant import Plant
    from cloud.results.reports import Print
    from cloud.service import Cloud, ServePages
    from cloud.store.port import DeadLetter
    from cloud.store.sqlite import SqliteStore

OK, FAILED, UNUSABLE = 0, 1, 2
"""Exit codes: done; it did not work this time; what was asked for or configured must be changed first."""
Arguments = ParamSpec("Arguments")


def told(work: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Let a command tell its errors in plain lines, and log warnings beside its output, not in it."""

    @functools.wraps(work)
    def doing(*arguments: Arguments.args, **options: Arguments.kwargs) -> int:
        _log_to_stderr("warning", "text")
        try:
            return work(*arguments, **options)
        except ConfigError as error:
            for fault in error.faults:
                say(str(fault))
            return UNUSABLE
        except CloudError as error:
            say(str(error))
            return UNUSABLE if isinstance(error, AskedError) else FAILED

    return doing


@told
def run(
    config: Path,
    serve_pages: "ServePages | None" = None,
    printer_of: "Callable[[Cloud], Print] | None" = None,
) -> int:
    """Run the service until SIGTERM or SIGINT.

    printer_of: who makes the reports that results.toml asks for
    """
    from cloud.config import load

    settings = load(config)
    _log_to_stderr(settings.cloud.log_level, settings.cloud.log_format)
    with alone(settings):
        return asyncio.run(_serve(settings, serve_pages, printer_of))


async def _serve(
    settings: "CloudConfig",
    serve_pages: "ServePages | None",
    printer_of: "Callable[[Cloud], Print] | None",
) -> int:
    import structlog

    from cloud import plant
    from cloud.opening import open_store
    from cloud.service import Cloud
    from cloud.watching import stamp

    log = structlog.get_logger("cloud")
    plant_stamp = stamp(settings.cloud.plant)
    the_plant = plant.load(settings.cloud.plant)
    if serve_pages is not None and settings.web.enabled:
        _try_port(settings.web.host, settings.web.port)
    else:
        serve_pages = None
    store = open_store(settings)
    try:
        cloud = Cloud(settings, the_plant, store, plant_stamp=plant_stamp)
        if printer_of is not None:
            cloud.use_printer(printer_of(cloud))
        task = asyncio.create_task(cloud.run(serve_pages), name="cloud")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        log.info("started", machines=len(the_plant.machines), store=str(settings.cloud.data_dir))
        try:
            await task
        except asyncio.CancelledError:
            log.info("stopped")
        except ExceptionGroup as group:
            for error in _leaves(group):
                log.critical("stopped by a fault", reason=str(error), exc_info=_fault_of_ours(error))
            return FAILED
    finally:
        store.close()
    return OK


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fault_of_ours(error: Exception) -> Exception | None:
    """Return an error that only its traceback explains."""
    return None if isinstance(error, CloudError | OSError) else error


@told
def import_telemetry(
    files: Sequence[Path], config: Path | None = None, *, data_dir: Path | None = None
) -> int:
    """Load telemetry files into the store; lines that may not be used become dead letters."""
    from cloud import locks, plant
    from cloud.clock import clock_us
    from cloud.config import CloudConfig, load
    from cloud.ingest import files as telemetry_files
    from cloud.opening import open_store
    from cloud.store.port import Arrivals

    settings = CloudConfig() if config is None else load(config)
    if data_dir is not None:
        settings = settings.model_copy(
            update={"cloud": settings.cloud.model_copy(update={"data_dir": data_dir})}
        )
    keeps_locks = config is not None and settings.cloud.plant.exists()
    the_plant = plant.load(settings.cloud.plant) if keeps_locks else None
    store = open_store(settings)
    stored = repeated = refused = 0
    failed = False
    latest_secs = clock_us() / 1e6 + settings.cloud.max_future_secs
    with contextlib.closing(store), _progress(files) as advance:
        if the_plant is not None:
            locks.lock(store, the_plant, clock_us())
        for file in files:
            try:
                for batch in telemetry_files.read(file, latest_epochtime=latest_secs):
                    appended = store.append(
                        Arrivals(
                            batch.records,
                            batch.gaps,
                            [_dead_letter(bad, clock_us()) for bad in batch.bad_lines],
                        )
                    )
                    stored += len(appended.fresh)
                    repeated += appended.repeated
                    refused += len(batch.bad_lines)
                    for bad in batch.bad_lines[:5]:
                        say(f"refused {bad}")
                    advance(file, batch.read_bytes)
            except CloudError as error:
                say(str(error))
                failed = True
    print(f"{stored} records stored, {repeated} were there already, {refused} lines refused")
    return FAILED if failed else OK


@told
def acl(config: Path, cloud: str, *, commands: bool) -> int:
    """Print the broker's access control list for the gateways that cloud.toml names."""
    from cloud.broker_acl import mosquitto_acl
    from cloud.config import load

    settings = load(config)
    if not settings.ingest.gateways:
        problem = "names no gateway, so nothing says who may speak for which machine"
        allowed = 'such as gateways = { gw-1 = ["berlin/packaging"] }'
        raise ConfigError([Fault(str(config), "ingest.gateways", problem, allowed)])
    user = settings.mqtt.username or cloud
    sys.stdout.write(mosquitto_acl(settings.ingest.gateways, cloud=user, commands=commands))
    return OK


def _dead_letter(bad: "BadLine", now_us: int) -> "DeadLetter":
    """Return a refused line as it is kept: once, however often its file is imported."""
    from cloud.store.port import DeadLetter

    place = f"{Path(bad.file).name}:{bad.line}"
    return DeadLetter(now_us, place, bad.reason, bad.text, f"{place}:{hashlib.sha256(bad.text).hexdigest()}")


@contextlib.contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    sizes = {file: file.stat().st_size if file.is_file() else 0 for file in files}
    done: dict[Path, int] = {}
    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("import", total=sum(sizes.values()))

        def advance(file: Path, read_bytes: int) -> None:
            done[file] = read_bytes
            progress.update(task, completed=sum(done.values()), description=file.name)

        yield advance


@contextlib.contextmanager
def opened(config: Path) -> "Iterator[tuple[CloudConfig, Plant, SqliteStore]]":
    """Open the store of a configuration beside whoever runs on it, and tell the plant that is in force."""
    from cloud import plant
    from cloud.config import load
    from cloud.masterdata.config import load as load_sources
    from cloud.masterdata.desk import with_schedule
    from cloud.opening import open_store

    settings = load(config)
    the_plant = plant.load(settings.cloud.plant)
    with contextlib.closing(open_store(settings)) as store:
        if settings.cloud.masterdata is not None:
            the_plant = with_schedule(the_plant, store, load_sources(settings.cloud.masterdata))
        yield settings, the_plant, store


@contextlib.contextmanager
def alone(settings: "CloudConfig") -> Iterator[None]:
    """Hold the data folder; raise ConfigError when it cannot be used or another service holds it."""
    folder = settings.cloud.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError(
            [Fault("cloud.toml", "cloud.data_dir", f"{folder} cannot be written: {error.strerror}")]
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                [Fault("cloud.toml", "cloud.data_dir", f"{folder} is in use by another cloud service")]
            ) from error
        yield


def _try_port(host: str, port: int) -> None:
    """Raise ConfigError when the pages could not be served there."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise ConfigError(
            [Fault("cloud.toml", "web.port", f"{host}:{port} cannot be served: {error.strerror}")]
        ) from error


def _log_to_stderr(level: str, form: str) -> None:
    import structlog

    # Tracebacks without the values of variables: those are thousands of lines, and passwords among them.
    plain = structlog.dev.plain_traceback
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            _on_one_line,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info
            if form == "json"
            else structlog.processors.StackInfoRenderer(),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _on_one_line(_logger: Any, _method: str, event: Any) -> Any:
    """Write out what is not visible: names come from the network, and the reader's terminal believes them."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def say(text: str) -> None:
    """Tell a person something beside the output; names of others do nothing to the terminal."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
