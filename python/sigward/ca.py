"""sigward's own certificate authority: made once, in the layout that mitmproxy reads.

The key signs leaf certificates for the AWS hosts that clients reach through an intercepted CONNECT. Whoever has it can stand in
for any host towards whoever trusts it, so it is readable by its owner alone, and nothing that is not is used.
"""

import contextlib
import datetime
import os
import re
import ssl
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sigward.errors import CaError

LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class CertificateAuthority:
    """`directory`: where its files lie; made with mode 0700 if missing."""

    directory: Path

    @property
    def key_file(self) -> Path:
        """Private key and certificate, PEM, mode 0600."""
        return self.directory / "mitmproxy-ca.pem"

    @property
    def certificate_file(self) -> Path:
        """The certificate alone, PEM: what clients trust."""
        return self.directory / "mitmproxy-ca-cert.pem"

    @property
    def bundle_file(self) -> Path:
        """The system's roots and the certificate, PEM: for clients that take one file for all."""
        return self.directory / "bundle.pem"

    def exists(self) -> bool:
        """True if there is a key."""
        return self.key_file.exists()

    def ensure(self) -> None:
        """Makes the CA if there is none, and checks the one there is. Raises `CaError`."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.key_file.exists():
                self._create()
            self._check()
            certificate = self._certificate_pem()
            if not self.certificate_file.exists() or self.certificate_file.read_text() != certificate:
                write_new(self.certificate_file, certificate.encode(), 0o644)
        except OSError as error:
            raise CaError(
                f"the CA in {self.directory} cannot be used: {error}.",
                hint="Choose a directory of your own with --ca-dir.",
            ) from error

    def write_bundle(self) -> Path:
        """Writes the system's roots with the certificate behind them. Raises `CaError`."""
        self.ensure()
        own = self.certificate_file.read_text().strip()
        # By certificate: the bundle itself may be what a variable names, as in `sigward run -- sigward run`.
        bundle = "\n".join(dict.fromkeys([*(root for root in trusted_roots() if root != own), own])) + "\n"
        if not self.bundle_file.exists() or self.bundle_file.read_text() != bundle:
            write_new(self.bundle_file, bundle.encode(), 0o644)
        return self.bundle_file

    def _check(self) -> None:
        mode = stat.S_IMODE(self.directory.stat().st_mode)
        if mode & 0o022:
            # Whoever can write there can put a key of their own in its place.
            raise CaError(f"others can write to the CA's directory {self.directory} (mode {mode:04o}).", hint=f"chmod 700 {self.directory}")
        mode = stat.S_IMODE(self.key_file.stat().st_mode)
        if mode & 0o077:
            raise CaError(
                f"the CA key {self.key_file} can be read by others (mode {mode:04o}).",
                hint=f"chmod 600 {self.key_file}",
            )

    def _certificate_pem(self) -> str:
        pem = self.key_file.read_text()
        start, end = pem.find("-----BEGIN CERTIFICATE-----"), pem.find("-----END CERTIFICATE-----")
        if start < 0 or end < start or "PRIVATE KEY-----" not in pem:
            raise CaError(
                f"{self.key_file} does not hold a private key and a certificate.",
                hint="Move the file away; sigward makes a new CA, which clients must trust anew.",
            )
        return pem[start : end + len("-----END CERTIFICATE-----")] + "\n"

    def _create(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "sigward CA"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sigward"),
            ]
        )
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
            key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        # Of two processes that start at once, the first one's CA stays.
        with contextlib.suppress(FileExistsError):
            write_new(self.key_file, secret + certificate.public_bytes(serialization.Encoding.PEM), 0o600, replace=False)


def write_new(path: Path, content: bytes, mode: int, *, replace: bool = True) -> None:
    """Writes a file whole or not at all, with its mode from the first byte. Raises FileExistsError unless `replace`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# Bundles of the person's own, with what a company's network needs; programs behind sigward get ours in their place.
PERSONAL = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


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
