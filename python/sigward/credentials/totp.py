"""MFA codes made from a device's secret in the system's keyring (RFC 6238), for those who choose so.

Whoever can read the keyring then has both factors: it is a convenience, not a second factor.
"""

from collections.abc import Callable
from typing import Any

from sigward.errors import CredentialsError, UsageError

SERVICE = "sigward-mfa"
"""The keyring's name for our entries; the user's name is the device's ARN."""


def store(serial: str, secret: str) -> None:
    """Puts a device's secret (base32) into the keyring. Raises `UsageError`, `CredentialsError`."""
    _, pyotp = libraries()
    try:
        pyotp.TOTP(secret.replace(" ", "")).now()
    except ValueError as error:
        raise UsageError("totp_store: the secret is not base32.", hint="Give the text that AWS shows for `Show secret key`.") from error
    _asking(lambda keyring: keyring.set_password(SERVICE, serial, secret.replace(" ", "")))


def code(serial: str) -> Callable[[str], str]:
    """What gives the code of the moment, in place of a person."""

    def made(_prompt: str) -> str:
        _, pyotp = libraries()
        secret = _asking(lambda keyring: keyring.get_password(SERVICE, serial))
        if secret is None:
            raise UsageError(f"totp: the keyring has no secret of {serial}.", hint="Put it there once with --totp-store.")
        return str(pyotp.TOTP(secret).now())

    return made


def libraries() -> tuple[Any, Any]:
    """(keyring, pyotp). Raises `UsageError`."""
    try:
        import keyring
        import pyotp
    except ImportError as error:
        raise UsageError(f"totp: {error.name} is not installed.", hint="pip install 'sigward[totp]'") from error
    return keyring, pyotp


def _asking[T](ask: Callable[[Any], T]) -> T:
    keyring, _ = libraries()
    try:
        return ask(keyring)
    except keyring.errors.KeyringError as error:
        raise CredentialsError(
            f"totp: the keyring does not answer: {error}.", hint="Is it unlocked? `keyring diagnose` tells which one is used."
        ) from error
