"""What the `oee` command calls of the work that comes round: jobs, results, master data, backups."""

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.commands import FAILED, OK, UNUSABLE, alone, say, told
from cloud.errors import CloudError

if TYPE_CHECKING:
    from cloud.masterdata.sync import Outcome
    from cloud.oee.corrections import Correction
    from cloud.results.config import ResultsConfig
    from cloud.service import Cloud


@told
def jobs(config: Path) -> int:
    """Print the service's jobs: last and next runs, durations and failures."""
    with _cloud(config) as cloud:
        views = cloud.jobs()
        zone = next(iter(cloud.plant.sites.values())).timezone
    from rich import box
    from rich.table import Table

    from cloud.receivers import local_moment
    from cloud.render import plain, wide_console

    table = Table(
        "job", "every", "last", "took s", "next", "runs", "failures", "what it did last", box=box.SIMPLE_HEAD
    )
    for view in views:
        table.add_row(
            view.name,
            _often(view.every_secs),
            local_moment(view.last_epochtime, zone),
            "-" if view.took_secs is None else f"{view.took_secs:.1f}",
            local_moment(view.next_epochtime, zone),
            str(view.runs),
            str(view.failures),
            plain(f"FAILED: {view.error}" if view.error else view.result),
        )
    console = wide_console()
    console.print(table, highlight=False)
    console.print(
        f"Times are of {zone}. The service notes runs that did nothing once a minute.", highlight=False
    )
    return OK


def _often(secs: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if secs >= size:
            return f"{secs / size:g} {unit}"
    return f"{secs:g} s"


@told
def results_list(config: Path) -> int:
    """Print who is sent results, what waits for them and what was sent; fail when one takes nothing."""
    from cloud.receivers import table_of
    from cloud.render import wide_console
    from cloud.results.config import load as load_results
    from cloud.results.config import unknown_places

    with _cloud(config) as cloud:
        file = cloud.config.cloud.results
        for fault in (
            [] if file is None else unknown_places(load_results(file), map(str, cloud.plant.machines))
        ):
            say(f"{file}: {fault}")
        views = cloud.outlets()
        zone = next(iter(cloud.plant.sites.values())).timezone
    if not views:
        say(f"{config}: nobody is sent results; name a file in cloud.results")
        return OK
    wide_console().print(table_of("receiver", views, zone), highlight=False)
    for view in views:
        if view.fault:
            print(f"! {view.fault}")
    return FAILED if any(view.fault for view in views) else OK


@told
def results_test(config: Path, name: str | None = None) -> int:
    """Send a test to every receiver of results.toml, or to those of one name, and print what became of it."""
    from cloud.config import load
    from cloud.results.config import load as load_results

    settings = load(config)
    if settings.cloud.results is None:
        say(f"{config}: cloud.results: is not set; name the file that says where results go")
        return UNUSABLE
    found = load_results(settings.cloud.results)
    names = [mail.name for mail in found.mails()]
    names += [*(hook.name for hook in found.webhook), *(table.name for table in found.export)]
    if name is not None and name not in names:
        say(f"{settings.cloud.results}: nothing is called {name!r}; there are: {', '.join(names) or 'none'}")
        return UNUSABLE
    failed = False
    for receiver, problem in _tried(found, name):
        failed = failed or problem is not None
        if problem is None:
            print(f"{receiver}: works")
        else:
            say(f"{receiver}: {problem}")
    return FAILED if failed else OK


def _tried(found: "ResultsConfig", name: str | None) -> Iterator[tuple[str, str | None]]:
    """Try each receiver; yield what it is called and what went wrong, None for nothing."""
    from cloud.results import letters, webhook

    tries: list[tuple[str, str, Callable[[], None]]] = [
        (mail.name, channel, functools.partial(letters.send_test, mail, to))
        for mail in found.mails()
        for channel, to in mail.channels().items()
    ]
    tries += [
        (report.name, f"folder:{report.name}", functools.partial(_try_folder, report.folder))
        for report in found.report
        if report.folder is not None
    ]
    tries += [
        (
            hook.name,
            f"webhook:{hook.name}",
            functools.partial(webhook.send_test, hook, time.time_ns() // 1000),
        )
        for hook in found.webhook
    ]
    if found.export:
        from cloud.results.export import try_out

        tries += [
            (table.name, f"export:{table.name}", functools.partial(try_out, table)) for table in found.export
        ]
    for its_name, receiver, work in tries:
        if name in (None, its_name):
            problem = None
            try:
                work()
            except CloudError as error:
                problem = str(error)
            yield receiver, problem


def _try_folder(folder: Path) -> None:
    """Write a file into a folder of reports and take it away; raise CloudError when that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".test-"):
            pass
    except OSError as error:
        raise CloudError(f"{folder} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _cloud(config: Path) -> "Iterator[Cloud]":
    """Lend the cloud side of a configuration, which does not run here; its service may run meanwhile."""
    from cloud import plant
    from cloud.config import load
    from cloud.opening import open_store
    from cloud.service import Cloud

    settings = load(config)
    the_plant = plant.load(settings.cloud.plant)
    with contextlib.closing(open_store(settings)) as store:
        yield Cloud(settings, the_plant, store)


@told
def masterdata_check(config: Path) -> int:
    """Read every source of masterdata.toml and print what it would change, without changing anything."""
    from cloud import plant
    from cloud.clock import clock_us
    from cloud.config import load
    from cloud.masterdata import schedule
    from cloud.masterdata.config import load as load_sources
    from cloud.masterdata.sync import preview
    from cloud.oee.corrections import decode
    from cloud.opening import open_store

    failed = False
    settings = load(config)
    if settings.cloud.masterdata is None:
        say(f"{config}: cloud.masterdata: is not set; name the file that lists the sources")
        return UNUSABLE
    the_plant = plant.load(settings.cloud.plant)
    sources = load_sources(settings.cloud.masterdata)
    with contextlib.closing(open_store(settings)) as store:
        made = [decode(text, number) for number, text in store.corrections()]
        for table in sources:
            try:
                if table.kind == "shift":
                    outcome = schedule.preview(table, store, the_plant, clock_us())
                else:
                    outcome = preview(table, the_plant, made, clock_us())
            except CloudError as error:
                failed = True
                say(str(error))
                continue
            failed = failed or bool(outcome.bad_rows)
            _print_preview(table.name, outcome)
    return FAILED if failed else OK


@told
def back_up(config: Path, target: Path) -> int:
    """Write a backup of store and history to a new file, also while the service runs."""
    from cloud import backup
    from cloud.config import load
    from cloud.opening import open_store

    settings = load(config)
    if target.exists():
        say(f"{target} exists already")
        return FAILED
    with contextlib.closing(open_store(settings)) as store:
        size = backup.back_up(store, settings.history_folder, target)
    print(f"{target}: {size / 1e6:.1f} MB")
    return OK


@told
def restore(config: Path, source: Path) -> int:
    """Put a backup in place; the service must not run, and no store may be there."""
    from cloud import backup
    from cloud.config import load

    settings = load(config)
    with alone(settings):
        backup.restore(source, settings.cloud.data_dir, settings.history_folder)
    print(f"{source} is restored to {settings.cloud.data_dir}")
    return OK


def _print_preview(name: str, outcome: "Outcome") -> None:
    from rich import box
    from rich.table import Table

    from cloud.masterdata.rows import OPEN_END_US
    from cloud.masterdata.schedule import Entry
    from cloud.oee.figures import iso_utc
    from cloud.render import plain, wide_console

    table = Table("ref", "change", "of", "from", "to", "says", box=box.SIMPLE_HEAD, title=name)
    for change in outcome.changes:
        item = change.said or change.taken_back
        what = "new" if change.taken_back is None else "changed" if change.said else "taken back"
        if isinstance(item, Entry):
            words = (
                "cancelled" if item.cancelled else f"{item.start or ''} {item.end or ''} {item.crew}".strip()
            )
            place = f"{item.site}/{item.calendar}"
            cells = (change.ref, what, place, item.date, "", f"shift {item.shift} {words}")
        else:
            until = "open" if item.to_us >= OPEN_END_US else iso_utc(item.to_us)
            cells = (change.ref, what, item.machine, iso_utc(item.from_us), until, _words(item))
        table.add_row(*map(plain, cells))
    for bad in outcome.bad_rows:
        table.add_row(plain(bad.ref), "refused", "", "", "", plain(bad.problem))
    for bad in outcome.passed:
        table.add_row(plain(bad.ref), "passed by", "", "", "", plain(bad.problem))
    console = wide_console()
    console.print(table)
    console.print(f"{name}: {str(outcome) or 'nothing new'}, {outcome.unchanged} as they are")


def _words(said: "Correction") -> str:
    """Return what a row of master data says, beyond its range."""
    if said.kind == "planned_stop":
        return said.reason or ""
    amount = {
        "ideal_rate": f"{said.rate or 0:g} units/min",
        "off_quality": f"{said.units or 0:+d} units",
        "order": said.order or "",
    }[said.kind]
    return f"{amount} {said.product or ''}".strip()
