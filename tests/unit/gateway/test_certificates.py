"""Which certificates are trusted, which are kept for a decision, and how our own is made and renewed."""

import datetime as dt
import stat
from pathlib import Path

import pytest

from gateway.errors import CertificateError
from gateway.sources.certificates import CertificateStore, thumbprint, uri_of
from tests.support.certificates import Made, make, revoke

URI = "urn:test:plc:server"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def server() -> Made:
    return make("plc", uri=URI)


@pytest.fixture(scope="module")
def authority() -> Made:
    return make("plant authority", authority=True)


def test_an_unknown_certificate_is_refused_and_kept_for_a_decision(tmp_path: Path, server: Made) -> None:
    store = CertificateStore(tmp_path)
    with pytest.raises(CertificateError, match="nobody has trusted it yet"):
        store.check(server.der, URI, NOW)
    (kept,) = store.shelved()
    assert (kept.shelf, kept.thumbprint) == ("rejected", thumbprint(server.certificate))
    assert "nobody has trusted it" in kept.fault


def test_a_trusted_one_is_taken_until_trust_is_withdrawn(tmp_path: Path, server: Made) -> None:
    store = CertificateStore(tmp_path)
    with pytest.raises(CertificateError):
        store.check(server.der, URI, NOW)
    store.trust(thumbprint(server.certificate)[:8])
    assert store.check(server.der, URI, NOW) == server.certificate
    assert [one.shelf for one in store.shelved()] == ["trusted"]
    store.reject(thumbprint(server.certificate)[:8].upper())
    with pytest.raises(CertificateError):
        store.check(server.der, URI, NOW)
    assert [one.shelf for one in store.shelved()] == ["rejected"]
    store.reject(thumbprint(server.certificate)[:8])
    assert store.shelved() == []


def test_a_file_can_be_trusted_before_the_plc_was_ever_seen(tmp_path: Path, server: Made) -> None:
    store = CertificateStore(tmp_path / "pki")
    file, _ = server.save(tmp_path, "plc")
    store.trust(str(file))
    store.check(server.der, URI, NOW)


def test_what_an_authority_signed_is_trusted_with_it(tmp_path: Path, authority: Made) -> None:
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(authority.save(tmp_path, "authority")[0]))
    signed = make("plc", uri=URI, issuer=authority)
    store.check(signed.der, URI, NOW)
    store.check(signed.der + authority.der, URI, NOW)


def test_a_chain_over_an_intermediate_authority_is_followed(tmp_path: Path, authority: Made) -> None:
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(authority.save(tmp_path, "authority")[0]))
    between = make("line authority", issuer=authority, authority=True)
    signed = make("plc", uri=URI, issuer=between)
    store.check(signed.der + between.der, URI, NOW)
    with pytest.raises(CertificateError):
        store.check(signed.der, URI, NOW)


def test_a_trusted_machine_is_no_authority(tmp_path: Path, server: Made) -> None:
    """A stolen machine certificate must not vouch for others."""
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(server.save(tmp_path, "plc")[0]))
    forged = make("forged", uri=URI, issuer=server)
    with pytest.raises(CertificateError, match="nobody has trusted it"):
        store.check(forged.der, URI, NOW)
    with pytest.raises(CertificateError, match="nobody has trusted it"):
        store.check(forged.der + server.der, URI, NOW)


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        ("plc-1.plant", True),
        ("PLC-1.plant.", True),
        ("192.0.2.7", True),
        ("plc-2.plant", False),
        ("192.0.2.8", False),
    ],
)
def test_one_that_is_trusted_for_its_authority_is_of_the_host_that_it_was_made_for(
    tmp_path: Path, authority: Made, host: str, *, is_taken: bool
) -> None:
    """Else any machine of the plant could stand in for any other."""
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(authority.save(tmp_path, "authority")[0]))
    signed = make("plc", uri=URI, issuer=authority, hosts=["plc-1.plant", "192.0.2.7"])
    for der in (signed.der, signed.der + authority.der):
        if is_taken:
            store.check(der, URI, NOW, host=host)
        else:
            with pytest.raises(CertificateError, match=f"not for the host {host}"):
                store.check(der, URI, NOW, host=host)
    if not is_taken:
        store.trust(thumbprint(signed.certificate)[:10])
        store.check(signed.der, URI, NOW, host=host)


def test_a_revoked_one_is_refused_although_its_authority_is_trusted(tmp_path: Path, authority: Made) -> None:
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(authority.save(tmp_path, "authority")[0]))
    signed, other = make("plc", uri=URI, issuer=authority), make("plc 2", uri=URI, issuer=authority)
    (tmp_path / "pki" / "revoked").mkdir()
    (tmp_path / "pki" / "revoked" / "plant.crl").write_bytes(revoke(authority, signed))
    with pytest.raises(CertificateError, match="its issuer has revoked it"):
        store.check(signed.der, URI, NOW)
    store.check(other.der, URI, NOW)


def test_a_revocation_list_that_cannot_be_read_opens_no_door(tmp_path: Path, authority: Made) -> None:
    store = CertificateStore(tmp_path / "pki")
    store.trust(str(authority.save(tmp_path, "authority")[0]))
    (tmp_path / "pki" / "revoked").mkdir()
    (tmp_path / "pki" / "revoked" / "plant.crl").write_bytes(b"broken")
    with pytest.raises(CertificateError, match="cannot be read"):
        store.check(make("plc", uri=URI, issuer=authority).der, URI, NOW)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"not_after_days": -0.5, "not_before_days": -2}, "it expired on"),
        ({"not_before_days": 2}, "it is valid only from"),
        ({"bits": 1024}, "1024 bits"),
        ({"uri": "urn:somebody:else"}, "the server calls itself"),
    ],
)
def test_a_trusted_one_that_is_not_good_is_refused(tmp_path: Path, made: dict, said: str) -> None:
    store = CertificateStore(tmp_path / "pki")
    one = make("plc", **{"uri": URI, **made})
    store.trust(str(one.save(tmp_path, "plc")[0]))
    with pytest.raises(CertificateError, match=said):
        store.check(one.der, URI, NOW)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x03abc", b"hello"])
def test_nonsense_is_refused(tmp_path: Path, der: bytes) -> None:
    with pytest.raises(CertificateError):
        CertificateStore(tmp_path).check(der, URI, NOW)


def test_rejected_ones_do_not_fill_the_disk(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    one = make("flood", uri=URI)
    rejected = tmp_path / "rejected"
    rejected.mkdir()
    for n in range(150):
        (rejected / f"old{n}.der").write_bytes(one.der)
    with pytest.raises(CertificateError):
        store.check(one.der, URI, NOW)
    assert len(list(rejected.glob("*.der"))) == 100


def test_our_own_is_made_kept_and_renewed_in_time(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    first = store.own("urn:us", valid_days=100, renew_before_days=10, now=NOW)
    assert first.renewed
    assert uri_of(first.certificate) == "urn:us"
    assert stat.S_IMODE(first.key_file.stat().st_mode) == 0o600
    again = store.own("urn:us", valid_days=100, renew_before_days=10, now=NOW + dt.timedelta(days=80))
    assert (again.renewed, again.certificate) == (False, first.certificate)
    late = store.own("urn:us", valid_days=100, renew_before_days=10, now=NOW + dt.timedelta(days=91))
    assert late.renewed
    assert late.certificate.public_key() == first.certificate.public_key()
    moved = store.own("urn:us:too", valid_days=100, renew_before_days=10, now=NOW + dt.timedelta(days=91))
    assert (moved.renewed, uri_of(moved.certificate)) == (True, "urn:us:too")


@pytest.mark.parametrize("name", ["12", "zzzzzz", "ffffff", ""])
def test_a_name_that_means_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CertificateError):
        CertificateStore(tmp_path).trust(name)
