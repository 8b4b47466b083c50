"""What clients trust: files without a key, and real programs read them."""

import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from sigward.ca import CertificateAuthority
from sigward.errors import CaError
from sigward.trust import TRUSTSTORE_PASSWORD, Trust
from tests.needs import need

NAMES = ("ca.pem", "bundle.pem", "truststore.p12", "sigward.ini", "wgetrc", "wget2rc")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "config" / "ca")


@pytest.fixture
def trust(authority: CertificateAuthority, tmp_path: Path) -> Trust:
    made = Trust(tmp_path / "shared" / "trust")
    made.write(authority)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everybody_may_read_them_whatever_the_umask(authority: CertificateAuthority, tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust")
    before = os.umask(0o077)
    try:
        trust.write(authority)
    finally:
        os.umask(before)
    assert mode(trust.directory) == 0o755
    assert {path.name: mode(path) for path in trust.directory.iterdir()} == dict.fromkeys(NAMES, 0o644)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_key_is_among_them(authority: CertificateAuthority, trust: Trust) -> None:
    """An application's container mounts this directory and no other."""
    pem = authority.key_file.read_text()
    secret = pem.partition("-----BEGIN EC PRIVATE KEY-----")[2].split()[0]
    for path in trust.directory.iterdir():
        content = path.read_bytes()
        assert b"PRIVATE KEY" not in content
        assert secret.encode() not in content
    from cryptography.hazmat.primitives.serialization import pkcs12

    store = pkcs12.load_pkcs12(trust.truststore.read_bytes(), TRUSTSTORE_PASSWORD.encode())
    assert store.key is None


def subjects(file: Path) -> list[str]:
    context = ssl.create_default_context(cafile=str(file))
    return [str(dict(part[0] for part in certificate["subject"]).get("commonName")) for certificate in context.get_ca_certs()]


def test_what_is_in_them(trust: Trust) -> None:
    assert subjects(trust.certificate) == ["sigward CA"]
    assert len(subjects(trust.bundle)) > 20, "the system's roots are there"
    assert subjects(trust.bundle).count("sigward CA") == 1


def test_java_reads_the_truststore(trust: Trust) -> None:
    keytool = need("keytool")
    command = [keytool, "-list", "-v", "-keystore", str(trust.truststore), "-storepass", TRUSTSTORE_PASSWORD]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}).stdout
    assert told.count("Entry type: trustedCertEntry") == trust.bundle.read_text().count("BEGIN CERTIFICATE")
    assert told.count("Owner: O=sigward, CN=sigward CA") == 1
    assert "PrivateKeyEntry" not in told


def test_php_reads_the_ini_and_its_own(trust: Trust) -> None:
    need("php")
    script = "echo ini_get('openssl.cafile'), '|', ini_get('curl.cainfo'), '|', php_ini_scanned_files();"

    def told(**variables: str) -> list[str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PHP_INI_SCAN_DIR", "SSL_CERT_FILE")}
        return subprocess.run(["php", "-r", script], env=kept | variables, capture_output=True, text=True, check=True).stdout.split("|")

    own = told()[2]
    cafile, _, scanned = told(PHP_INI_SCAN_DIR=f":{trust.directory}", SSL_CERT_FILE=str(trust.bundle))
    assert cafile == str(trust.bundle)
    assert own.strip() in scanned
    assert str(trust.php_ini) in scanned
    assert told(PHP_INI_SCAN_DIR=f":{trust.directory}")[0] == ""


def test_what_is_right_stays_untouched(authority: CertificateAuthority, trust: Trust) -> None:
    before = {path: path.stat().st_ino for path in trust.directory.iterdir()}
    trust.write(authority)
    assert {path: path.stat().st_ino for path in trust.directory.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_comes_back(name: str, authority: CertificateAuthority, trust: Trust) -> None:
    (trust.directory / name).unlink()
    trust.write(authority)
    assert (trust.directory / name).stat().st_size > 0


def test_a_new_ca_is_trusted_in_the_old_ones_place(authority: CertificateAuthority, trust: Trust) -> None:
    before = {path.name: path.read_bytes() for path in trust.directory.iterdir()}
    authority.renew()
    trust.write(authority)
    for path in (trust.certificate, trust.bundle, trust.truststore):
        assert path.read_bytes() != before[path.name], path.name
    assert subjects(trust.bundle).count("sigward CA") == 1


def test_the_bundle_keeps_what_the_person_trusts(
    authority: CertificateAuthority, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's own root, named by a variable that `sigward run` puts the bundle's name in."""
    other = CertificateAuthority(tmp_path / "company")
    other.ensure()
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other.certificate_file))
        trust.write(authority)
        assert other.certificate_file.read_text().strip() in trust.bundle.read_text()
        monkeypatch.delenv(name)


def test_the_bundle_does_not_grow_when_it_is_trusted_itself(
    authority: CertificateAuthority, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sigward run -- sigward run -- …`"""
    size = trust.bundle.stat().st_size
    monkeypatch.setenv("SSL_CERT_FILE", str(trust.bundle))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trust.bundle))
    trust.write(authority)
    assert trust.bundle.stat().st_size == size


def test_a_place_that_cannot_be(authority: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaError, match="trust_dir") as caught:
        Trust(tmp_path / "file" / "trust").write(authority)
    assert "--trust-dir" in caught.value.hint
