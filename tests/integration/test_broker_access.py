"""Who gets past the broker and the cloud side's door: the set-up of docs/security.md, on real processes."""

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.broker_acl import mosquitto_acl
from cloud.config import load
from cloud.store.port import DeadLetter
from cloud.store.rows import to_telemetry
from cloud.store.sqlite import SqliteStore
from contract.delivery import Gap
from contract.states import MachineState
from contract.telemetry import Telemetry, encode
from tests.support.certificates import Made, make, revoke
from tests.support.cloud import CloudProcess, write_config
from tests.support.edge import wait_for
from tests.support.mosquitto import Mosquitto

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
FILLER = "oee/v1/berlin/packaging/line-1/filler-1/telemetry"
CAPPER = "oee/v1/berlin/packaging/line-2/capper-2/telemetry"
NOT_AUTHORIZED = 135


def documented(language: str, first: str) -> str:
    """Return the block of docs/security.md that begins with a line."""
    found = re.search(rf"^```{language}\n({re.escape(first)}.*?)^```", SECURITY, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/security.md shows no block beginning with {first}"
    return found[1]


def write(folder: Path, name: str, made: Made) -> tuple[Path, Path]:
    """Write a certificate and its key as PEM; return both paths."""
    certificate = folder / f"{name}.crt"
    certificate.write_bytes(made.certificate.public_bytes(Encoding.PEM))
    return certificate, made.save(folder / "keys", name)[1]


class Keys:
    """Everybody's certificates: the authority, its broker, two gateways, and who shall not pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = make("plant authority", authority=True)
        self.files = {
            "broker": write(folder, "broker", make("localhost", uri="urn:broker", issuer=authority)),
            "ca": write(folder, "ca", authority),
            "self-signed": write(folder, "self-signed", make("gw-1")),
            "expired": write(
                folder, "expired", make("gw-1", issuer=authority, not_before_days=-3, not_after_days=-1)
            ),
        }
        lost = make("gw-1", issuer=authority)
        self.files["revoked"] = write(folder, "revoked", lost)
        for name in ("cloud", "gw-1", "gw-2"):
            self.files[name] = write(folder, name, make(name, issuer=authority))
        revocations = x509.load_der_x509_crl(revoke(authority, lost)).public_bytes(Encoding.PEM)
        (folder / "revoked.pem").write_bytes(revocations)
        (folder / "ca.pem").write_bytes(self.files["ca"][0].read_bytes())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def configuration(tmp_path: Path, keys: Keys) -> Path:
    table = documented("toml", "[ingest]").removeprefix("[ingest]\n")
    certificate, key = keys.files["cloud"]
    mqtt_lines = (
        f'ca_file = "{keys.folder / "ca.pem"}"\ncertificate_file = "{certificate}"\nkey_file = "{key}"'
    )
    return write_config(
        tmp_path / "cloud", "mqtts://localhost:1", options={"ingest": table, "mqtt": mqtt_lines}
    )


@pytest.fixture
def broker(tmp_path: Path, keys: Keys, configuration: Path) -> Iterator[Mosquitto]:
    lines = []
    for line in documented("", "listener 8883").splitlines():
        name, _, value = line.partition(" ")
        if name == "acl_file":
            acl = mosquitto_acl(load(configuration).ingest.gateways, cloud="cloud", commands=False)
            (tmp_path / value).write_text(acl)
            (tmp_path / value).chmod(0o600)
            lines.append(f"{name} {tmp_path / value}")
        elif name in {"cafile", "crlfile"}:
            lines.append(f"{name} {keys.folder / value}")
        elif name == "certfile":
            lines += [f"certfile {keys.files['broker'][0]}", f"keyfile {keys.files['broker'][1]}"]
        elif name not in {"listener", "keyfile", "allow_anonymous"}:
            lines.append(line)
    with Mosquitto(tmp_path / "broker", settings=lines) as running:
        text = configuration.read_text().replace("mqtts://localhost:1", f"mqtts://localhost:{running.port}")
        configuration.write_text(text)
        yield running


@contextlib.contextmanager
def connected(broker: Mosquitto, keys: Keys, who: str | None) -> Iterator[mqtt.Client]:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=str(keys.folder / "ca.pem"))
    if who is not None:
        context.load_cert_chain(*map(str, keys.files[who]))
    client.tls_set_context(context)
    welcome = threading.Event()
    client.on_connect = lambda *_: welcome.set()
    client.connect("localhost", broker.port)
    client.loop_start()
    try:
        if not welcome.wait(5 if who in {"gw-1", "gw-2"} else 1):
            raise ConnectionRefusedError(who)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: mqtt.Client, topic: str, payload: bytes) -> int:
    """Publish and return the reason code of the broker's acknowledgement."""
    codes: list[int] = []
    done = threading.Event()

    def on_publish(_client: object, _userdata: object, _mid: int, code: object, _properties: object) -> None:
        codes.append(int(code.value))
        done.set()

    client.on_publish = on_publish
    client.publish(topic, payload, qos=1)
    assert done.wait(10)
    return codes[0]


def record(machine: str, gateway: str, sequence: int, line: str = "line-1") -> Telemetry:
    return Telemetry(
        epochtime=round(time.time(), 3),
        site="berlin",
        area="packaging",
        line=line,
        machine=machine,
        state=MachineState.RUNNING,
        gateway=gateway,
        sequence=sequence,
        total_units=sequence,
    )


def kept(folder: Path) -> tuple[list[Telemetry | Gap], list[DeadLetter]]:
    store = SqliteStore(folder / "cloud" / "store" / "store.sqlite3")
    try:
        machines = range(len(store.names.all("machine")))
        return to_telemetry(store.read_table(machines, 0, 2**62), store.names), store.dead_letters(100)
    finally:
        store.close()


def test_a_gateway_writes_neither_to_others_topics_nor_under_their_names(
    tmp_path: Path, keys: Keys, configuration: Path, broker: Mosquitto
) -> None:
    true = [record("filler-1", "gw-1", 5), record("capper-2", "gw-2", 5, "line-2")]
    with (
        CloudProcess(configuration) as cloud,
        connected(broker, keys, "gw-1") as first,
        connected(broker, keys, "gw-2") as second,
    ):
        assert wait_for(lambda: "connected" in cloud.log(), 30), "else nobody would hear"
        forged_topics = (
            CAPPER,
            "oee/v1/berlin/gateways/gw-2/backlog",
            "oee/v1/berlin/gateways/gw-2/status",
            "oee/v1/berlin/gateways/gw-2/receipt",
            "oee/v1/berlin/gateways/gw-1/command",
            FILLER.replace("telemetry", "oee"),
        )
        for topic in forged_topics:
            assert publish(first, topic, encode(true[1])) == NOT_AUTHORIZED, topic
        # its own topic, another's name and sequence: the broker cannot know, the cloud side does
        assert publish(first, FILLER, encode(record("filler-1", "gw-2", 5))) == 0
        assert publish(first, FILLER, encode(record("capper-2", "gw-2", 5, "line-2"))) == 0
        batch = [record("capper-2", "gw-1", 6, "line-2"), true[0]]
        assert publish(first, "oee/v1/berlin/gateways/gw-1/backlog", msgspec.json.encode(batch)) == 0
        assert publish(second, CAPPER, encode(true[1])) == 0
        assert wait_for(lambda: len(kept(tmp_path)[0]) == 2, 30)
        cloud.stop()
    records, dead = kept(tmp_path)
    assert sorted(records, key=lambda item: item.gateway) == true
    reasons = [letter.reason for letter in dead]
    refused = "gateway {} may not speak for {}: see gateways under [ingest] in cloud.toml"
    assert refused.format("gw-2", "berlin/packaging/line-1/filler-1") in reasons
    assert refused.format("gw-1", "berlin/packaging/line-2/capper-2") in reasons
    assert sum("topic" in reason for reason in reasons) == 1
    assert len(reasons) == 3


@pytest.mark.parametrize("who", ["expired", "self-signed", "revoked", None])
def test_a_client_without_a_good_certificate_stays_outside(
    keys: Keys, broker: Mosquitto, who: str | None
) -> None:
    with (
        pytest.raises((ConnectionRefusedError, ssl.SSLError, ConnectionResetError)),
        connected(broker, keys, who),
    ):
        pass
    with connected(broker, keys, "gw-1") as good:
        assert publish(good, FILLER, encode(record("filler-1", "gw-1", 1))) in {0, 16}


@pytest.mark.parametrize("fault", ["stranger", "expired"])
def test_the_cloud_side_leaves_a_broker_that_is_not_the_plants(
    tmp_path: Path, keys: Keys, configuration: Path, fault: str
) -> None:
    impostor = make("localhost", uri="urn:broker")
    if fault == "expired":
        certificate, key = keys.files["expired"]
    else:
        certificate, key = write(tmp_path, "impostor", impostor)
    names = {"cafile": keys.folder / "ca.pem", "certfile": certificate, "keyfile": key}
    with Mosquitto(tmp_path / "impostor", certificates=names) as broker:
        text = configuration.read_text().replace("mqtts://localhost:1", f"mqtts://localhost:{broker.port}")
        configuration.write_text(text)
        with CloudProcess(configuration) as cloud:
            assert wait_for(lambda: "certificate verify failed" in cloud.log(), 20)
            assert "connected" not in broker.log().lower().replace("disconnected", "")
