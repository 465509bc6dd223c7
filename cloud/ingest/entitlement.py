"""Which gateway may speak for which machines, pure.

A broker that knows its clients can keep each to its own topics, but a record names its gateway in its body:
without this list the holder of one machine's topic could write under another gateway's name and use up its
sequences, and the true records would then pass for repetitions.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from contract.delivery import Gap, Status
from contract.machine_key import MachineKey
from contract.telemetry import Telemetry

_REMEMBERED: Final = 100_000


def covers(pattern: str, machine: MachineKey) -> bool:
    """Tell whether a place holds a machine: one to four levels, each with `*` and `?`, and all beneath."""
    levels = pattern.split("/")
    return all(fnmatchcase(name, wanted) for name, wanted in zip(machine[: len(levels)], levels, strict=True))


class Entitlement:
    """The places that each gateway may speak for; one task or thread uses it at a time.

    places: gateway -> patterns of site/area/line/machine. Empty: every gateway may speak for every machine.
    """

    def __init__(self, places: Mapping[str, Sequence[str]]) -> None:
        self._places = dict(places)
        self._known: dict[tuple[str, MachineKey], bool] = {}

    @property
    def is_open(self) -> bool:
        """Tell whether nothing is refused."""
        return not self._places

    def allows(self, gateway: str, machine: MachineKey) -> bool:
        """Tell whether a gateway may speak for a machine."""
        if self.is_open:
            return True
        answer = self._known.get((gateway, machine))
        if answer is None:
            answer = any(covers(pattern, machine) for pattern in self._places.get(gateway, ()))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()  # names from the network must not fill memory
            self._known[gateway, machine] = answer
        return answer

    def fault(self, item: Telemetry | Gap | Status) -> str | None:
        """Return why something must not be stored, and what to do about it; None when it may."""
        if self.is_open:
            return None
        if item.gateway not in self._places:
            return f"gateway {item.gateway} is not among gateways under [ingest] in cloud.toml"
        if isinstance(item, Status) or self.allows(item.gateway, item.machine_key):
            return None
        return (
            f"gateway {item.gateway} may not speak for {item.machine_key}: "
            "see gateways under [ingest] in cloud.toml"
        )


OPEN: Final = Entitlement({})
"""Refuses nothing."""
