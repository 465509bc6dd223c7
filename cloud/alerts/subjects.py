"""What an alert can be of: a machine, a line, a gateway, a PLC connection, or the service at its site."""

from typing import NamedTuple

from contract import topics
from contract.machine_key import MachineKey


class Subject(NamedTuple):
    """Levels from the site down; those that do not apply are empty."""

    site: str
    area: str = ""
    line: str = ""
    machine: str = ""
    gateway: str = ""
    connection: str = ""

    @classmethod
    def of_machine(cls, key: MachineKey) -> "Subject":
        """Return a machine as a subject."""
        return cls(*key)

    @property
    def machine_key(self) -> MachineKey:
        """Return the machine that this is; its levels are empty where it is none."""
        return MachineKey(self.site, self.area, self.line, self.machine)

    @property
    def place(self) -> str:
        """Return the path from the site: `berlin/packaging/line-1/filler-1`, `berlin/gateways/gw-1`."""
        if self.gateway:
            levels = (self.site, "gateways", self.gateway, self.connection)
        else:
            levels = (self.site, self.area, self.line, self.machine)
        return "/".join(level for level in levels if level)

    @property
    def name(self) -> str:
        """Return what people call it: `filler-1 on line-1`, `gateway gw-1`."""
        if self.connection:
            return f"PLC {self.connection} at gateway {self.gateway}"
        if self.gateway:
            return f"gateway {self.gateway}"
        if self.machine:
            return f"{self.machine} on {self.line}"
        return self.line or f"the service at {self.site}"

    @property
    def topic(self) -> str:
        """Return where its alerts are published."""
        if self.gateway:
            return topics.gateway_topic(self.site, self.gateway, "alert")
        if self.machine:
            return topics.machine_topic(self.machine_key, "alert")
        if self.line:
            return topics.line_topic(self.site, self.area, self.line, "alert")
        return topics.site_topic(self.site, "alert")


def lies_in(place: str, wanted: str) -> bool:
    """Tell whether a place is another or lies below it."""
    return f"{place}/".startswith(f"{wanted.strip('/')}/")
