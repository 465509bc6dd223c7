"""What the command line asks of the reports."""

from pathlib import Path


def write_report(config: Path, path: Path, *, place: str | None = None, shift: str | None = None) -> int:
    """Write a report file in the format of its suffix and return the exit code.

    config: cloud.toml, whose store and plant are read; the service may run meanwhile
    place: `site/area/line/machine` from the left; the site when None
    shift: such as `2021-06-30/2`; the last closed one when None
    """
    from rich.console import Console

    from cloud import config as settings
    from cloud import plant as plants
    from cloud.errors import AskedError, CloudError, ConfigError
    from cloud.opening import open_store
    from cloud.service import Cloud
    from dashboards.reports import files
    from dashboards.reports.paper import ReportError, WishError

    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        found = settings.load(config)
        plant = plants.load(found.cloud.plant)
        store = open_store(found)
    except ConfigError as error:
        for fault in error.faults:
            errors.print(str(fault))
        return 2
    try:
        files.write(Cloud(found, plant, store), path, place=place, shift=shift)
    except (ReportError, CloudError, OSError) as error:
        errors.print(str(error))
        return 2 if isinstance(error, AskedError | WishError) else 1
    finally:
        store.close()
    Console(highlight=False, markup=False, soft_wrap=True).print(f"{path} is written.")
    return 0
