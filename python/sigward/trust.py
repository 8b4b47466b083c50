"""What clients trust, in files of the forms that they read: `serve`, `run` and `env` write them, an application's container mounts them.

No private key is ever among them.
"""

import contextlib
import os
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path

from sigward.ca import CERTIFICATE, CertificateAuthority, write_new
from sigward.errors import CaError

TRUSTSTORE_PASSWORD = "changeit"  # noqa: S105 - Java's own for what is no secret
"""Of a file that everybody may read."""

# Bundles of the person's own, with what a company's network needs; programs behind sigward get ours in their place.
PERSONAL = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


# The variable, so that it holds wherever the directory is mounted; where it is not set, PHP trusts what it always does.
PHP_INI = """\
; What PHP trusts, by sigward. Read where PHP_INI_SCAN_DIR names this directory.
curl.cainfo = "${SSL_CERT_FILE}"
openssl.cafile = "${SSL_CERT_FILE}"
"""


@dataclass(frozen=True)
class Trust:
    """`directory`: where the files lie, mode 0755; they have 0644."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """The CA's certificate alone, PEM: for programs that add it to roots of their own."""
        return self.directory / "ca.pem"

    @property
    def bundle(self) -> Path:
        """The system's roots and the certificate, PEM: for programs that take one file for all."""
        return self.directory / "bundle.pem"

    @property
    def truststore(self) -> Path:
        """The same for Java, PKCS #12."""
        return self.directory / "truststore.p12"

    @property
    def php_ini(self) -> Path:
        """For PHP, which reads `*.ini` of the directories in PHP_INI_SCAN_DIR."""
        return self.directory / "sigward.ini"

    @property
    def wgetrc(self) -> Path:
        """For wget, which with GnuTLS (Debian) reads no variable that names a bundle."""
        return self.directory / "wgetrc"

    @property
    def wget2rc(self) -> Path:
        """The same for wget2."""
        return self.directory / "wget2rc"

    def write(self, authority: CertificateAuthority) -> None:
        """Makes the CA if there is none, and the files where they do not say what they should. Raises `CaError`."""
        authority.ensure()
        own = authority.certificate_file.read_text().strip()
        # By certificate: the bundle itself may be what a variable names, as in `sigward run -- sigward run`.
        certificates = list(dict.fromkeys([*(root for root in trusted_roots() if root != own), own]))
        files = {
            self.certificate: f"{own}\n",
            self.php_ini: PHP_INI,
            self.wgetrc: f"ca_certificate = {self.bundle.absolute()}\n",
            self.wget2rc: f"ca-certificate = {self.bundle.absolute()}\n",
            self.bundle: "\n".join(certificates) + "\n",
        }
        try:
            if self.truststore.is_file() and all(holds(path, text) for path, text in files.items()):
                return
            if not self.directory.is_dir():
                self.directory.mkdir(parents=True)
                self.directory.chmod(0o755)
            write_new(self.truststore, java_truststore(certificates), 0o644)
            # The bundle last: where it is right, the trust store is.
            for path, text in files.items():
                write_new(path, text.encode(), 0o644)
        except OSError as error:
            raise CaError(
                f"trust_dir: what clients trust cannot be written to {self.directory}: {error}.",
                hint="Choose a directory that can be written with --trust-dir.",
            ) from error


def holds(path: Path, text: str) -> bool:
    """True if that is what the file says."""
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False


def java_truststore(certificates: list[str]) -> bytes:
    """PKCS #12 as `keytool` would make it. `certificates`: PEM; those that cannot be read are left out, as Java does."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    entries = []
    with warnings.catch_warnings():
        # Old roots with serial numbers that RFC 5280 does not allow.
        warnings.simplefilter("ignore")
        for number, pem in enumerate(certificates, 1):
            with contextlib.suppress(ValueError):
                entries.append(pkcs12.PKCS12Certificate(x509.load_pem_x509_certificate(pem.encode()), f"root-{number}".encode()))
    return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode()))


def trusted_roots() -> list[str]:
    """Certificates, PEM, that the system trusts and that the person's own variables name."""
    places = [system_bundle(), *(os.environ[name] for name in PERSONAL if os.environ.get(name))]
    found: list[str] = []
    for place in places:
        with contextlib.suppress(OSError):
            found += CERTIFICATE.findall(Path(place).read_text(encoding="utf-8", errors="replace"))
    return found


def system_bundle() -> str:
    """Where OpenSSL, Debian or Fedora keep it, else certifi's."""
    openssl = ssl.get_default_verify_paths().openssl_cafile
    for place in (openssl, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"):
        if Path(place).is_file():
            return place
    try:
        import certifi
    except ImportError:
        return os.devnull
    return certifi.where()
