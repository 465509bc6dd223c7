"""A thing's files, its policy, and its registration at a server that speaks AWS's API."""

import json
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from contract.machine_key import MachineKey
from gateway import commands, config
from gateway.errors import ProvisionError
from gateway.provision import (
    MAX_POLICY_CHARACTERS,
    ThingFiles,
    policy,
    register,
    uplink_table,
    write_identity,
)

FILLER = MachineKey("berlin", "packaging", "line-1", "filler-1")


def test_key_and_request_belong_together_and_the_key_is_for_its_owner_alone(tmp_path):
    files = ThingFiles(tmp_path / "aws", "gw-1")
    assert write_identity(files)
    request = x509.load_pem_x509_csr(files.request.read_bytes())
    key = serialization.load_pem_private_key(files.private_key.read_bytes(), None)
    assert request.public_key() == key.public_key()
    assert request.subject.rfc4514_string() == "CN=gw-1"
    assert stat.S_IMODE(files.private_key.stat().st_mode) == 0o600


def test_a_key_that_is_there_stays(tmp_path):
    files = ThingFiles(tmp_path, "gw-1")
    write_identity(files)
    before = files.private_key.read_bytes()
    assert not write_identity(files)
    assert files.private_key.read_bytes() == before


def test_a_thing_name_that_could_leave_the_folder_is_refused(tmp_path):
    for name in ("../evil", "a/b", "", "x" * 129, "a b"):
        with pytest.raises(ProvisionError):
            write_identity(ThingFiles(tmp_path / "aws", name))
    assert not list(tmp_path.rglob("*.key"))


def test_a_file_that_is_no_key_is_said(tmp_path):
    (tmp_path / "gw-1.key").write_text("nonsense")
    with pytest.raises(ProvisionError, match="no private key"):
        write_identity(ThingFiles(tmp_path, "gw-1"))


def test_the_policy_allows_its_own_topics_and_nothing_else():
    document = policy("berlin", "gw", [FILLER], region="eu-central-1", account="123")
    arn = "arn:aws:iot:eu-central-1:123"
    allowed = {}
    for statement in document["Statement"]:
        resources = statement["Resource"]
        allowed[statement["Action"]] = [resources] if isinstance(resources, str) else resources
    assert allowed == {
        "iot:Connect": [f"{arn}:client/${{iot:Connection.Thing.ThingName}}"],
        "iot:Publish": [
            f"{arn}:topic/oee/v1/berlin/gateways/gw/backlog",
            f"{arn}:topic/oee/v1/berlin/gateways/gw/gap",
            f"{arn}:topic/oee/v1/berlin/gateways/gw/status",
            f"{arn}:topic/oee/v1/berlin/packaging/line-1/*/telemetry",
        ],
        "iot:RetainPublish": [f"{arn}:topic/oee/v1/berlin/gateways/gw/status"],
        "iot:Subscribe": [f"{arn}:topicfilter/oee/v1/berlin/gateways/gw/receipt"],
        "iot:Receive": [f"{arn}:topic/oee/v1/berlin/gateways/gw/receipt"],
    }
    assert document["Statement"][0]["Condition"] == {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}


def test_the_policy_lets_a_gateway_hear_commands_only_where_it_accepts_them():
    assert "command" not in json.dumps(policy("berlin", "gw", [FILLER]))
    document = policy("berlin", "gw", [FILLER], commands=True)
    allowed = [s["Action"] for s in document["Statement"] if "command" in json.dumps(s["Resource"])]
    assert allowed == ["iot:Subscribe", "iot:Receive"]


@pytest.mark.parametrize("lines", [1, 5, 40, 400])
def test_a_policy_fits_the_limit_of_aws_whatever_the_number_of_lines(lines):
    machines = [MachineKey("berlin", f"area-{n % 30}", f"line-{n}", "m") for n in range(lines)]
    text = json.dumps(policy("berlin", "gw", machines), separators=(",", ":"))
    assert len(text) <= MAX_POLICY_CHARACTERS


def test_the_uplink_table_is_a_configuration(tmp_path):
    files = ThingFiles(tmp_path, "gw-1")
    write_identity(files)
    files.certificate.write_text("later")
    head = f'[gateway]\nname = "gw"\nsite = "berlin"\ndata_dir = "{tmp_path}"\n'
    (tmp_path / "gateway.toml").write_text(head + uplink_table(files, "x-ats.iot.eu-central-1.amazonaws.com"))
    [uplink] = config.load(tmp_path / "gateway.toml").uplink
    assert (uplink.kind, uplink.thing) == ("aws_iot", "gw-1")
    assert uplink.private_key_file == files.private_key


@pytest.fixture
def aws(monkeypatch):
    """A server of moto's on loopback, reached by boto3 as AWS is."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import boto3

    iot = boto3.client("iot")
    yield iot
    iot.close()
    server.stop()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thing_is_registered_with_certificate_and_policy_and_repeating_is_safe(tmp_path, aws):
    files = ThingFiles(tmp_path, "gw-1")
    write_identity(files)
    made = register(files, "berlin", "gw", [FILLER], None)
    assert made.new_certificate
    assert made.region == "eu-central-1"
    assert "BEGIN CERTIFICATE" in files.certificate.read_text()
    assert aws.list_thing_principals(thingName="gw-1")["principals"] == [made.certificate_arn]
    [attached] = aws.list_attached_policies(target=made.certificate_arn)["policies"]
    stored = json.loads(aws.get_policy(policyName=attached["policyName"])["policyDocument"])
    assert stored == json.loads(files.policy.read_text())
    assert made.account in stored["Statement"][0]["Resource"]

    certificate = files.certificate.read_text()
    for version in range(7):
        machines = [FILLER, MachineKey("berlin", "packaging", f"line-{version}", "x")]
        again = register(files, "berlin", "gw", machines, None)
        assert not again.new_certificate
        assert again.certificate_arn == made.certificate_arn
    assert files.certificate.read_text() == certificate
    stored = json.loads(aws.get_policy(policyName=attached["policyName"])["policyDocument"])
    assert any("line-6" in resource for resource in stored["Statement"][1]["Resource"])
    assert len(aws.list_policy_versions(policyName=attached["policyName"])["policyVersions"]) <= 5
    assert len(aws.list_thing_principals(thingName="gw-1")["principals"]) == 1


def test_what_aws_says_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files = ThingFiles(tmp_path, "gw-1")
    write_identity(files)
    with pytest.raises(ProvisionError, match="AWS says"):
        register(files, "berlin", "gw", [], "eu-central-1")


def test_the_command_writes_everything_without_aws(tmp_path, capsys):
    code = commands.provision(tmp_path, "gw-1", site="berlin", gateway="gw")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gw-1.csr",
        "gw-1.key",
        "gw-1.policy.json",
        "gw-1.uplink.toml",
    ]
    assert "have the request signed" in capsys.readouterr().out
    assert commands.provision(tmp_path, "gw-1") == 2
    assert commands.provision(tmp_path, "../x", site="berlin", gateway="gw") == 1


def test_the_systemd_unit_waits_for_our_words():
    unit = Path("config/systemd/oee-gateway.service").read_text()
    for line in ("Type=notify", "WatchdogSec=30", "Restart=always", "RestartMaxDelaySec=60"):
        assert line in unit.splitlines()
    assert "ExecStart=/opt/oee/bin/oee gateway run --config /etc/oee/gateway.toml" in unit


def test_no_private_key_is_in_a_request(tmp_path):
    files = ThingFiles(tmp_path, "gw-1")
    write_identity(files)
    done = subprocess.run(
        ["openssl", "req", "-in", files.request, "-noout", "-verify"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"PRIVATE" not in files.request.read_bytes()
