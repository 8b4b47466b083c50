"""The CA: made once, private, and what mitmproxy and OpenSSL take."""

import os
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy.certs import CertStore

from sigward.ca import CertificateAuthority
from sigward.errors import CaError


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "config" / "ca")
    made.ensure()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        authority = CertificateAuthority(tmp_path / "a" / "ca")
        authority.ensure()
    finally:
        os.umask(before)
    assert (mode(authority.directory), mode(authority.key_file)) == (0o700, 0o600)
    assert [path.name for path in authority.directory.iterdir() if path.name.startswith(".")] == [], "temporary files are gone"


def test_key_and_certificate(authority: CertificateAuthority) -> None:
    pem = authority.key_file.read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    certificate = x509.load_pem_x509_certificate(authority.certificate_file.read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert certificate.public_key() == key.public_key()
    assert "CN=sigward CA" in certificate.subject.rfc4514_string()
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_the_certificate_file_holds_no_key(authority: CertificateAuthority) -> None:
    assert "PRIVATE" not in authority.certificate_file.read_text()
    assert "PRIVATE" not in authority.write_bundle().read_text()


def test_mitmproxy_issues_leaves_that_verify(authority: CertificateAuthority) -> None:
    store = CertStore.from_store(authority.directory, "mitmproxy", 2048)
    leaf = store.get_cert("sqs.us-east-1.amazonaws.com", [x509.DNSName("sqs.us-east-1.amazonaws.com")]).cert
    root = x509.load_pem_x509_certificate(authority.certificate_file.read_bytes())
    leaf.to_cryptography().verify_directly_issued_by(root)


def test_it_stays(authority: CertificateAuthority) -> None:
    before = authority.key_file.read_bytes()
    authority.ensure()
    assert authority.key_file.read_bytes() == before


def test_many_at_once_get_one(tmp_path: Path) -> None:
    """Threads, then processes, that all start with nothing there."""
    authority = CertificateAuthority(tmp_path / "ca")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: CertificateAuthority(authority.directory).ensure(), range(8)))
    script = (
        "import sys, pathlib; from sigward.ca import CertificateAuthority as A; "
        "a = A(pathlib.Path(sys.argv[1])); a.ensure(); print(a.certificate_file.read_text())"
    )
    place = str(tmp_path / "other")
    running = [subprocess.Popen([sys.executable, "-c", script, place], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate()[0] for process in running}
    assert len(told) == 1
    assert "BEGIN CERTIFICATE" in told.pop()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(authority: CertificateAuthority, bits: int) -> None:
    authority.key_file.chmod(bits)
    with pytest.raises(CaError, match="others") as caught:
        authority.ensure()
    assert caught.value.hint == f"chmod 600 {authority.key_file}"


def test_a_directory_that_others_can_write_to_is_refused(authority: CertificateAuthority) -> None:
    """Who can write there can put a key of their own in its place."""
    authority.directory.chmod(0o777)
    with pytest.raises(CaError, match="others") as caught:
        authority.ensure()
    assert caught.value.hint == f"chmod 700 {authority.directory}"


def test_a_damaged_file_is_refused_and_kept(authority: CertificateAuthority) -> None:
    authority.key_file.write_text("nonsense")
    authority.key_file.chmod(0o600)
    with pytest.raises(CaError, match="does not hold"):
        authority.ensure()
    assert authority.key_file.read_text() == "nonsense"


def test_the_certificate_file_comes_back(authority: CertificateAuthority) -> None:
    told = authority.certificate_file.read_text()
    authority.certificate_file.unlink()
    authority.ensure()
    assert authority.certificate_file.read_text() == told


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaError) as caught:
        CertificateAuthority(tmp_path / "file" / "ca").ensure()
    assert "--ca-dir" in caught.value.hint


def test_the_bundle_loads_and_holds_both(authority: CertificateAuthority) -> None:
    context = ssl.create_default_context(cafile=str(authority.write_bundle()))
    subjects = [dict(part[0] for part in certificate["subject"]) for certificate in context.get_ca_certs()]
    assert len(subjects) > 20, "the system's roots are there"
    assert sum(subject.get("commonName") == "sigward CA" for subject in subjects) == 1


def test_the_bundle_keeps_what_the_person_trusts(authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's own root, named by a variable that `sigward run` puts the bundle's name in."""
    other = CertificateAuthority(tmp_path / "company")
    other.ensure()
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other.certificate_file))
        assert other.certificate_file.read_text().strip() in authority.write_bundle().read_text()
        monkeypatch.delenv(name)


def test_the_bundle_does_not_grow_when_it_is_trusted_itself(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sigward run -- sigward run -- …`"""
    bundle = authority.write_bundle()
    size = bundle.stat().st_size
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert authority.write_bundle().stat().st_size == size
