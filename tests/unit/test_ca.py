"""The CA: made once, private, limited, and what mitmproxy takes."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from mitmproxy.certs import CertStore

from sigward import _core
from sigward.ca import CertificateAuthority, subtree, write_new
from sigward.errors import CaError
from sigward.front import load_authority


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


def issuing(authority: CertificateAuthority) -> x509.Certificate:
    return x509.load_pem_x509_certificates(authority.key_file.read_bytes())[0]


def root(authority: CertificateAuthority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.certificate_file.read_bytes())


def subtrees(authority: CertificateAuthority) -> list[str]:
    limits = issuing(authority).extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value.excluded_subtrees is None
    return [str(name.value) for name in limits.value.permitted_subtrees or ()]


def test_key_and_certificates(authority: CertificateAuthority) -> None:
    key = serialization.load_pem_private_key(authority.key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert issuing(authority).public_key() == key.public_key()
    assert issuing(authority).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "sigward issuing CA"
    assert root(authority).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "sigward CA"
    for certificate, length in ((root(authority), 1), (issuing(authority), 0)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=length)
    issuing(authority).verify_directly_issued_by(root(authority))


def test_an_rsa_key(tmp_path: Path) -> None:
    """For clients that know no ECDSA; only a CA made anew has one."""
    authority = CertificateAuthority(tmp_path / "ca", key="rsa2048")
    authority.ensure()
    assert not authority.has_other_key()
    for certificate in (issuing(authority), root(authority)):
        public = certificate.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        assert public.key_size == 2048
    issuing(authority).verify_directly_issued_by(root(authority))
    assert not CertificateAuthority(authority.directory).has_other_key(), "mitmproxy's CA has an RSA key, and may be used"
    CertificateAuthority(authority.directory).renew()
    assert authority.has_other_key()


def test_the_roots_key_is_nowhere(authority: CertificateAuthority) -> None:
    """With it, one could make a CA that nothing limits."""
    keys = [path for path in authority.directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [authority.key_file]
    assert authority.key_file.read_bytes().count(b"BEGIN EC PRIVATE KEY") == 1


def test_it_vouches_for_aws_and_this_host_alone(authority: CertificateAuthority) -> None:
    assert subtrees(authority) == [*_core.aws_domains(), "localhost", "127.0.0.0/8", "::1/128"]


@pytest.mark.fault("the power fails while a key is made", holds="the key is whole on the disk, or there is none")
@pytest.mark.parametrize("replace", [True, False])
def test_a_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    key, synced = tmp_path / "key", []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), key.exists(), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_new(key, b"secret", 0o600, replace=replace)
    (file, named, size), (folder, named_then, _) = synced
    assert (Path(file).parent, named, size) == (tmp_path, False, 6)
    assert (folder, named_then) == (str(tmp_path), True)


def test_aws_domains_are_botocores() -> None:
    import botocore.session

    data = botocore.session.Session().get_component("data_loader").load_data("partitions")
    found = {partition["outputs"][name] for partition in data["partitions"] for name in ("dnsSuffix", "dualStackDnsSuffix")}
    # Lambda's URLs are in no rule set.
    assert set(_core.aws_domains()) == found | {"on.aws"}


def test_names_of_ones_own(tmp_path: Path) -> None:
    names = ("internal.example", "s3.eu-west-1.amazonaws.com", "*", "10.0.0.7", "a.internal.example")
    authority = CertificateAuthority(tmp_path / "ca", names)
    authority.ensure()
    assert subtrees(authority)[-2:] == ["internal.example", "10.0.0.7/32"]
    engine = _core.Engine("{}")
    try:
        assert engine.load_authority(str(authority.key_file))
        for host in (
            "search.internal.example",
            "internal.example",
            "sqs.us-east-1.amazonaws.com",
            "f.lambda-url.us-east-1.on.aws",
            "10.0.0.7",
        ):
            assert engine.vouches_for(host), host
        for host in ("localhost", "127.0.0.9", "::1", "[::1]"):
            assert engine.vouches_for(host), host
        for host in ("internal.example.org", "evilinternal.example", "amazonaws.com.evil.test", "10.0.0.8", "2001:db8::1", "*"):
            assert not engine.vouches_for(host), host
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("search.internal.example", "search.internal.example"),
        ("Search.Internal.Example.", "search.internal.example"),
        ("*.internal.example", "internal.example"),
        ("search-*.internal.example", "internal.example"),
        ("*-search.eu.internal.example", "eu.internal.example"),
        ("*internal.example", None),
        ("s3.*.amazonaws.com", "amazonaws.com"),
        ("a.*.b.*.internal.example", "internal.example"),
        ("search", "search"),
        ("10.0.0.7", "10.0.0.7"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("*", None),
        ("*.internal", None),
        ("s3.*", None),
        ("größe.example", None),
    ],
)
def test_what_a_constraint_says_of_a_routes_host(pattern: str, expected: str | None) -> None:
    assert subtree(pattern) == expected


def test_mitmproxy_issues_leaves_that_verify(authority: CertificateAuthority) -> None:
    store = CertStore.from_store(authority.directory, "mitmproxy", 2048)
    entry = store.get_cert("sqs.us-east-1.amazonaws.com", [x509.DNSName("sqs.us-east-1.amazonaws.com")])
    entry.cert.to_cryptography().verify_directly_issued_by(issuing(authority))
    assert issuing(authority) in [certificate.to_cryptography() for certificate in entry.chain_certs]


def limitless(authority: CertificateAuthority) -> None:
    """As sigward once made them, and mitmproxy does."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(root(authority).not_valid_before_utc)
        .not_valid_after(root(authority).not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    authority.key_file.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))


def test_one_without_limits_is_used_on_with_advice(authority: CertificateAuthority, caplog: pytest.LogCaptureFixture) -> None:
    limitless(authority)
    authority.ensure()
    assert "old CA" in root(authority).subject.rfc4514_string()
    engine = _core.Engine("{}")
    try:
        load_authority(engine, authority.directory)
        assert engine.vouches_for("any.example")
    finally:
        engine.close()
    assert "sigward ca renew" in caplog.text


def test_a_new_one_in_its_place(authority: CertificateAuthority) -> None:
    limitless(authority)
    CertificateAuthority(authority.directory, ("internal.example",)).renew()
    assert mode(authority.key_file) == 0o600
    assert "internal.example" in subtrees(authority)
    assert root(authority).subject == x509.load_pem_x509_certificates(authority.key_file.read_bytes())[-1].subject
    issuing(authority).verify_directly_issued_by(root(authority))


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
