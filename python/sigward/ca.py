"""sigward's own certificate authority: made once, in the layout that mitmproxy reads.

Clients trust a root whose key is thrown away as soon as it has signed one thing: the certificate of the CA that issues leaves for the
hosts that clients reach through an intercepted CONNECT. That certificate's name constraints (RFC 5280, section 4.2.1.10) limit it to
AWS's domains, this host, and what routes name. They stand there and not in the root, because Java ignores those of a root.

Whoever has the issuing key can stand in for those hosts towards whoever trusts the root, so it is readable by its owner alone, and
nothing that is not is used. What clients read is `sigward.trust`'s.
"""

import contextlib
import datetime
import ipaddress
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sigward import _core
from sigward.errors import CaError
from sigward.file import check_home
from sigward.ownership import complaint

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LIFETIME = datetime.timedelta(days=3650)

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

RENEW = "`sigward ca renew` makes a CA for the routes of today, which clients must trust anew; `ca_names` adds names."

RENEW_KEY = "`sigward ca renew` makes a CA with a key of that kind, which clients must trust again."

NAME_DOMAINS = (
    "A CA can be limited to domains and addresses alone: name those that the pattern stands for in `ca_names`, then renew the CA."
)

OWN_HOST = ("localhost", "127.0.0.0/8", "::1/128")
"""What reverse listeners on loopback are called."""


def subtree(pattern: str) -> str | None:
    """What a name constraint can say of a route's `host`: the host itself, or, of one with `*`, the domain behind the last of them.

    A constraint is for a domain and all below it, so `search-*.internal.example` becomes `internal.example`. None: no domain of two
    labels or more is left (`*`, `s3.*`, `*.internal`), and the CA would be limited to next to nothing.
    """
    host = pattern.lower().removeprefix("[").removesuffix("]").rstrip(".")
    if "*" in host:
        host = host.rpartition("*")[2].partition(".")[2]
        if "." not in host:
            return None
    return host if host and host.isascii() else None


def unvouched(directory: Path, name: str) -> str:
    """What is wrong, and what to do, where the CA does not vouch for one of `Plan.ca_names`."""
    hint = NAME_DOMAINS if "*" in name else RENEW
    return f"the CA in {directory} does not vouch for {name}, so HTTPS_PROXY clients are refused there. {hint}"


def permitted(names: Iterable[str]) -> list[str]:
    """The CA's subtrees: domains and networks. AWS's, this host's, and `names`: domains, addresses; what has a `*` is left out."""
    found = [*_core.aws_domains(), *OWN_HOST]
    for name in names:
        known = any(name == domain or name.endswith(f".{domain}") for domain in found)
        if "*" not in name and not known:
            found.append(name)
    return found


@dataclass(frozen=True)
class CertificateAuthority:
    """`directory`: where its files lie; made with mode 0700 if missing. `names`: domains and addresses, beside AWS's and this host's, that
    a new one vouches for. `key`: of a new one, "p256" or "rsa2048"; leaves have the same."""

    directory: Path
    names: tuple[str, ...] = ()
    key: str = "p256"

    @property
    def key_file(self) -> Path:
        """PEM, mode 0600: the private key, its certificate, the root's certificate. mitmproxy's name for it."""
        return self.directory / "mitmproxy-ca.pem"

    @property
    def certificate_file(self) -> Path:
        """The root's certificate alone, PEM: what clients trust. mitmproxy's name for it."""
        return self.directory / "mitmproxy-ca-cert.pem"

    def has_other_key(self) -> bool:
        """True if it should have an RSA key and has none. The opposite is not said: mitmproxy's CA, which may be used, has one."""
        return self.key == "rsa2048" and "BEGIN EC PRIVATE KEY" in self.key_file.read_text()

    def fingerprint(self) -> str:
        """Of the certificate that clients trust: SHA-256, as `openssl x509 -fingerprint -sha256` prints it. Raises OSError."""
        import hashlib
        import ssl

        der = ssl.PEM_cert_to_DER_cert(self.certificate_file.read_text())
        return hashlib.sha256(der).digest().hex(":").upper()

    def exists(self) -> bool:
        """True if there is a key."""
        return self.key_file.exists()

    def ensure(self) -> None:
        """Makes the CA if there is none, and checks the one there is. Raises `CaError`, `UsageError`."""
        check_home(self.directory, "ca_dir")
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.key_file.exists():
                self._create()
            self._check()
            certificate = self._root()
            if not self.certificate_file.exists() or self.certificate_file.read_text() != certificate:
                write_new(self.certificate_file, certificate.encode(), 0o644)
        except OSError as error:
            raise CaError(
                f"the CA in {self.directory} cannot be used: {error}.",
                hint="Choose a directory of your own with --ca-dir.",
            ) from error

    def renew(self) -> None:
        """Makes a new CA in place of the one there is: clients must trust it anew. Raises `CaError`."""
        if not self.exists():
            return self.ensure()
        try:
            self._check()
            self._create(replace=True)
        except OSError as error:
            raise CaError(f"the CA in {self.directory} cannot be renewed: {error}.", hint="Choose a directory of your own.") from error
        return self.ensure()

    def _check(self) -> None:
        mode = stat.S_IMODE(self.directory.stat().st_mode)
        if mode & 0o022:
            # Whoever can write there can put a key of their own in its place.
            raise CaError(f"others can write to the CA's directory {self.directory} (mode {mode:04o}).", hint=f"chmod 700 {self.directory}")
        if wrong := complaint(self.key_file, secret=True):
            raise CaError(f"the CA key: {wrong[0]}.", hint=wrong[1])

    def _root(self) -> str:
        pem = self.key_file.read_text()
        found = CERTIFICATE.findall(pem)
        if not found or "PRIVATE KEY-----" not in pem:
            raise CaError(
                f"{self.key_file} does not hold a private key and a certificate.",
                hint="Move the file away; sigward makes a new CA, which clients must trust again.",
            )
        return f"{found[-1]}\n"

    def _create(self, *, replace: bool = False) -> None:
        from cryptography.hazmat.primitives import serialization

        key, root_key = self._new_key(), self._new_key()
        root = authority_certificate("sigward CA", root_key.public_key(), root_key)
        issuing = authority_certificate("sigward issuing CA", key.public_key(), root_key, root, permitted(self.names))
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        content = b"".join([secret, *(certificate.public_bytes(serialization.Encoding.PEM) for certificate in (issuing, root))])
        # Of two processes that start at once, the first one's CA stays.
        with contextlib.suppress(FileExistsError):
            write_new(self.key_file, content, 0o600, replace=replace)

    def _new_key(self) -> "Key":
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        return rsa.generate_private_key(65537, 2048) if self.key == "rsa2048" else ec.generate_private_key(ec.SECP256R1())


def authority_certificate(
    name: str,
    key: "ec.EllipticCurvePublicKey | rsa.RSAPublicKey",
    signed_by: "Key",
    issuer: "x509.Certificate | None" = None,
    names: Iterable[str] = (),
) -> "x509.Certificate":
    """A CA's certificate, limited to `names`. `issuer`: None for a root, which may have one CA below it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sigward")])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else 1), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    if issuer:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), critical=False)
        limits = x509.NameConstraints([general_name(permit) for permit in names], excluded_subtrees=None)
        builder = builder.add_extension(limits, critical=True)
    return builder.sign(signed_by, hashes.SHA256())


def general_name(name: str) -> "x509.GeneralName":
    """A domain, an address or a network as a certificate writes it."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def write_new(path: Path, content: bytes, mode: int, *, replace: bool = True) -> None:
    """Writes a file whole or not at all, with its mode from the first byte. Raises FileExistsError unless `replace`.

    It is on the disk when it returns, and before it has its name: after a power loss a key is not empty, and not another one.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
