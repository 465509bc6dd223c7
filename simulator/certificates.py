"""The simulated PLC's own certificate, so that the secured way of reading it can be tried."""

import asyncio
import ipaddress
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

APPLICATION_URI: Final = "urn:oee-gateway:simulated-factory:plcs"
"""What all simulated PLCs call themselves, as their certificate has to."""
_DAYS = 365


async def own(folder: Path | None, host: str) -> tuple[Path, Path]:
    """Return certificate and private key (PEM) of the PLCs, made where they are missing or of another name.

    folder: keeps them from start to start; None: a temporary one
    """
    place = Path(tempfile.mkdtemp(prefix="simulated-plc-")) if folder is None else folder
    certificate, private_key = place / "plc-certificate.pem", place / "plc-private-key.pem"
    if not private_key.exists() or not await asyncio.to_thread(_is_ours, certificate):
        place.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_make, certificate, private_key, host)
    return certificate, private_key


def _is_ours(path: Path) -> bool:
    from cryptography import x509

    if not path.exists():
        return False
    names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return names.value.get_values_for_type(x509.UniformResourceIdentifier) == [APPLICATION_URI]


def _make(certificate_path: Path, private_key_path: Path, host: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated PLC")])
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(APPLICATION_URI),
        x509.DNSName("localhost"),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    now = datetime.now(UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    private_key_path.touch(mode=0o600)
    private_key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
