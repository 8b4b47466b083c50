"""One walk along botocore's credential chain: which provider gave keys, which were passed over, which failed and why.

The order is botocore's: environment, assume-role, web identity, SSO, shared file, login, process, config file, container, instance
profile. A provider that is set up and fails ends the walk, as in botocore: the next one's keys would be another identity's.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from sigward.credentials import files

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from botocore.session import Session

DEADLINE = 30.0
"""Seconds for a whole walk. A process that hangs, or an STS that does not answer, must not hold up the keeper for ever."""

SKIPPED = {
    "env": "AWS_ACCESS_KEY_ID is not set",
    "assume-role": "the profile names no role_arn",
    "assume-role-with-web-identity": "no AWS_WEB_IDENTITY_TOKEN_FILE and no web_identity_token_file in the profile",
    "sso": "the profile names no sso_session or sso_start_url",
    "shared-credentials-file": "the shared credentials file has no keys for the profile",
    "login": "the profile has no login session",
    "custom-process": "the profile names no credential_process",
    "config-file": "the config file has no keys for the profile",
    "ec2-credentials-file": "AWS_CREDENTIAL_FILE is not set",
    "boto-config": "there is no boto config with keys",
    "container-role": "no AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI",
    "iam-role": "the instance metadata service does not answer or has no role, or is disabled",
}
"""Why a provider that found nothing was passed over, by botocore's name for it."""


@dataclass(frozen=True)
class Snapshot:
    """Keys at one moment. `expires_at`: Unix seconds, None: never. `provider`: botocore's name. Its repr shows no secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    expires_at: float | None
    provider: str


@dataclass(frozen=True)
class Found:
    """A walk that ended well. `passed`: the providers before, and why each was passed over."""

    snapshot: Snapshot
    passed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Failure:
    """A walk that found nothing. `reasons`: (provider, why) in the chain's order."""

    reasons: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Assume:
    """A role to take with a chain's keys, or with a token file's; or a process that gives keys. See STS AssumeRole."""

    role_arn: str | None = None
    external_id: str | None = None
    session_name: str | None = None
    duration: int | None = None
    source_identity: str | None = None
    policy: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    web_identity_token_file: str | None = None
    process: str | None = None


@dataclass(frozen=True)
class Chain:
    """`profile`: None: `AWS_PROFILE` or the default one. `region`: for STS and SSO. `assume`: what is done with the chain's keys."""

    profile: str | None
    region: str
    deadline: float = DEADLINE
    assume: Assume = Assume()

    def load(self) -> Found | Failure:
        """Walks the chain anew, in a thread that is given up at the deadline. Raises nothing that a source can cause."""
        if self.assume == Assume() and (lying := self._logged_in() or self.lying()) is not None:
            return lying
        outcome: list[Found | Failure] = []
        worker = threading.Thread(target=lambda: outcome.append(self._walk()), name="sigward-credentials-load", daemon=True)
        worker.start()
        worker.join(self.deadline)
        if outcome:
            return outcome[0]
        return Failure(
            (
                (
                    "chain",
                    f"no answer within {self.deadline:g} s: a credential_process, STS, SSO or a metadata service hangs",
                ),
            )
        )

    def _walk(self) -> Found | Failure:
        if self.assume.process is not None or self.assume.web_identity_token_file is not None:
            return self._alone()
        outcome = self._logged_in() or self.base()
        if self.assume.role_arn is None or isinstance(outcome, Failure):
            return outcome
        try:
            return Found(self._assumed(outcome.snapshot), outcome.passed)
        except Exception as error:
            return Failure((*outcome.passed, ("identity-role", f"{self.assume.role_arn}: {explain(error)}")))

    def _logged_in(self) -> Found | None:
        """The session that `sigward login` opened for a profile with plain keys, until it expires."""
        from sigward.credentials import mfa

        kept = mfa.session(self.profile or os.environ.get("AWS_PROFILE"))
        alive = kept is not None and (kept.expires_at or 0) > time.time()
        # Keys in the environment come first, as they do in the chain.
        return Found(kept, ()) if kept is not None and alive and not (self.profile is None and "AWS_ACCESS_KEY_ID" in os.environ) else None

    def watched(self) -> list[str]:
        """Files whose change may mean other keys."""
        from sigward.credentials.mfa import directory

        shared = (files.config_file(), files.credentials_file())
        token = self.assume.web_identity_token_file or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        return [os.path.expanduser(file) for file in (*shared, *([token] if token else []), str(directory()))]  # noqa: PTH111

    def _alone(self) -> Found | Failure:
        """Keys that ask for no others: of a process, or for a token in a file."""
        from botocore.credentials import AssumeRoleWithWebIdentityCredentialFetcher, ProcessProvider
        from botocore.utils import FileWebIdentityTokenLoader

        wanted = self.assume
        name = "identity-process" if wanted.process is not None else "identity-web-identity"
        try:
            if wanted.process is not None:
                profile = {"profiles": {"it": {"credential_process": wanted.process}}}
                made = freeze(ProcessProvider("it", lambda: profile, popen=self._process).load(), name)
            else:
                fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
                    self.session().create_client,
                    FileWebIdentityTokenLoader(wanted.web_identity_token_file),
                    wanted.role_arn or "",
                    extra_args=self._session_terms(web_identity=True),
                )
                made = of_fetched(fetcher.fetch_credentials(), name)
        except Exception as error:
            return Failure(((name, explain(error)),))
        return Found(made, ()) if made else Failure(((name, "it gave no keys"),))

    def _assumed(self, source: Snapshot) -> Snapshot:
        from botocore.credentials import AssumeRoleCredentialFetcher, Credentials

        keys = Credentials(source.access_key_id, source.secret_access_key, source.session_token)
        fetcher = AssumeRoleCredentialFetcher(
            self.session().create_client, keys, self.assume.role_arn or "", extra_args=self._session_terms()
        )
        made = of_fetched(fetcher.fetch_credentials(), f"{source.provider} → identity-role")
        if made is None:
            raise RuntimeError("STS gave no keys")
        return made

    def _session_terms(self, *, web_identity: bool = False) -> dict[str, Any]:
        """What AssumeRole is told beside the role."""
        wanted = self.assume
        terms: dict[str, Any] = {
            "RoleSessionName": wanted.session_name or session_name(),
            "DurationSeconds": wanted.duration,
            "Policy": wanted.policy,
        }
        if not web_identity:
            terms |= {
                "ExternalId": wanted.external_id,
                "SourceIdentity": wanted.source_identity,
                "Tags": [{"Key": key, "Value": value} for key, value in wanted.tags] or None,
            }
        return {name: value for name, value in terms.items() if value is not None}

    def base(self) -> Found | Failure:
        """botocore's chain alone."""
        return self.lying() or self._asked()

    def lying(self) -> Found | None:
        """Keys that lie in the environment or in a file, where nothing that comes before them in the chain is set up.

        What botocore's own providers would find, without them: importing those takes 0.2 s and 28 MiB. None: they must be asked, be it
        only for what is wrong. tests/unit/credentials/test_lying.py holds both to the same.
        """
        try:
            profile = files.scoped(self.profile)
        except Exception:  # the providers tell what is wrong
            return None
        passed = [] if self.profile is not None else ["env"]
        if passed and os.environ.get("AWS_ACCESS_KEY_ID"):
            # Of these, an empty one counts as none.
            known = {name: value for name in ENV_NAMES if (value := os.environ.get(name))}
            return None if os.environ.get("AWS_CREDENTIAL_EXPIRATION") else lying_keys(known, ENV_NAMES, "env", [])
        if "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ or any(name.startswith(ASKING) for name in profile):
            return None
        name = files.chosen(self.profile) or "default"
        passed += ["assume-role", "assume-role-with-web-identity", "sso"]
        if "aws_access_key_id" in section(files.sections, files.credentials_file()).get(name, {}):
            return lying_keys(files.sections(files.credentials_file())[name], FILE_NAMES, "shared-credentials-file", passed)
        own = section(files.profiled, files.config_file()).get("profiles", {}).get(name, {})
        if "aws_access_key_id" in own:
            return lying_keys(own, FILE_NAMES, "config-file", [*passed, "shared-credentials-file", "login", "custom-process"])
        return None

    def _asked(self) -> Found | Failure:
        """What botocore's providers say, in turn."""
        reasons: list[tuple[str, str]] = []
        try:
            for provider in self._providers():
                name = provider.METHOD
                try:
                    snapshot = freeze(provider.load(), name)
                except Exception as error:  # every provider raises its own kinds
                    return Failure((*reasons, (name, explain(error))))
                if snapshot is not None:
                    return Found(snapshot, tuple(reasons))
                reasons.append((name, SKIPPED.get(name, "nothing found")))
        except Exception as error:
            return Failure((*reasons, ("profile", explain(error))))
        return Failure(tuple(reasons))

    def _providers(self) -> Iterator[Any]:
        session = self.session()
        # The resolver reads the profile as soon as it is made, so a missing one is told first.
        asks_for_mfa = bool(session.get_scoped_config().get("mfa_serial"))
        providers: list[Any] = session.get_component("credential_provider").providers
        for provider in providers:
            self._unattended(provider, asks_for_mfa=asks_for_mfa)
        return iter(providers)

    def _unattended(self, provider: Any, *, asks_for_mfa: bool) -> None:
        """Nobody sits before a proxy: a process that hangs is killed, and nothing asks for an MFA code on the terminal.

        Private attributes of botocore's, pinned by tests/unit/credentials/test_chain.py: its constructors offer no way from a session.
        """
        share_files(provider)
        if provider.METHOD == "custom-process":
            provider._popen = self._process
        elif provider.METHOD == "assume-role":
            provider._prompter = no_mfa
            # Only such profiles read the AWS CLI's cache: all others ask STS anew.
            if asks_for_mfa:
                from sigward.credentials.mfa import cache

                provider.cache = cache()
            builder = provider._profile_provider_builder
            create = builder.providers

            def providers(*named: Any, **more: Any) -> Any:
                made = create(*named, **more)
                for source in made:
                    share_files(source)
                    if source.METHOD == "custom-process":
                        source._popen = self._process
                return made

            builder.providers = providers

    def _process(self, command: list[str], **pipes: Any) -> "Process":
        # It ends before the walk's deadline, so that the walk can tell what hung.
        return Process(command, self.deadline * 0.8, **pipes)

    def session(self) -> "Session":
        """botocore's session for this chain: short waits, few attempts; files and service models are those of all chains."""
        from botocore.config import Config
        from botocore.session import Session

        session = Session(profile=self.profile)
        with contextlib.suppress(Exception):  # what is wrong with a file, the session is to say when it is asked
            session._config = files.full()  # type: ignore[attr-defined]
            session.register_component("data_loader", loader(session.get_config_variable("data_path")))
        session.set_config_variable("region", self.region)
        session.set_config_variable("metadata_service_timeout", 1)
        session.set_config_variable("metadata_service_num_attempts", 2)
        session.set_default_client_config(Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}))
        return session


_loaders: "weakref.WeakValueDictionary[str | None, Loader]" = weakref.WeakValueDictionary()


def loader(path: str | None) -> "Loader":
    """botocore's reader of service models: one for all sessions that there are at a time, so that each model is read once.

    The last of them takes it away: models are megabytes of Python objects. `path`: botocore's `data_path`.
    """
    if (made := _loaders.get(path)) is None:
        from botocore.loaders import create_loader

        made = _loaders[path] = create_loader(path)
    return made


def in_use() -> list["Loader"]:
    """The loaders that there are. Whoever keeps them, keeps them for the next session."""
    return list(_loaders.values())


def share_files(provider: Any) -> None:
    """Lets a provider read from the files that are parsed already. Private attributes, pinned by tests/unit/credentials/test_chain.py."""
    if provider.METHOD == "shared-credentials-file":
        provider._ini_parser = files.sections
    elif provider.METHOD == "config-file":
        provider._config_parser = files.profiled


ENV_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
FILE_NAMES = ("aws_access_key_id", "aws_secret_access_key", "aws_security_token", "aws_session_token")
"""Key, secret, and the two names of the session token, the first of which wins."""

ASKING = ("role_", "source_", "credential_", "web_identity_", "sso_", "login_")
"""What in a profile sets up a provider that has to ask somebody."""


def lying_keys(place: Mapping[str, Any], names: tuple[str, str, str, str], provider: str, passed: Iterable[str]) -> Found | None:
    """The keys in one place; None unless both are there as they should be."""
    key, secret = place.get(names[0]), place.get(names[1])
    token = next((place[name] for name in names[2:] if name in place), "")
    if not key or not secret or not all(isinstance(part, str) for part in (key, secret, token)):
        return None
    return Found(Snapshot(key, secret, token or None, None, provider), tuple((name, SKIPPED[name]) for name in passed))


def section(parse: Callable[[str], files.Parsed], file: str) -> files.Parsed:
    """What a file holds; nothing if it is not there."""
    from botocore.exceptions import ConfigNotFound

    try:
        return parse(file)
    except ConfigNotFound:
        return {}


class Process(subprocess.Popen[bytes]):
    """A credential_process that ends in time: botocore would wait for it for ever."""

    def __init__(self, command: list[str], seconds: float, **pipes: Any) -> None:
        # A session of its own: what it starts can be killed with it.
        super().__init__(command, stdin=subprocess.DEVNULL, start_new_session=True, **pipes)
        self.seconds = seconds

    def communicate(
        self,
        input: bytes | None = None,  # noqa: A002 - Popen's name for it
        timeout: float | None = None,
    ) -> tuple[bytes, bytes]:
        """(stdout, stderr). Raises `TimeoutError` when it takes too long."""
        try:
            return super().communicate(input, self.seconds if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            for pipe in (self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
            # `from None`: TimeoutExpired carries what the process had written.
            raise TimeoutError(f"credential_process gave no answer within {self.seconds:g} s and was killed") from None


def of_fetched(data: dict[str, Any], provider: str) -> Snapshot | None:
    """What a fetcher of botocore's gives."""
    return snapshot(data["access_key"], data["secret_key"], data.get("token"), data.get("expiry_time"), provider)


def session_name() -> str:
    """Which sidecar this is, for CloudTrail: the ECS task, else the pod's or host's name."""
    return "sigward-" + re.sub(r"[^\w+=,.@-]", "-", ecs_task() or os.environ.get("HOSTNAME") or socket.gethostname(), flags=re.ASCII)[:56]


def ecs_task() -> str | None:
    """The task's id, of the ECS agent's task metadata endpoint, version 4."""
    uri = os.environ.get("ECS_CONTAINER_METADATA_URI_V4", "")
    if not uri.startswith("http://"):
        return None
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError, AttributeError), opener.open(f"{uri}/task", timeout=1) as answer:
        return str(json.load(answer)["TaskARN"]).rpartition("/")[2]
    return None


def no_mfa(prompt: str) -> NoReturn:
    """Instead of `getpass`. Raises `RuntimeError`."""
    raise RuntimeError("the profile asks for an MFA code, and nobody is there to type it: run `sigward login` with this profile")


def freeze(credentials: Any, provider: str) -> Snapshot | None:
    """Takes what is needed out of botocore's object, and lets it fetch what it puts off. None: it has nothing.

    Never through `get_frozen_credentials`: near expiry that asks the source once more, and fails with it though the keys are good.
    """
    if credentials is None:
        return None
    frozen = getattr(credentials, "_frozen_credentials", None)
    deferred = hasattr(credentials, "_refresh_using") and (frozen is None or provider == "login")
    if deferred:
        # assume-role, web identity and SSO fetch at first use; login gives what its cache holds, however old.
        return of_fetched(credentials._refresh_using(), provider)
    if frozen is None:
        frozen = credentials.get_frozen_credentials()
    return snapshot(frozen.access_key, frozen.secret_key, frozen.token, getattr(credentials, "_expiry_time", None), provider)


def snapshot(access_key: str, secret_key: str, token: str | None, expiry: str | datetime | None, provider: str) -> Snapshot | None:
    """`expiry`: without a time zone it is UTC. None if a key is empty."""
    if not access_key or not secret_key:
        return None
    if isinstance(expiry, str):
        from botocore.utils import parse_timestamp

        expiry = parse_timestamp(expiry)
    if expiry is not None and expiry.tzinfo is None:
        expiry = expiry.replace(tzinfo=UTC)
    return Snapshot(access_key, secret_key, token or None, expiry.timestamp() if expiry else None, provider)


SECRETS = (
    r"""(?P<name>["']?(?:secret|token|password|authorization)[\w-]*["']?\s*[:=]\s*)["']?[^\s"',}]+["']?"""
    # A secret access key is 40 characters of base64; tokens and JWTs are longer. Paths and ARNs hold other characters in between.
    r"""|(?<![A-Za-z0-9/+=._-])[A-Za-z0-9/+=]{40}(?![A-Za-z0-9/+=._-])|[A-Za-z0-9+=_-]{60,}"""
)
"""Compiled only when there is something to redact: that takes milliseconds of the start."""
LONGEST = 300


def redact(text: str) -> str:
    """What others wrote (a process on stderr, a metadata server in its body), without what may be a secret in it; one line."""
    line = re.sub(SECRETS, lambda match: f"{match['name'] or ''}[redacted]", " ".join(text.split()), flags=re.IGNORECASE)
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"


def explain(error: BaseException) -> str:
    """An exception of botocore's in one line, with the mend where botocore does not say it."""
    text = redact(str(error)) or type(error).__name__
    with contextlib.suppress(ImportError):
        from botocore import exceptions

        mends: list[tuple[type[BaseException], str]] = [
            (exceptions.ProfileNotFound, "see `aws configure list-profiles`"),
            (exceptions.ConfigParseError, "mend the file named above"),
            (exceptions.UnauthorizedSSOTokenError, "run `aws sso login`"),
            (exceptions.SSOTokenLoadError, "run `aws sso login`"),
            (exceptions.PartialCredentialsError, "set both the access key id and the secret access key"),
        ]
        for kind, mend in mends:
            if isinstance(error, kind):
                return f"{text} ({mend})"
        if isinstance(error, exceptions.ClientError):
            told = STS_MENDS.get(error.response.get("Error", {}).get("Code", ""))
            return f"{text} ({told})" if told else text
    return text


STS_MENDS = {
    "AccessDenied": "the role's trust policy must allow these credentials to take it, and their own policy sts:AssumeRole",
    "ExpiredToken": "the credentials that take the role have expired",
    "InvalidIdentityToken": "the token is not one of the provider that the role trusts",
    "ExpiredTokenException": "the token has expired: is its file renewed?",
    "RegionDisabledException": "the account has STS switched off in this region",
    "PackedPolicyTooLarge": "shorten the session policy or the tags",
}
"""What to do about STS's answers, by code."""
