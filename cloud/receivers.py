"""Who is sent what, as a table for the terminal."""

from collections.abc import Iterable
from datetime import datetime, tzinfo

from rich import box
from rich.table import Table

from cloud.render import plain
from cloud.views import ChannelView


def table_of(kind: str, views: Iterable[ChannelView], zone: tzinfo) -> Table:
    """Return what waits for receivers and what they were sent; kind: what they are called."""
    table = Table(
        *(kind, "waiting", "oldest", "sent", "failures", "dropped", "last sent"), box=box.SIMPLE_HEAD
    )
    for view in views:
        table.add_row(
            plain(view.name),
            str(view.waiting),
            local_moment(view.oldest_epochtime, zone),
            str(view.sent),
            str(view.failures),
            str(view.dropped),
            local_moment(view.last_sent_epochtime, zone),
        )
    return table


def local_moment(epochtime: float | None, zone: tzinfo) -> str:
    """Return a local date and time, or a dash."""
    return "-" if epochtime is None else f"{datetime.fromtimestamp(epochtime, zone):%Y-%m-%d %H:%M:%S}"
