"""Configuration files that fit a simulated factory: what to read, and what it is."""

import json
from collections.abc import Mapping
from pathlib import Path

from simulator.factory import Factory
from simulator.machine import PLC_STATES
from simulator.scenarios import REASONS, Scenario
from simulator.server import NAMESPACE_URI


def gateway_toml(
    factory: Factory,
    endpoints: Mapping[str, str],
    *,
    broker_url: str,
    data_dir: Path | str,
    name: str = "gw-packaging",
    gateway: Mapping[str, object] | None = None,
    connection: Mapping[str, object] | None = None,
    uplink: Mapping[str, object] | None = None,
    health_port: int | None = None,
) -> str:
    """Return a gateway.toml that reads every tag of the factory and publishes to one broker.

    endpoints: line -> OPC UA endpoint URL
    gateway, connection, uplink: further keys of these tables, the same for each line
    health_port: port of /healthz; None leaves it out, 0 takes any
    """
    parts = [
        "# Made for a simulated factory on this machine: nothing is encrypted.\n",
        _table(
            "[gateway]", {"name": name, "site": factory.site, "data_dir": str(data_dir), **(gateway or {})}
        ),
    ]
    if health_port is not None:
        parts.append(_table("[health]", {"port": health_port}))
    for line in factory.lines:
        if line.name not in endpoints:
            continue
        reached: dict[str, object] = {
            "name": line.name,
            "endpoint": endpoints[line.name],
            "security": "None",
            "allow_insecure": True,
        }
        parts.append(_table("[[connection]]", {**reached, **(connection or {})}))
        parts.extend(
            _machine_tags(factory, line.name, machine.name, machine.counter_bits) for machine in line.machines
        )
    insecure: dict[str, object] = {"name": "broker", "kind": "mqtt", "url": broker_url}
    if broker_url.startswith("mqtt://"):
        insecure["allow_insecure"] = True
    parts.append(_table("[[uplink]]", {**insecure, **(uplink or {})}))
    return "\n".join(parts)


def plant_toml(scenario: Scenario) -> str:
    """Return the plant.toml that a scenario's truth is told by."""
    factory = scenario.factory
    table = factory.timetable
    shifts = []
    for shift in table.shifts:
        entry = f'  {{ name = "{shift.name}", start = "{shift.start}", end = "{shift.end}"'
        if shift.breaks:
            pauses = ", ".join(
                f'{{ start = "{start}", minutes = {length} }}' for start, length in shift.breaks
            )
            entry += f", breaks = [ {pauses} ]"
        if shift.days:
            entry += f", days = {json.dumps(list(shift.days))}"
        shifts.append(entry + " },\n")
    stops = ""
    if table.planned_stops:
        entries = ", ".join(
            f'{{ start = {stop.start}:00, minutes = {stop.minutes}, reason = "{stop.reason}" }}'
            for stop in table.planned_stops
        )
        stops = f"planned_stops = [ {entries} ]\n"
    parts = [
        f"# The simulated factory, scenario {factory.scenario}.\n",
        _table("[site]", {"name": factory.site, "timezone": table.timezone}),
        f"[calendar.{table.name}]\nshifts = [\n{''.join(shifts)}]\n{stops}",
        *(
            _table(
                f"[reason.code-{code}]", {"name": name, "group": group, "category": category, "codes": [code]}
            )
            for code, (name, group, category) in REASONS.items()
        ),
        *(
            _table(
                f"[reason.{reason}]", {"name": reason.capitalize(), "group": "Planned", "category": "planned"}
            )
            for reason in sorted({stop.reason for stop in table.planned_stops})
        ),
    ]
    for line in factory.lines:
        for place, machine in enumerate(line.machines):
            first, *others = machine.products
            keys: dict[str, object] = {
                "area": factory.area,
                "line": line.name,
                "name": machine.name,
                "calendar": table.name,
                "ideal_run_rate": first.ideal_run_rate,
                "counter_bits": machine.counter_bits,
                "idle_alert_secs": scenario.idle_alert_secs,
                "bottleneck": place == 0,
            }
            rates = "".join(
                f'products."{made.name}" = {{ ideal_run_rate = {made.ideal_run_rate} }}\n' for made in others
            )
            parts.append(_table("[[machine]]", keys) + rates)
    return "\n".join(parts)


def _machine_tags(factory: Factory, line: str, machine: str, bits: int) -> str:
    path = f"nsu={NAMESPACE_URI};s={line}.{machine}"
    states = ", ".join(f'{code} = "{state.value}"' for state, code in PLC_STATES.items())
    return (
        "  [[connection.machine]]\n"
        f'  area = "{factory.area}"\n  line = "{line}"\n  name = "{machine}"\n'
        f'  state = {{ node = "{path}.State", map = {{ {states} }} }}\n'
        f'  total_units = {{ node = "{path}.TotalUnits", bits = {bits} }}\n'
        f'  off_quality_units = {{ node = "{path}.OffQualityUnits", bits = {bits} }}\n'
        f'  reason_code = "{path}.FaultCode"\n'
        f'  product = "{path}.Product"\n'
    )


def _table(heading: str, keys: Mapping[str, object]) -> str:
    """Write a table; JSON's scalars and flat arrays are TOML's."""
    return f"{heading}\n" + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items()
    )
