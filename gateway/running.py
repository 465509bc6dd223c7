"""What of a gateway runs now: its connections and uplinks, and what all of them share."""

from asyncio import Task
from dataclasses import dataclass, field

from contract import topics
from gateway import config
from gateway.config import Configuration, Connection
from gateway.control import Control
from gateway.forward import Forwarder
from gateway.outbox.port import Outbox
from gateway.pipeline import Pipeline
from gateway.sources.port import Source
from gateway.telling import Pace
from gateway.uplinks.port import Uplink


@dataclass(frozen=True, slots=True)
class Reading:
    """A running connection."""

    settings: Connection
    source: Source
    task: Task[None]
    pace: Pace


@dataclass(frozen=True, slots=True)
class Sending:
    """A running uplink."""

    settings: config.Uplink
    uplink: Uplink
    forwarder: Forwarder
    tasks: tuple[Task[None], ...]


@dataclass(slots=True)
class Running:
    """A gateway as it is now; the daemon changes it, whoever tells of it looks at it.

    version: of the installed package
    readings, sendings: by name
    last_error: of the part that failed last; None while none has
    """

    configuration: Configuration
    version: str
    outbox: Outbox
    control: Control
    pipeline: Pipeline
    readings: dict[str, Reading] = field(default_factory=dict)
    sendings: dict[str, Sending] = field(default_factory=dict)
    last_error: str | None = None

    def topic(self, channel: topics.GatewayChannel) -> str:
        """Return one of this gateway's own topics."""
        settings = self.configuration.gateway
        return topics.gateway_topic(settings.site, settings.name, channel)
