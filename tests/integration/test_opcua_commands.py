"""`oee gateway browse`, `check` and `trust` against real servers."""

import asyncio
import datetime as dt
import io
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from rich.console import Console

from gateway import commands_opcua
from gateway.check import check
from gateway.config import parse
from gateway.sources.browse import Pattern, find_tags
from gateway.sources.certificates import thumbprint
from gateway.sources.draft import draft
from gateway.sources.opcua import identity
from gateway.sources.session import open_session
from tests.support.certificates import make
from tests.support.foreign_server import foreign_server
from tests.support.mosquitto import Mosquitto
from tests.support.opcua_gateway import configured
from tests.support.opcua_server import Plc, plc
from tests.support.ports import free_port

TAGS = {"State": 1, "TotalUnits": 5, "Rejects": 1, "Product": "cola", "Speed": 1.5}
MACHINE: dict[str, Any] = {"name": "m1", "state": {"node": "/Objects/Plant/State", "map": {"1": "running"}}}


async def line_of_three(server: Any) -> None:
    """Lay out Objects/Hall/line-1/filler-N/Tag."""
    hall = await server.nodes.objects.add_folder(ua.NodeId("Hall", 2), "2:Hall")
    line = await hall.add_folder(ua.NodeId("line-1", 2), "2:line-1")
    for n in range(1, 4):
        machine = await line.add_folder(ua.NodeId(f"filler-{n}", 2), f"2:filler-{n}")
        for tag, value in TAGS.items():
            await machine.add_variable(ua.NodeId(f"{n}.{tag}", 2), f"2:{tag}", value)


async def browsed(url: str, tmp_path: Path, pattern: str) -> list[Any]:
    configuration = configured(url, [MACHINE], tmp_path)
    connection = configuration.connection[0]
    session = await open_session(connection, identity(configuration), now=dt.datetime.now(dt.UTC))
    try:
        return [tag async for portion in find_tags(session, Pattern(pattern)) for tag in portion]
    finally:
        await session.close(keep_subscriptions=False)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("Hall/line-1/filler-2/*", [f"Hall/line-1/filler-2/{tag}" for tag in TAGS]),
        ("/Objects/Hall/**/State", [f"Hall/line-1/filler-{n}/State" for n in (1, 2, 3)]),
        ("Hall/*/filler-[13]/Stat?", ["Hall/line-1/filler-1/State", "Hall/line-1/filler-3/State"]),
        ("**/Speed", ["Plant/Speed", *(f"Hall/line-1/filler-{n}/Speed" for n in (1, 2, 3))]),
        ("Nowhere/**", []),
    ],
)
async def test_tags_are_found_by_globs(tmp_path: Path, pattern: str, paths: list[str]) -> None:
    server = Plc(extra_namespaces=("urn:hall",))
    server.configure = line_of_three
    await server.start({"Speed": 1.0})
    try:
        assert sorted(tag.path for tag in await browsed(server.url, tmp_path, pattern)) == sorted(paths)
    finally:
        await server.stop()


async def test_a_draft_is_a_configuration_that_loads_and_checks_clean(tmp_path: Path) -> None:
    """One machine per folder, known names recognised, addresses by namespace URI; no fault in any of it."""
    server = Plc(extra_namespaces=("urn:hall",))
    server.configure = line_of_three
    await server.start({})
    try:
        text = draft(await browsed(server.url, tmp_path, "Hall/**"))
        head = (
            f'[gateway]\nname = "g"\nsite = "s"\ndata_dir = "{tmp_path}"\n[[connection]]\nname = "plc-1"\n'
            f'endpoint = "{server.url}"\nsecurity = "None"\nallow_insecure = true\n'
        )
        configuration = parse(tomllib.loads(head + text), "draft")
        grades = [one.grade async for one in check(configuration, dt.datetime.now(dt.UTC))]
    finally:
        await server.stop()
    machines = configuration.connection[0].machine
    assert [(one.area, one.line, one.name) for one in machines] == [
        ("Hall", "line-1", f"filler-{n}") for n in (1, 2, 3)
    ]
    first = machines[0]
    assert first.state.node == "nsu=urn:hall;s=1.State"
    assert first.total_units is not None
    assert first.total_units.node == "nsu=urn:hall;s=1.TotalUnits"
    assert first.off_quality_units is not None
    assert first.product is not None
    assert list(first.tags) == ["Speed"]
    assert "fault" not in grades


async def test_thousands_of_tags_are_found_with_few_questions_and_progress(tmp_path: Path) -> None:
    """How many there are must not matter; 100,000 differ from these in time alone.

    A folder holds more than one answer takes, and the server goes on with one folder at a time only.
    """
    async with foreign_server({}, port=free_port(), continuation_points=1) as server:
        await server.ask("grow", lines=2, machines=200, tags=["State", "Total", "Rejects", "Fault", "Speed"])
        configuration = configured(server.url, [MACHINE], tmp_path)
        session = await open_session(
            configuration.connection[0], identity(configuration), now=dt.datetime.now(dt.UTC)
        )
        questions = 0
        ask = session.call

        async def counted(*arguments: Any) -> Any:
            nonlocal questions
            questions += 1
            return await ask(*arguments)

        session.call = counted
        told: list[tuple[int, int]] = []
        try:
            found = [
                tag
                async for portion in find_tags(session, Pattern(""), lambda *so_far: told.append(so_far))
                for tag in portion
            ]
        finally:
            await session.close(keep_subscriptions=False)
        assert len({tag.path for tag in found}) == 2000
        assert questions <= 45
        assert len(told) >= 5
        assert told == sorted(told)
        assert told[-1] == (404, 2000)


async def test_browsing_does_not_keep_the_loop_from_others(tmp_path: Path) -> None:
    """The server here is served by the same loop, so only our own steps are measured, by their longest."""
    async with plc({}) as server:
        for n in range(40):
            folder = await server.server.nodes.objects.add_folder(
                ua.NodeId(f"f{n}", server.space), f"{server.space}:f{n}"
            )
            for tag in range(25):
                await folder.add_variable(
                    ua.NodeId(f"f{n}.{tag}", server.space), f"{server.space}:t{tag}", tag
                )
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - before)

        watching = asyncio.create_task(watch())
        found = await browsed(server.url, tmp_path, "f*/**")
        watching.cancel()
        assert len(found) == 1000
        assert longest < 1.5


def run_browse(*arguments: Any, **options: Any) -> tuple[int, str]:
    text = io.StringIO()
    code = commands_opcua.browse(*arguments, console=Console(file=text, width=200), **options)
    return code, text.getvalue()


async def test_the_browse_command_lists_value_type_and_quality(capsys: pytest.CaptureFixture[str]) -> None:
    async with plc(TAGS) as server:
        await server.write("Speed", None, status=0x808B0000)
        code, text = await asyncio.to_thread(run_browse, server.url, "Plant/*", allow_insecure=True)
        assert code == 0
        lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
        assert lines["Plant/State"] == ["1", "Int32", "Good", "nsu=urn:test:plc;s=State"]
        assert lines["Plant/Product"][:3] == ["cola", "String", "Good"]
        assert "BadDeviceFailure" in lines["Plant/Speed"]
        code, text = await asyncio.to_thread(run_browse, server.url, "Plant", allow_insecure=True)
        assert (code, text) == (1, "")
        assert "what is in a folder is FOLDER/**" in capsys.readouterr().err


async def test_what_no_field_can_be_is_listed_as_it_is() -> None:
    at = dt.datetime(2021, 6, 30, 12, tzinfo=dt.UTC)
    async with plc({}) as server:
        await server.add("At", at, ua.VariantType.DateTime)
        await server.add("Many", list(range(20)), ua.VariantType.Int64)
        await server.add("Raw", b"\x01\xff", ua.VariantType.ByteString)
        code, text = await asyncio.to_thread(run_browse, server.url, "Plant/*", allow_insecure=True)
    assert code == 0
    lines = {line.split()[0]: " ".join(line.split()[1:-1]) for line in text.splitlines()[1:]}
    assert lines["Plant/At"].startswith("2021-06-30 12:00:00")
    assert lines["Plant/At"].endswith("DateTime Good")
    assert lines["Plant/Many"] == "[0, 1, 2, 3, 4, 5, 6, 7, ...] Int64[] Good"
    assert lines["Plant/Raw"] == "01 ff ByteString Good"


def test_browsing_what_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run_browse("opc.tcp://127.0.0.1:9", allow_insecure=True)
    assert code == 1
    assert "nothing listens there" in capsys.readouterr().err.replace("\n", " ")
    code, _ = run_browse("plc-1")
    assert code == 2


async def findings(configuration: Any) -> dict[str, tuple[str, str, str]]:
    now = dt.datetime.now(dt.UTC)
    return {one.subject: (one.grade, one.said, one.remedy) async for one in check(configuration, now)}


async def test_check_tells_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    async with plc({**TAGS, "Mode": 7}) as server:
        await server.write("Speed", None, status=0x808B0000)
        machines = [
            {
                "name": "good",
                "state": {"node": server.node("State"), "map": {"1": "running"}},
                "total_units": server.node("TotalUnits"),
            },
            {
                "name": "bad",
                "state": {"node": server.node("Mode"), "map": {"1": "running"}},
                "total_units": server.node("Product"),
                "product": server.node("Nowhere"),
                "order": "nsu=urn:nobody;s=x",
                "tags": {"speed": server.node("Speed")},
            },
        ]
        found = await findings(configured(server.url, machines, tmp_path))
    assert found["plc-1"][0] == "ok"
    assert found["plc-1 line/bad product"][:2] == ("fault", "nsu=urn:test:plc;s=Nowhere is BadNodeIdUnknown")
    assert "browse" in found["plc-1 line/bad product"][2]
    assert "the server has no namespace urn:nobody" in found["plc-1 line/bad order"][1]
    assert found["plc-1 line/bad tags.speed"][0] == "fault"
    assert found["plc-1 line/bad total_units"][1] == "'cola' cannot be total_units"
    assert not any("good" in subject for subject in found)


async def test_check_says_that_all_is_well(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        found = await findings(configured(server.url, [MACHINE], tmp_path))
        assert found["plc-1"] == ("ok", "all 1 tags of 1 machines can be read", "")
        await server.write("State", 9)
        found = await findings(configured(server.url, [MACHINE], tmp_path))
        assert found["plc-1 line/m1"][:2] == ("warning", "its state 9 means unknown")


async def test_check_tells_of_certificates(tmp_path: Path) -> None:
    made = make("plc", uri="urn:test:plc:server")
    server = Plc()
    server.certificate, server.key = made.save(tmp_path, "plc")
    server.policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    await server.start(TAGS)
    try:
        configuration = configured(server.url, [MACHINE], tmp_path, security="auto")
        found = await findings(configuration)
        assert found["own certificate"][0] == "warning"
        assert found["plc-1"][0] == "fault"
        assert "oee gateway trust add" in found["plc-1"][2]
        text = io.StringIO()
        path = tmp_path / "gateway.toml"
        path.write_text(f'[gateway]\nname = "g"\nsite = "s"\ndata_dir = "{tmp_path}"\n')
        console = Console(file=text, width=300)
        assert commands_opcua.trust_list(path, console) == 0
        assert "nobody has trusted it yet" in text.getvalue()
        name = thumbprint(made.certificate)
        assert name in text.getvalue()
        assert commands_opcua.trust_add(name[:10], path, console) == 0
        found = await findings(configuration)
        assert (found["own certificate"][0], found["plc-1"][0]) == ("ok", "ok")
        assert commands_opcua.trust_reject(name[:10], path, console) == 0
        assert commands_opcua.trust_add("nonsense", path, console) == 1
        assert (await findings(configuration))["plc-1"][0] == "fault"
    finally:
        await server.stop()


def with_uplink(tmp_path: Path, url: str, **options: Any) -> Any:
    gateway = {"name": "g", "site": "s", "data_dir": str(tmp_path)}
    return parse({"gateway": gateway, "uplink": [{"name": "b", "kind": "mqtt", "url": url, **options}]}, "x")


async def test_check_tells_what_to_do_about_a_certificate_that_trust_cannot_help(tmp_path: Path) -> None:
    server = Plc()
    made = make("plc", uri="urn:test:plc:server", not_before_days=-2, not_after_days=-1)
    server.certificate, server.key = made.save(tmp_path, "plc")
    server.policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    await server.start(TAGS)
    try:
        found = await findings(configured(server.url, [MACHINE], tmp_path, security="auto"))
    finally:
        await server.stop()
    grade, said, remedy = found["plc-1"]
    assert (grade, "it expired on" in said) == ("fault", True)
    assert "renewed" in remedy
    assert "trust add" not in remedy


def of_size(tmp_path: Path, max_bytes: int) -> Any:
    gateway = {"name": "g", "site": "s", "data_dir": str(tmp_path)}
    return parse({"gateway": gateway, "outbox": {"max_bytes": max_bytes}}, "x")


async def test_check_looks_at_the_data_folder(tmp_path: Path) -> None:
    assert (await findings(of_size(tmp_path, 1_000_000)))["data folder"][0] == "ok"
    grade, said, _ = (await findings(of_size(tmp_path, 10**17)))["data folder"]
    assert (grade, "may grow to 100,000,000.0 GB" in said) == ("warning", True)
    (tmp_path / "file").write_text("")
    grade, said, remedy = (await findings(of_size(tmp_path / "file", 1_000_000)))["data folder"]
    assert grade == "fault"
    assert said == f"{tmp_path / 'file'} takes no files: File exists"
    assert "gateway.data_dir" in remedy


async def test_check_compares_the_clocks(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        wrong = configured(server.url, [MACHINE], tmp_path, source_clock_offset_secs=-3600.0)
        told = [one async for one in check(wrong, dt.datetime.now(dt.UTC)) if "its clock" in one.said]
    assert [one.grade for one in told] == ["warning"]
    assert "behind ours" in told[0].said
    assert "NTP" in told[0].remedy


async def test_check_finds_a_broker_that_forbids_to_publish(tmp_path: Path) -> None:
    """A subscription that is allowed says nothing of that; the list of what may be written is another one."""
    acl = "user gw\ntopic read oee/#\n"
    password = tmp_path / "password"
    password.write_text("right")
    login = {"username": "gw", "password_file": str(password)}
    with Mosquitto(users={"gw": "right"}, acl=acl) as mosquitto:
        grade, said, remedy = (await findings(with_uplink(tmp_path, mosquitto.url, **login)))["b"]
    assert (grade, "refused the message" in said) == ("fault", True)
    assert "oee/v1/s/gateways/g/backlog" in remedy


async def test_check_tries_the_broker(tmp_path: Path) -> None:
    with Mosquitto() as mosquitto:
        found = await findings(with_uplink(tmp_path, mosquitto.url))
        assert found["b"][0] == "ok"
        found = await findings(with_uplink(tmp_path, mosquitto.url.replace("mqtt://", "mqtts://")))
        assert found["b"][0] == "fault"
        assert "TLS" in found["b"][2]
    found = await findings(with_uplink(tmp_path, "mqtt://127.0.0.1:9"))
    assert found["b"][:2] == ("fault", "127.0.0.1:9: connection refused")


async def test_check_tries_the_login_at_the_broker(tmp_path: Path) -> None:
    """Beside a gateway that runs: it uses another name for its session."""
    password = tmp_path / "password"
    login = {"username": "gw", "password_file": str(password)}
    with Mosquitto(users={"gw": "right"}) as mosquitto:
        password.write_text("wrong")
        grade, said, remedy = (await findings(with_uplink(tmp_path, mosquitto.url, **login)))["b"]
        assert grade == "fault"
        assert "ot authori" in said
        assert "password" in remedy
        assert "wrong" not in said
        password.write_text("right")
        grade, said, _ = (await findings(with_uplink(tmp_path, mosquitto.url, **login)))["b"]
        assert (grade, said) == ("ok", f"127.0.0.1:{mosquitto.port} answers, and lets us in")
        assert "as oee-s-g-b-check" in mosquitto.log()


def test_the_check_command_ends_with_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[gateway]\nname = 'g'\n")
    text = io.StringIO()
    assert commands_opcua.check(path, Console(file=text, width=200)) == 2
    assert "gateway.site" in text.getvalue()
    path.write_text(f"[gateway]\nname = 'g'\nsite = 's'\ndata_dir = '{tmp_path}'\n")
    assert commands_opcua.check(path, Console(file=text, width=200)) == 0
    assert "there are none" in text.getvalue()
