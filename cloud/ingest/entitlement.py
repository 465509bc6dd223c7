"""Which gateway may speak for which machines, pure.

A broker that knows its clients can keep each to its own topics, but a record names its gateway in its body:
without this list the holder of one machine's topic could write under another gateway's name and use up its
sequences, and the true records would then pass for repetitions.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from cloud.store.port import Arrivals, DeadLetter
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.telemetry import Telemetry, encode
from contract.topics import gateway_topic, machine_topic

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

    def knows(self, gateway: str) -> bool:
        """Tell whether a gateway may say anything at all."""
        return self.is_open or gateway in self._places

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

    def sift(self, arrivals: Arrivals, now_us: int) -> Arrivals:
        """Return what may be stored, the rest among the dead letters, with the reason.

        now_us: [us since 1970] when it was refused
        """
        if self.is_open:
            return arrivals
        records = [record for record in arrivals.records if self._may(record)]
        gaps = [gap for gap in arrivals.gaps if self._may(gap)]
        dead = [*arrivals.dead_letters]
        dead += [self._refused(record, now_us) for record in arrivals.records if not self._may(record)]
        dead += [self._refused(gap, now_us) for gap in arrivals.gaps if not self._may(gap)]
        return arrivals._replace(records=records, gaps=gaps, dead_letters=dead)

    def _may(self, item: Telemetry | Gap) -> bool:
        return self.allows(item.gateway, item.machine_key)

    def _refused(self, item: Telemetry | Gap, now_us: int) -> DeadLetter:
        if isinstance(item, Gap):
            topic, payload = gateway_topic(item.site, item.gateway, "gap"), msgspec.json.encode(item)
        else:
            topic, payload = machine_topic(item.machine_key, "telemetry"), encode(item)
        return DeadLetter(now_us, topic, self.reason(item.gateway, item.machine_key), payload)

    def reason(self, gateway: str, machine: MachineKey) -> str:
        """Return why a record was refused, and what to do about it."""
        if gateway not in self._places:
            return self.stranger(gateway)
        return f"gateway {gateway} may not speak for {machine}: see gateways under [ingest] in cloud.toml"

    def stranger(self, gateway: str) -> str:
        """Return why nothing is taken of a gateway that is not listed."""
        return f"gateway {gateway} is not among gateways under [ingest] in cloud.toml"
