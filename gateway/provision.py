"""A thing for AWS IoT Core: key, certificate request, least-privilege policy, configuration, registration."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contract import topics
from contract.machine_key import MachineKey
from gateway.errors import ProvisionError

MAX_POLICY_CHARACTERS: Final = 2048
"""AWS IoT Core's limit, white space left out."""

_MAX_POLICY_VERSIONS: Final = 5
_THING: Final = re.compile(r"[A-Za-z0-9:_-]{1,128}")


@dataclass(frozen=True, slots=True)
class ThingFiles:
    """Where a thing's files lie."""

    folder: Path
    thing: str

    @property
    def private_key(self) -> Path:
        """Return the private key's file; only its owner may read it."""
        return self.folder / f"{self.thing}.key"

    @property
    def request(self) -> Path:
        """Return the certificate signing request's file."""
        return self.folder / f"{self.thing}.csr"

    @property
    def certificate(self) -> Path:
        """Return where the certificate belongs once it is issued."""
        return self.folder / f"{self.thing}.crt"

    @property
    def policy(self) -> Path:
        """Return the policy's file, as for the region and account that are known."""
        return self.folder / f"{self.thing}.policy.json"

    @property
    def uplink(self) -> Path:
        """Return the file with the [[uplink]] table for gateway.toml."""
        return self.folder / f"{self.thing}.uplink.toml"


@dataclass(frozen=True, slots=True)
class Registration:
    """What AWS IoT Core now knows.

    new_certificate: False when the thing already had one here, which stays
    """

    endpoint: str
    account: str
    region: str
    certificate_arn: str | None
    new_certificate: bool


def write_identity(files: ThingFiles) -> bool:
    """Write private key and certificate request; return False when there is a key already, which stays."""
    if not _THING.fullmatch(files.thing):
        raise ProvisionError(f"{files.thing!r} is no name for a thing: use 1 to 128 of A-Z a-z 0-9 : _ -")
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        new = not files.private_key.exists()
        key = _new_key(files.private_key) if new else _read_key(files.private_key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, files.thing[:64])])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        files.request.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ProvisionError(f"{files.folder} cannot be written: {error.strerror or error}") from error
    return new


def policy(
    site: str,
    gateway: str,
    machines: Sequence[MachineKey] = (),
    *,
    region: str = "*",
    account: str = "*",
    partition: str = "aws",
    commands: bool = False,
) -> dict[str, Any]:
    """Return what a gateway may do and nothing else: be itself, publish its own, hear its receipts.

    machines: narrows telemetry to their lines where that fits AWS's limit, else to their areas or the site
    commands: also hear the cloud side's commands
    """
    heard: list[topics.GatewayChannel] = ["receipt", "command"] if commands else ["receipt"]
    arn = f"arn:{partition}:iot:{region}:{account}"
    own = {name: topics.gateway_topic(site, gateway, name) for name in _OWN_CHANNELS}
    for width in (3, 2, 1):
        places = sorted({tuple(machine[:width]) for machine in machines}) or [(site,)]
        stars = "/".join("*" * (4 - len(places[0])))
        telemetry = [f"{arn}:topic/{topics.PREFIX}/{'/'.join(place)}/{stars}/telemetry" for place in places]
        document = _document(arn, own, telemetry, heard)
        if len(json.dumps(document, separators=(",", ":"))) <= MAX_POLICY_CHARACTERS:
            return document
    raise ProvisionError("the names of site and gateway are too long for a policy of AWS IoT Core")


def uplink_table(files: ThingFiles, endpoint: str, *, name: str = "aws", acknowledge: str = "store") -> str:
    """Return the [[uplink]] table for gateway.toml."""
    return (
        "[[uplink]]\n"
        f'name = "{name}"\n'
        'kind = "aws_iot"\n'
        f'endpoint = "{endpoint}"\n'
        f'thing = "{files.thing}"\n'
        f'certificate_file = "{files.certificate.absolute()}"\n'
        f'private_key_file = "{files.private_key.absolute()}"\n'
        f'acknowledge = "{acknowledge}"\n'
    )


def register(
    files: ThingFiles,
    site: str,
    gateway: str,
    machines: Sequence[MachineKey],
    region: str | None,
    *,
    commands: bool = False,
) -> Registration:
    """Register the thing with the AWS credentials of this environment; safe to repeat.

    Writes the certificate and the policy as registered. Raises ProvisionError with what AWS says.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise ProvisionError("registering needs boto3: pip install oee-gateway[aws]") from error
    try:
        iot = boto3.client("iot", region_name=region)
        caller = boto3.client("sts", region_name=region).get_caller_identity()
        endpoint = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        region_name, account = iot.meta.region_name, caller["Account"]
        document = policy(
            site,
            gateway,
            machines,
            region=region_name,
            account=account,
            partition=caller["Arn"].split(":")[1],
            commands=commands,
        )
        files.policy.write_text(json.dumps(document, indent=2) + "\n")
        iot.create_thing(thingName=files.thing)
        name = _put_policy(iot, f"oee-gateway-{files.thing}".replace(":", "_"), document)
        if files.certificate.exists():
            arn = _attached_certificate(iot, files.thing)
            new = False
        else:
            issued = iot.create_certificate_from_csr(
                certificateSigningRequest=files.request.read_text(), setAsActive=True
            )
            files.certificate.write_text(issued["certificatePem"])
            arn, new = issued["certificateArn"], True
        if arn is not None:
            iot.attach_policy(policyName=name, target=arn)
            iot.attach_thing_principal(thingName=files.thing, principal=arn)
    except (BotoCoreError, ClientError) as error:
        raise ProvisionError(f"AWS says: {error}") from error
    except OSError as error:
        raise ProvisionError(f"{files.folder} cannot be written: {error}") from error
    return Registration(endpoint, account, region_name, arn, new)


_OWN_CHANNELS: Final[tuple[topics.GatewayChannel, ...]] = ("backlog", "gap", "status", "receipt", "command")


def _document(
    arn: str,
    own: Mapping[topics.GatewayChannel, str],
    telemetry: list[str],
    heard: Sequence[topics.GatewayChannel],
) -> dict[str, Any]:
    published = [f"{arn}:topic/{own['backlog']}", f"{arn}:topic/{own['gap']}", f"{arn}:topic/{own['status']}"]
    filters = [f"{arn}:topicfilter/{own[name]}" for name in heard]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": f"{arn}:client/${{iot:Connection.Thing.ThingName}}",
                "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": "true"}},
            },
            {"Effect": "Allow", "Action": "iot:Publish", "Resource": [*published, *telemetry]},
            {"Effect": "Allow", "Action": "iot:RetainPublish", "Resource": published[-1]},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": filters},
            {
                "Effect": "Allow",
                "Action": "iot:Receive",
                "Resource": [f"{arn}:topic/{own[name]}" for name in heard],
            },
        ],
    }


def _put_policy(iot: Any, name: str, document: dict[str, Any]) -> str:
    """Make the policy, or a new default version of it where it differs."""
    text = json.dumps(document, separators=(",", ":"))
    try:
        iot.create_policy(policyName=name, policyDocument=text)
    except iot.exceptions.ResourceAlreadyExistsException:
        if json.loads(iot.get_policy(policyName=name)["policyDocument"]) == document:
            return name
        versions = iot.list_policy_versions(policyName=name)["policyVersions"]
        spare = [version["versionId"] for version in versions if not version["isDefaultVersion"]]
        if len(versions) >= _MAX_POLICY_VERSIONS:
            iot.delete_policy_version(policyName=name, policyVersionId=min(spare, key=int))
        iot.create_policy_version(policyName=name, policyDocument=text, setAsDefault=True)
    return name


def _attached_certificate(iot: Any, thing: str) -> str | None:
    principals: list[str] = iot.list_thing_principals(thingName=thing)["principals"]
    return principals[0] if principals else None


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return key


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise ProvisionError(f"{path} is no private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ProvisionError(f"{path} is a key of another kind: move it away to have a new one made")
    return key
