"""Sessions that an MFA code opened, kept where the AWS CLI keeps its own: ~/.aws/cli/cache, one JSON file each, mode 0600.

A profile with `role_arn` and `mfa_serial` has the CLI's very file, so that one login serves both. A profile with plain keys gets
a session of STS GetSessionToken under a name of sigward's own, in the same form.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigward.credentials.chain import Chain, Failure, Snapshot, as_hint, explain, mend_for, snapshot, told
from sigward.errors import CredentialsError, UsageError
from sigward.file import NO_HOME, home

if TYPE_CHECKING:
    from botocore.utils import JSONFileCache

PROVIDER = "mfa-session"


@dataclass(frozen=True)
class Login:
    """What a login made. `expires`: as STS told."""

    file: Path
    expires: str
    role_arn: str | None


def directory() -> Path:
    """Where the AWS CLI keeps sessions."""
    return (home() or NO_HOME) / ".aws" / "cli" / "cache"


def cache(*, fresh: bool = False) -> "JSONFileCache":
    """The CLI's cache. `fresh`: what is in it is not read, only replaced."""
    from botocore.utils import JSONFileCache

    class Fresh(JSONFileCache):
        def __contains__(self, key: object) -> bool:
            return False

    return (Fresh if fresh else JSONFileCache)(str(directory()))


def key(profile: str | None) -> str:
    """The name of the file with a profile's GetSessionToken session."""
    told = json.dumps({"kind": "sigward-session-token", "profile": profile or "default"}, sort_keys=True)
    return hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()


def session(profile: str | None) -> Snapshot | None:
    """The session of a profile with plain keys, however old; None: there is none that can be read."""
    try:
        kept = json.loads((directory() / f"{key(profile)}.json").read_text(encoding="utf-8"))["Credentials"]
        return snapshot(kept["AccessKeyId"], kept["SecretAccessKey"], kept["SessionToken"], kept["Expiration"], PROVIDER)
    except (KeyError, TypeError, ValueError, OSError):
        return None


def device(chain: Chain) -> str:
    """The profile's MFA device. Raises `UsageError`."""
    try:
        serial = chain.session().get_scoped_config().get("mfa_serial")
    except Exception as error:  # botocore's kinds
        raise wrong_profile(chain, error) from error
    if not serial:
        raise UsageError("serial: it is not told which MFA device.", hint="Give --serial ARN, or set mfa_serial in the profile.")
    return str(serial)


def wrong_profile(chain: Chain, error: Exception) -> UsageError:
    """The profile is not there, or its file does not hold."""
    return UsageError(f"profile: {told(error, None)}.", hint=as_hint(mend_for(error, profile=chain.profile)))


def login(chain: Chain, *, serial: str | None, duration: int | None, code: Callable[[str], str]) -> Login:
    """Opens a session with an MFA code: `code` is asked for it. Raises `UsageError`, `CredentialsError`."""
    try:
        profile = chain.session().get_scoped_config()
    except Exception as error:  # botocore's kinds
        raise wrong_profile(chain, error) from error
    try:
        if profile.get("role_arn"):
            if serial or duration:
                raise UsageError(
                    "serial, duration: the profile takes a role, and its own settings count.",
                    hint="Set mfa_serial and duration_seconds in the profile: the AWS CLI reads them too.",
                )
            if not profile.get("mfa_serial"):
                raise UsageError("the profile's role needs no MFA: it has no mfa_serial.", hint="Or set mfa_serial there.")
            return _role(chain, profile["role_arn"], code)
        serial = serial or profile.get("mfa_serial")
        if not serial:
            raise UsageError("serial: it is not told which MFA device.", hint="Give --serial ARN, or set mfa_serial in the profile.")
        return _session_token(chain, serial, duration or 3600, code)
    except (UsageError, CredentialsError):
        raise
    except Exception as error:  # botocore's kinds, and the network's
        raise CredentialsError(f"login: {explain(error)}.", hint=mend(str(error))) from error


def mend(text: str) -> str:
    """What to do about STS's answer to a code."""
    if "MultiFactorAuthentication failed" in text:
        return "The code is wrong, or was used before: wait for the next one. If it stays wrong, this machine's or the device's clock is."
    if "expired" in text.lower():
        return "The keys that log in have expired: they must be long-lived ones."
    return "Is the serial the ARN of your MFA device, and has the user the right to it? See `aws iam list-mfa-devices`."


def _role(chain: Chain, role_arn: str, code: Callable[[str], str]) -> Login:
    provider: Any = chain.session().get_component("credential_provider").get_provider("assume-role")
    provider.cache = cache(fresh=True)
    provider._prompter = code
    before = set(_files())
    credentials = provider.load()
    data = credentials._refresh_using()
    written = next(iter(set(_files()) - before), None) or max(_files(), key=lambda file: file.stat().st_mtime_ns)
    return Login(written, str(data["expiry_time"]), role_arn)


def _session_token(chain: Chain, serial: str, duration: int, code: Callable[[str], str]) -> Login:
    base = chain.base()
    if isinstance(base, Failure):
        raise CredentialsError("login: there are no keys to log in with.", hint="The profile needs an access key of a user's.")
    keys = base.snapshot
    if keys.session_token is not None:
        raise UsageError("login: STS GetSessionToken takes long-lived keys; these are temporary.", hint="Choose a user's profile.")
    client: Any = chain.session().create_client("sts", aws_access_key_id=keys.access_key_id, aws_secret_access_key=keys.secret_access_key)
    answer = client.get_session_token(SerialNumber=serial, TokenCode=code(f"MFA code for {serial}: "), DurationSeconds=duration)
    made = answer["Credentials"]
    expires = made["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    kept: Any = cache()
    kept[key(chain.profile)] = {"Credentials": {name: made[name] for name in names} | {"Expiration": expires}}
    return Login(directory() / f"{key(chain.profile)}.json", expires, None)


def _files() -> list[Path]:
    return list(directory().glob("*.json"))
