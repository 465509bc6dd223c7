"""gateway.toml: what it takes, what it refuses and how it says so."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import config
from gateway.config import Configuration, load, parse
from gateway.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "config"
OPTION = re.compile(r"^(# )?([a-z_]+) =(?: (.*))?$")
SECTION = re.compile(r"^\[+([a-z_.]+)\]+$")
MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("gateway.example.toml", "gateway"): config.Gateway,
    ("gateway.example.toml", "outbox"): config.OutboxLimits,
    ("gateway.example.toml", "certificates"): config.Certificates,
    ("gateway.example.toml", "health"): config.Health,
    ("gateway.example.toml", "log"): config.Log,
    ("gateway.example.toml", "connection"): config.Connection,
    ("gateway.example.toml", "connection.machine.state"): config.StateTag,
    ("gateway.example.toml", "connection.machine.total_units"): config.CounterTag,
    ("gateway.example.toml", "connection.machine.reason_code"): config.ReasonTag,
    ("gateway.example.toml", "connection.machine.product"): config.TextTag,
    ("gateway.example.toml", "connection.machine.tags.speed"): config.NumberTag,
    ("gateway.example.toml", "uplink"): config.MqttUplink,
    ("gateway-aws.example.toml", "uplink"): config.AwsIotUplink,
}


def options(file: str, section: str) -> dict[str, tuple[bool, str | None]]:
    """Return the options of a section of an example: whether it is commented out, and its text."""
    found: dict[str, tuple[bool, str | None]] = {}
    here = ""
    previous = ""
    for line in (FOLDER / file).read_text().splitlines():
        if match := SECTION.match(line):
            here = match[1]
        elif here == section and (match := OPTION.match(line)):
            found[match[2]] = (match[1] is not None, match[3])
            said = previous.startswith("# ") or OPTION.match(previous) or SECTION.match(previous)
            assert said, f"{match[2]} has no sentence"
        previous = line
    return found


@pytest.mark.parametrize(("file", "section"), MODELS)
def test_every_option_stands_in_the_example_with_its_default(file: str, section: str) -> None:
    model = MODELS[file, section]
    shown = options(file, section)
    expected = {name for name in model.model_fields if name != "machine"}
    assert set(shown) == expected
    for name, field in model.model_fields.items():
        if name == "machine":
            continue
        commented, text = shown[name]
        if not commented:
            continue
        default = field.get_default(call_default_factory=True)
        if default is None or field.is_required():
            assert text is None, f"{name} has no default"
        else:
            value = tomllib.loads(f"x = {text}")["x"]
            assert (tuple(value) if isinstance(value, list) else value) == default, name


def test_the_examples_are_valid() -> None:
    for file in ("gateway.example.toml", "gateway-aws.example.toml"):
        made = parse(tomllib.loads((FOLDER / file).read_text()), file)
        assert made.gateway.name == "gw-packaging"
    assert load(FOLDER / "gateway.example.toml").connection[0].machine[0].tags["speed"].scale == 1.0


def minimal(**changes: Any) -> dict[str, Any]:
    machine = {"area": "a", "line": "l", "name": "m", "state": {"node": "ns=2;s=S", "map": {"1": "running"}}}
    connection = {"name": "plc", "endpoint": "opc.tcp://127.0.0.1:4840", "machine": [machine]}
    tables: dict[str, Any] = {
        "gateway": {"name": "gw", "site": "s", "data_dir": "/tmp/x"},
        "connection": [connection],
    }
    for path, value in changes.items():
        place: Any = tables
        *steps, last = path.split("__")
        for step in steps:
            place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
        place[last] = value
    return tables


def faults(tables: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(tables, "gateway.toml")
    return caught.value.faults


def test_a_bare_address_stands_for_a_tag() -> None:
    made = parse(minimal(connection__0__machine__0__total_units="ns=2;s=T"), "x")
    machine = made.connection[0].machine[0]
    assert machine.total_units is not None
    assert (machine.total_units.node, machine.total_units.bits) == ("ns=2;s=T", 32)


def test_all_faults_are_told_at_once_with_file_and_key_path() -> None:
    told = faults(
        minimal(
            gateway__site="no spaces",
            connection__0__queue_size=0,
            connection__0__machine__0__state={"node": "ns=2;s=S", "map": {"1": "sleeping"}},
        )
    )
    assert len(told) == 3
    assert all(one.startswith("gateway.toml: ") for one in told)
    assert "gateway.site" in told[0]
    assert "connection[0].queue_size" in told[1]
    assert "greater than or equal to 1" in told[1]
    assert "connection[0].machine[0].state.map.1" in told[2]
    assert "'running'" in told[2]


def test_an_unknown_key_is_answered_with_those_that_are_allowed() -> None:
    (told,) = faults(minimal(connection__0__queue_sise=3))
    assert "connection[0].queue_sise: unknown key; allowed are" in told
    assert "did you mean queue_size?" in told


@pytest.mark.parametrize("uplink", [{"name": "b"}, {"name": "b", "kind": "kafka"}])
def test_an_uplink_of_no_kind_is_told_the_kinds_that_there_are(uplink: dict[str, Any]) -> None:
    (told,) = faults(minimal() | {"uplink": [uplink]})
    assert "uplink[0].kind: say which it is: 'mqtt' or 'aws_iot'" in told


def test_a_password_in_the_file_is_refused_with_a_hint() -> None:
    (told,) = faults(minimal(connection__0__password="secret"))
    assert "password_file or password_env" in told
    assert "secret'" not in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connection__0__security": "None"}, "allow_insecure = true"),
        ({"connection__0__endpoint": "http://x"}, "opc.tcp://host:port"),
        ({"connection__0__endpoint": "opc.tcp://u:p@x:1"}, "do not go into the endpoint"),
        ({"connection__0__username": "u"}, "password_file"),
        ({"connection__0__user_certificate_file": "x"}, "go together"),
        ({"connection__0__machine__0__area": "gateways"}, "topic of its own"),
        ({"connection__0__machine__0__tags": {"a b": "ns=1;i=1"}}, "no tag name"),
        ({"connection__0__machine__0__product": "State"}, "no node address"),
        ({"connection__0__machine": []}, "at least one"),
        ({"gateway__heartbeat_secs": float("nan")}, "heartbeat_secs"),
    ],
)
def test_what_is_impossible_is_refused(changes: dict[str, Any], said: str) -> None:
    assert any(said in one for one in faults(minimal(**changes)))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"node": "ns=2;s=S"}, "exactly one of map, bits, rules and moving; here: none"),
        ({"node": "i=1", "map": {"1": "idle"}, "bits": {"0": "idle"}}, "here: map and bits"),
        ({"map": {"1": "idle"}}, "map needs the node"),
        ({"moving": "total_units"}, "watches total_units, which this machine does not have"),
        ({"node": "i=1", "bits": {"64": "idle"}}, "bits are 0 to 63"),
        ({"nodes": {"a": "i=1"}, "rules": [{"when": "b", "then": "idle"}]}, "asks for b"),
        ({"nodes": {"a": "i=1"}, "rules": [{"when": "a(", "then": "idle"}]}, "is no expression"),
        ({"nodes": {"a": "i=1"}, "rules": [{"when": "a.b", "then": "idle"}]}, "not allowed"),
    ],
)
def test_a_state_that_cannot_be_told_is_refused(state: dict[str, Any], said: str) -> None:
    assert any(said in one for one in faults(minimal(connection__0__machine__0__state=state)))


def test_a_machine_stands_once() -> None:
    tables = minimal()
    tables["connection"].append({**tables["connection"][0], "name": "other"})
    (told,) = faults(tables)
    assert "the machine s/a/l/m stands 2 times" in told


def test_files_and_variables_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        """
        [gateway]
        name = "gw"
        site = "s"
        data_dir = "state"
        [[connection]]
        name = "plc"
        endpoint = "opc.tcp://h:1"
        username = "u"
        password_file = "secrets/plc"
        machine = [{area="a", line="l", name="m", state={node="i=1", map={1="idle"}}}]
        [[uplink]]
        name = "b"
        kind = "mqtt"
        url = "mqtts://h"
        username = "u"
        password_env = "BROKER_PASSWORD"
        """
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {"HOME": "/"})
    assert caught.value.faults == [
        f"{path}: connection[0].password_file: there is no readable file {tmp_path}/secrets/plc",
        f"{path}: uplink[0].password_env: the environment variable BROKER_PASSWORD is not set",
    ]
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "plc").write_text("hidden\n")
    made = load(path, {"BROKER_PASSWORD": "x"})
    assert made.gateway.data_dir == tmp_path / "state"
    assert config.secret(made.connection[0].password_file, "") == "hidden"


def test_a_file_that_is_no_toml_or_not_there_is_said(tmp_path: Path) -> None:
    for content, said in (
        (b"a = ", "is not TOML"),
        (b"\xff", "cannot be read"),
        (None, "oee config show gateway"),
    ):
        path = tmp_path / "gateway.toml"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            load(path)


def test_machines_come_with_their_keys() -> None:
    made: Configuration = parse(minimal(), "x")
    assert [str(key) for key, _ in made.machines()] == ["s/a/l/m"]
