"""Own and foreign OPC UA application certificates: made, renewed, trusted, rejected."""

import contextlib
import datetime as dt
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import CertificateError

_KEY_BITS: Final = 2048
_MAX_REJECTED: Final = 100
_PREFIX_LENGTH: Final = 6
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")

Shelf = Literal["trusted", "rejected"]


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The gateway's application certificate with its key.

    file, key_file: DER certificate and PEM key
    renewed: it was made or renewed just now, so that servers have yet to trust it
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    file: Path
    key_file: Path
    renewed: bool


@dataclass(frozen=True, slots=True)
class ShelvedCertificate:
    """A foreign certificate that we have seen.

    thumbprint: SHA-1 of the DER form in hexadecimal, as OPC UA names certificates
    fault: why it was rejected, when it was; empty otherwise
    """

    thumbprint: str
    subject: str
    application_uri: str
    not_after: dt.datetime
    shelf: Shelf
    file: Path
    fault: str = ""


class CertificateStore:
    """The folder `pki`: own/, trusted/, revoked/ (revocation lists) and rejected/.

    A trusted certificate that is an authority's also trusts what the authority has signed and not revoked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trusted = folder / "trusted"
        self._rejected = folder / "rejected"
        self._revoked = folder / "revoked"

    def own(
        self, application_uri: str, *, valid_days: int, renew_before_days: int, now: dt.datetime
    ) -> OwnCertificate:
        """Return our certificate; made when there is none, renewed when nearly over or for another URI.

        Renewal keeps the key. Raises CertificateError when the folder cannot be used.
        """
        folder = self.folder / "own"
        file, key_file = folder / "gateway.der", folder / "gateway.key.pem"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            key = _load_key(key_file) if key_file.exists() else _make_key(key_file)
            if file.exists():
                known = x509.load_der_x509_certificate(file.read_bytes())
                if _still_good(known, key, application_uri, now + dt.timedelta(days=renew_before_days)):
                    return OwnCertificate(known, key, file, key_file, renewed=False)
            made = _self_signed(key, application_uri, now, valid_days)
            _write(file, made.public_bytes(serialization.Encoding.DER), 0o644)
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"{folder}: our own certificate cannot be used or made: {error}"
            ) from error
        return OwnCertificate(made, key, file, key_file, renewed=True)

    def check(
        self, der: bytes, application_uri: str, now: dt.datetime, *, host: str = ""
    ) -> x509.Certificate:
        """Return a server's certificate when it may be trusted.

        Else it is kept in rejected/ for approval, and CertificateError is raised.

        der: the certificate, possibly followed by those of its issuers
        application_uri: what the server calls itself
        host: where we reach it; a certificate that is trusted for its authority's sake alone must be of this
            host, or any machine of that authority could stand in for any other. Empty asks for none.
        """
        if not der:
            raise CertificateError("the server shows no certificate")
        try:
            chain = _chain(der)
        except ValueError as error:
            raise CertificateError(f"the server's certificate cannot be read: {error}") from error
        certificate = chain[0]
        fault = self._fault(chain, application_uri, now, host)
        if fault is None:
            return certificate
        self._reject(certificate, fault)
        raise CertificateError(
            f"the server's certificate {thumbprint(certificate)} ({certificate.subject.rfc4514_string()}) "
            f"is refused: {fault}"
        )

    def shelved(self) -> list[ShelvedCertificate]:
        """Return all foreign certificates, trusted ones first."""
        return [*self._on("trusted"), *self._on("rejected")]

    def trust(self, name: str) -> ShelvedCertificate:
        """Trust a rejected certificate named by the start of its thumbprint, or one in a DER or PEM file.

        Raises CertificateError when that names none or several.
        """
        path = Path(name)
        if path.is_file():
            try:
                certificate = _load(path.read_bytes())
            except (OSError, ValueError) as error:
                raise CertificateError(f"{path}: is no certificate: {error}") from error
        else:
            certificate = _load(self._named(name, "rejected").file.read_bytes())
        self._put(self._trusted, certificate)
        for known in self._on("rejected"):
            if known.thumbprint == thumbprint(certificate):
                known.file.unlink(missing_ok=True)
                known.file.with_suffix(".txt").unlink(missing_ok=True)
        return next(known for known in self._on("trusted") if known.thumbprint == thumbprint(certificate))

    def reject(self, name: str) -> ShelvedCertificate:
        """Stop trusting a certificate named by the start of its thumbprint; it is kept in rejected/.

        A rejected one is removed. Raises CertificateError when the name names none or several.
        """
        try:
            found = self._named(name, "trusted")
        except CertificateError:
            found = self._named(name, "rejected")
            found.file.unlink(missing_ok=True)
            found.file.with_suffix(".txt").unlink(missing_ok=True)
            return found
        self._reject(_load(found.file.read_bytes()), "trust was withdrawn")
        found.file.unlink(missing_ok=True)
        return found

    def _fault(
        self, chain: list[x509.Certificate], application_uri: str, now: dt.datetime, host: str
    ) -> str | None:
        """Return why a certificate may not be trusted; None when it may."""
        certificate = chain[0]
        if fault := _fault_by_itself(certificate, now):
            return fault
        if application_uri and uri_of(certificate) != application_uri:
            said = uri_of(certificate) or "none"
            return f"it is of the application {said}, the server calls itself {application_uri}"
        trusted = {thumbprint(known): known for known in self._certificates(self._trusted)}
        for position, link in enumerate(chain):
            if fault := self._revocation(link, [*chain, *trusted.values()]):
                return fault
            if thumbprint(link) in trusted:
                return _elsewhere(certificate, host) if position else None
            issuer = next((i for i in trusted.values() if _is_authority(i) and _issued(i, link)), None)
            if issuer is not None:
                return _expired(issuer, now) or _elsewhere(certificate, host)
            following = chain[position + 1] if position + 1 < len(chain) else None
            if following is None or not (_is_authority(following) and _issued(following, link)):
                break
        return "nobody has trusted it yet; see `oee gateway trust list`"

    def _revocation(self, certificate: x509.Certificate, known: list[x509.Certificate]) -> str | None:
        for path in sorted(self._revoked.glob("*")) if self._revoked.is_dir() else []:
            try:
                content = path.read_bytes()
                pem = content.lstrip().startswith(b"-----BEGIN")
                revoked = x509.load_pem_x509_crl(content) if pem else x509.load_der_x509_crl(content)
            except (OSError, ValueError) as error:
                return f"the revocation list {path} cannot be read: {error}"
            if revoked.issuer != certificate.issuer:
                continue
            signers = [one for one in known if one.subject == revoked.issuer and _is_authority(one)]
            if not any(_signed_list(revoked, one) for one in signers):
                continue
            if revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return f"its issuer has revoked it ({path.name})"
        return None

    def _reject(self, certificate: x509.Certificate, fault: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hide the refusal itself
            path = self._put(self._rejected, certificate)
            path.with_suffix(".txt").write_text(fault + "\n", encoding="utf-8")
            oldest = sorted(self._rejected.glob("*.der"), key=lambda one: one.stat().st_mtime)
            for surplus in oldest[:-_MAX_REJECTED]:
                surplus.unlink(missing_ok=True)
                surplus.with_suffix(".txt").unlink(missing_ok=True)

    @staticmethod
    def _put(folder: Path, certificate: x509.Certificate) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        common = _UNSAFE.sub("_", str(names[0].value))[:64].strip("._") if names else "unnamed"
        path = folder / f"{common or 'unnamed'}.{thumbprint(certificate)}.der"
        _write(path, certificate.public_bytes(serialization.Encoding.DER), 0o644)
        return path

    def _on(self, shelf: Shelf) -> Iterator[ShelvedCertificate]:
        folder = self._trusted if shelf == "trusted" else self._rejected
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            try:
                certificate = _load(path.read_bytes())
            except (OSError, ValueError):
                continue
            note = path.with_suffix(".txt")
            yield ShelvedCertificate(
                thumbprint=thumbprint(certificate),
                subject=certificate.subject.rfc4514_string(),
                application_uri=uri_of(certificate),
                not_after=certificate.not_valid_after_utc,
                shelf=shelf,
                file=path,
                fault=note.read_text(encoding="utf-8").strip() if note.is_file() else "",
            )

    def _named(self, name: str, shelf: Shelf) -> ShelvedCertificate:
        start = name.replace(":", "").strip().lower()
        found = [one for one in self._on(shelf) if one.thumbprint.startswith(start)]
        if len(start) < _PREFIX_LENGTH or not re.fullmatch(r"[0-9a-f]+", start):
            raise CertificateError(
                f"{name!r}: give at least {_PREFIX_LENGTH} digits of a thumbprint, or a file"
            )
        if len(found) != 1:
            raise CertificateError(f"{name}: names {len(found)} {shelf} certificates")
        return found[0]

    @staticmethod
    def _certificates(folder: Path) -> Iterator[x509.Certificate]:
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            with contextlib.suppress(OSError, ValueError):
                yield _load(path.read_bytes())


def thumbprint(certificate: x509.Certificate) -> str:
    """Return the SHA-1 of a certificate, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - a name, not a proof; OPC UA's choice


def uri_of(certificate: x509.Certificate) -> str:
    """Return the application URI that a certificate carries; empty for none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return str(uris[0]) if uris else ""


def _fault_by_itself(certificate: x509.Certificate, now: dt.datetime) -> str | None:
    if fault := _expired(certificate, now):
        return fault
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return "its key is not RSA, which these security policies need"
    if not _KEY_BITS <= key.key_size <= 2 * _KEY_BITS:
        return f"its key has {key.key_size} bits; {_KEY_BITS} to {2 * _KEY_BITS} are allowed"
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name in ("md5", "sha1"):
        return "it is signed with a broken hash"
    return None


def _expired(certificate: x509.Certificate, now: dt.datetime) -> str | None:
    if now > certificate.not_valid_after_utc:
        return f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"it is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
    return None


def _elsewhere(certificate: x509.Certificate, host: str) -> str | None:
    """Return that a certificate is of another host; None when it is of this one, or none is asked for."""
    names = _hosts_of(certificate)
    if not host or host.lower().rstrip(".") in names:
        return None
    said = ", ".join(names) or "no host"
    return f"its authority is trusted, but it was made for {said}, not for the host {host}"


def _hosts_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)] + list(map(str, addresses))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _signed_list(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return isinstance(key, rsa.RSAPublicKey) and revoked.is_signature_valid(key)


def _chain(der: bytes) -> list[x509.Certificate]:
    """Split certificates that follow each other; raise ValueError when the first is none."""
    found: list[x509.Certificate] = []
    rest = der
    while rest[:1] == b"\x30" and len(rest) > 4 and len(found) < 10:
        if rest[1] < 0x80:
            size = rest[1] + 2
        else:
            count = rest[1] & 0x7F
            size = int.from_bytes(rest[2 : 2 + count], "big") + 2 + count
        found.append(x509.load_der_x509_certificate(rest[:size]))
        rest = rest[size:]
    if not found:
        raise ValueError("no DER sequence")
    return found


def _load(content: bytes) -> x509.Certificate:
    if content.lstrip().startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(content)
    return _chain(content)[0]


def _load_key(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{path} is no RSA key")  # noqa: TRY004 - a bad file, not a bad call
    return key


def _make_key(path: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=_KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, pem, 0o600)
    return key


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place whole, with its permissions from the first byte on."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _still_good(
    certificate: x509.Certificate, key: rsa.RSAPrivateKey, application_uri: str, until: dt.datetime
) -> bool:
    return (
        certificate.public_key() == key.public_key()
        and uri_of(certificate) == application_uri
        and certificate.not_valid_after_utc > until
    )


def _self_signed(
    key: rsa.RSAPrivateKey, application_uri: str, now: dt.datetime, valid_days: int
) -> x509.Certificate:
    """Make an application certificate as OPC UA part 6 wants it."""
    host = socket.gethostname()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"oee-gateway@{host}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "oee-gateway"),
        ]
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(application_uri)]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_cert_sign=True,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=valid_days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
