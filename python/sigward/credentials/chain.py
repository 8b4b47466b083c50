"""One walk along botocore's credential chain: which provider gave keys, which were passed over, which failed and why.

The order is botocore's: environment, assume-role, web identity, SSO, shared file, login, process, config file, container, instance
profile. A provider that is set up and fails ends the walk, as in botocore: the next one's keys would be another identity's.
"""

import contextlib
import difflib
import functools
import json
import os
import random
import re
import shlex
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from sigward.bounds import TooLargeError, read_file
from sigward.credentials import files
from sigward.credentials.process import CredentialProcess
from sigward.credentials.region import scope_region
from sigward.credentials.walk import TokenFile, bound_client, bound_session, bounded_cache, unix_seconds, walk

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from botocore.loaders import Loader
    from botocore.session import Session

DEADLINE = 30.0
"""Seconds for a whole walk. A process that hangs, or an STS that does not answer, must not hold up the keeper for ever."""
RUNS, READS = 0.8, 0.9
"""Parts of it, after which a process is killed and no answer is read on: before the deadline, so that the walk can tell what hung."""

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
NOTHING_FOUND = "nothing found"
"""The same of all others."""


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
    """A walk that ended well. `passed`: the providers before, and why each was passed over. `offset`: Unix seconds when `walk.ticks` was 0,
    by the clock of who answered; None: no answer had a date."""

    snapshot: Snapshot
    passed: tuple[tuple[str, str], ...]
    offset: float | None = None


@dataclass(frozen=True)
class Failure:
    """A walk that found nothing. `reasons`: (provider, why) in the chain's order. `hint`: what to do about the last of them, if it failed
    and was not passed over. `kind`: what clients may know of that one. `offset`: as a `Found` has it.
    `down`: the source that does not work, whoever asks it; None: that cannot be said."""

    reasons: tuple[tuple[str, str], ...]
    hint: str | None = None
    kind: str = "it failed"
    offset: float | None = None
    down: str | None = None

    def for_clients(self) -> tuple[tuple[str, str], ...]:
        """The reasons in sigward's own words alone: what a process or a server wrote may hold secrets and is for the operator."""
        return tuple((name, why if why in (SKIPPED.get(name), NOTHING_FOUND) else self.kind) for name, why in self.reasons or (self.cause,))

    @property
    def cause(self) -> tuple[str, str]:
        """(provider, why) of where it ended."""
        return self.reasons[-1] if self.reasons else ("chain", "it is empty")


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

    def load(self, now: Callable[[], float] = time.time) -> Found | Failure:
        """Walks the chain anew, in a thread that is given up at the deadline. Raises nothing that a source can cause. `now`: Unix seconds,
        as well as they are known."""
        walk.begin(self.deadline, now, [])
        if self.assume == Assume() and (lying := self._logged_in() or self.lying()) is not None:
            return lying
        outcome: list[Found | Failure] = []
        asked: list[str] = []
        worker = threading.Thread(target=lambda: outcome.append(self._dated(now, asked)), name="sigward-credentials-load", daemon=True)
        worker.start()
        worker.join(self.deadline)
        if outcome:
            return outcome[0]
        # What it reads and runs ends before: what is left is a name that nobody resolves, or a disk.
        provider = asked[-1] if asked else "profile"
        why = f"no answer within {self.deadline:g} s: what it asks or reads hangs"
        return Failure(
            ((provider, why),), "`sigward whoami --explain` shows every provider that was asked", NO_ANSWER, down=ASKED.get(provider)
        )

    @property
    def asks(self) -> frozenset[str]:
        """Sources that it surely needs, as `Failure.down` names them."""
        return frozenset({STS} if self.assume.role_arn or self.assume.web_identity_token_file else ())

    def _dated(self, now: Callable[[], float], asked: list[str]) -> Found | Failure:
        walk.begin(self.deadline * READS, now, asked)
        outcome = self._walk()
        if isinstance(outcome, Failure) and walk.surprised():
            # What was signed or expired by a clock that is wrong is not by the one that the answer brought.
            outcome = self._walk()
        return replace(outcome, offset=walk.offset)

    def _walk(self) -> Found | Failure:
        if self.assume.process is not None or self.assume.web_identity_token_file is not None:
            return self._alone()
        outcome = self._logged_in() or self.base()
        if self.assume.role_arn is None or isinstance(outcome, Failure):
            return outcome
        walk.asked.append("identity-role")
        try:
            return Found(self._assumed(outcome.snapshot), outcome.passed)
        except Exception as error:
            return self._failure(outcome.passed, "identity-role", error, f"{self.assume.role_arn}: ")

    def _failure(self, passed: Iterable[tuple[str, str]], provider: str, error: Exception, place: str = "") -> Failure:
        """A provider that is set up and has failed. `place`: what it was about."""
        source = down(error, provider)
        error = too_much(error) or error
        mend = mend_for(error, provider, files.chosen(self.profile))
        return Failure((*passed, (provider, place + told(error, mend))), mend, kind_of(error, provider), down=source)

    def _logged_in(self) -> Found | None:
        """The session that `sigward login` opened for a profile with plain keys, until it expires."""
        from sigward.credentials import mfa

        kept = mfa.session(self.profile or os.environ.get("AWS_PROFILE"))
        alive = kept is not None and (kept.expires_at or 0) > walk.time()
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

        wanted = self.assume
        name = "identity-process" if wanted.process is not None else "identity-web-identity"
        walk.asked.append(name)
        try:
            if wanted.process is not None:
                profile = {"profiles": {"it": {"credential_process": wanted.process}}}
                made = freeze(ProcessProvider("it", lambda: profile, popen=self._process).load(), name)
            else:
                fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
                    self.session().create_client,
                    TokenFile(wanted.web_identity_token_file or ""),
                    wanted.role_arn or "",
                    extra_args=self._session_terms(web_identity=True),
                )
                made = of_fetched(fetcher.fetch_credentials(), name)
        except Exception as error:
            return self._failure((), name, error)
        return Found(made, ()) if made else Failure(((name, "it gave no keys"),), kind="it gave no keys")

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
                walk.asked.append(name)
                try:
                    snapshot = freeze(provider.load(), name)
                except Exception as error:  # every provider raises its own kinds
                    return self._failure(reasons, name, error)
                if snapshot is not None:
                    return Found(snapshot, tuple(reasons))
                reasons.append((name, SKIPPED.get(name, NOTHING_FOUND)))
        except Exception as error:
            return self._failure(reasons, "profile", error)
        return Failure(tuple(reasons), down="the instance metadata service" if reasons and reasons[-1][0] == "iam-role" else None)

    def _providers(self) -> Iterator[Any]:
        session = self.session()
        # The resolver reads the profile as soon as it is made, so a missing one is told first.
        asks_for_mfa = bool(session.get_scoped_config().get("mfa_serial"))
        try:
            providers: list[Any] = session.get_component("credential_provider").providers
        except ValueError as error:
            names = "AWS_METADATA_SERVICE_TIMEOUT, AWS_METADATA_SERVICE_NUM_ATTEMPTS"
            raise ValueError(f"{names} (or the profile's keys): a whole number is expected: {error}") from error
        for name, least, most in (("timeout", 1, 3600), ("num_attempts", 0, 100)):
            value = session.get_config_variable(f"metadata_service_{name}")
            if not least <= value <= most:
                # Sockets and loops take it as it is.
                raise ValueError(f"AWS_METADATA_SERVICE_{name.upper()} (or the profile's key): {value}: {least} to {most} is expected")
        for provider in providers:
            self._unattended(provider, asks_for_mfa=asks_for_mfa)
        return iter(providers)

    def _unattended(self, provider: Any, *, asks_for_mfa: bool) -> None:
        """Nobody sits before a proxy: a process that hangs is killed, and nothing asks for an MFA code on the terminal.

        Private attributes of botocore's, pinned by tests/unit/credentials/test_chain.py: its constructors offer no way from a session.
        """
        self._bound(provider)
        if provider.METHOD == "assume-role":
            provider._prompter = no_mfa
            # Only such profiles read the AWS CLI's cache: all others ask STS anew.
            if asks_for_mfa:
                from sigward.credentials.mfa import cache

                provider.cache = bounded_cache(cache())
            builder = provider._profile_provider_builder
            create = builder.providers

            def providers(*named: Any, **more: Any) -> Any:
                made = create(*named, **more)
                for source in made:
                    self._bound(source)
                return made

            builder.providers = providers

    def _bound(self, provider: Any) -> None:
        """Whatever it reads or asks gives so much and takes so long."""
        share_files(provider)
        match provider.METHOD:
            case "iam-role":
                ask_directly(provider)
            case "container-role":
                name_refusals(provider._fetcher, "retrieve_full_uri")
                bound_session(provider._fetcher._session)
                bound_header(provider)
            case "custom-process":
                provider._popen = self._process
            case "assume-role-with-web-identity":
                provider._token_loader_cls = TokenFile
            case "sso":
                provider._token_cache = bounded_cache(provider._token_cache)
                bound_sign_on(provider._token_provider)
            case "login":
                provider._token_cache = bounded_cache(provider._token_cache)

    def _process(self, command: list[str], **pipes: Any) -> CredentialProcess:
        return CredentialProcess(command, min(self.deadline * RUNS, walk.left()), **pipes)

    def session(self) -> "Session":
        """botocore's session for this chain: short waits, few attempts; files and service models are those of all chains."""
        from botocore.config import Config
        from botocore.session import Session

        session = Session(profile=self.profile)
        try:
            session._config = files.full()  # type: ignore[attr-defined]
            session.register_component("data_loader", loader(session.get_config_variable("data_path")))
        except Exception as error:
            if too_much(error):
                # It would read the file to its end.
                raise
            # What else is wrong with a file, the session is to say when it is asked.
        # botocore asks for FIPS endpoints by such a region; `aws-global` it knows for some services alone.
        session.set_config_variable("region", self.region if "fips" in self.region else scope_region(self.region))
        # `auto` would ask the metadata service for the region, through a proxy. The waits that it sets are set here.
        session.set_config_variable("defaults_mode", "legacy")
        set_metadata_attempts(session)
        session.set_default_client_config(Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}))
        create = session.create_client

        def bounded(*named: Any, **more: Any) -> Any:
            client = create(*named, **more)
            bound_client(client)
            return client

        session.create_client = bounded  # type: ignore[method-assign]
        return session


METADATA_ATTEMPTS = 2
"""botocore's own default is one, which a lost packet is enough to fail."""


def set_metadata_attempts(session: "Session") -> None:
    """Unless the environment or the profile says how often."""
    name = "metadata_service_num_attempts"
    with contextlib.suppress(Exception):  # what is wrong with the profile, the session is to say when it is asked
        if f"AWS_{name.upper()}" not in os.environ and name not in session.get_scoped_config():
            session.set_config_variable(name, METADATA_ATTEMPTS)


def ask_directly(provider: Any) -> None:
    """Keeps EC2's metadata away from every proxy, bounds it, and has it say what it refuses.

    botocore takes the environment's proxies unless NO_PROXY names the address, and of an IPv6 one only in brackets. Whoever runs the proxy
    could choose the keys. Private attributes, pinned by tests/unit/credentials/test_chain.py.
    """
    from botocore.httpsession import URLLib3Session

    fetcher = provider._role_fetcher
    fetcher._session = URLLib3Session(timeout=fetcher._timeout)
    bound_session(fetcher._session)
    fetcher._evaluate_expiration = functools.partial(extend, fetcher._config)
    name_refusals(fetcher, "_get_credentials")


def extend(config: Mapping[str, Any], credentials: dict[str, Any]) -> None:
    """What botocore does to an instance's keys that are about to expire (`InstanceMetadataFetcher._evaluate_expiration`), by the
    metadata service's clock in place of this host's: where it has no new ones it hands out the old, and AWS takes them meanwhile."""
    with contextlib.suppress(ValueError):
        expires = datetime.strptime(credentials["expiry_time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        longer = timedelta(seconds=config.get("ec2_credential_refresh_window", 600) + random.randint(120, 600))  # noqa: S311
        if walk.now() >= expires - longer:
            credentials["expiry_time"] = (walk.now() + longer).strftime("%Y-%m-%dT%H:%M:%SZ")


def bound_header(provider: Any) -> None:
    """Of a container's provider: the file with its token."""
    build = provider._build_headers

    def built() -> Any:
        file = provider._environ.get(provider.ENV_VAR_AUTH_TOKEN_FILE)
        if file is None:
            return build()
        token = read_file(file).decode()
        provider._validate_auth_token(token)
        return {"Authorization": token}

    provider._build_headers = built


def bound_sign_on(provider: Any) -> None:
    """Of what gives the tokens of an sso_session: its files, and the clock that they expire by."""
    from botocore.utils import SSOTokenLoader

    provider._cache = bounded_cache(provider._cache)
    provider._token_loader = SSOTokenLoader(cache=provider._cache)
    provider._now = walk.now


def name_refusals(fetcher: Any, method: str) -> None:
    """An answer with a `Code` in place of keys is an error with that code; botocore takes it for no answer. With keys, it
    is an error too if their `Expiration` is no time: botocore's says that an int is too large."""
    from botocore.exceptions import MetadataRetrievalError

    ask = getattr(fetcher, method)

    def asked(*arguments: Any, **more: Any) -> Any:
        answer = ask(*arguments, **more)
        if isinstance(answer, dict) and not all(answer.get(name) for name in ("AccessKeyId", "SecretAccessKey")):
            code = answer.get("Code", answer.get("code"))
            if code is not None and str(code).lower() != "success":
                message = answer.get("Message", answer.get("message"))
                raise MetadataRetrievalError(error_msg=f"{code}: {message}" if message else str(code))
        elif isinstance(answer, dict) and isinstance(expires := answer.get("Expiration"), str):
            unix_seconds(expires)
        return answer

    setattr(fetcher, method, asked)


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
    if provider.METHOD in ("shared-credentials-file", "boto-config"):
        provider._ini_parser = files.sections
    elif provider.METHOD == "ec2-credentials-file":
        provider._parser = key_values
    elif provider.METHOD == "config-file":
        provider._config_parser = files.profiled


def key_values(file: str) -> dict[str, str]:
    """AWS_CREDENTIAL_FILE's content: `botocore.utils.parse_key_val_file`, bounded."""
    from botocore.exceptions import ConfigNotFound
    from botocore.utils import parse_key_val_file_contents

    try:
        return dict(parse_key_val_file_contents(read_file(file).decode()))
    except OSError as error:
        raise ConfigNotFound(path=file) from error


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
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import URLLib3Session

    session = URLLib3Session(timeout=1)
    bound_session(session)
    with contextlib.suppress(BotoCoreError, ValueError, KeyError, TypeError):
        answer = session.send(AWSRequest("GET", f"{uri}/task").prepare())
        return str(json.loads(answer.content)["TaskARN"]).rpartition("/")[2]
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
    set_clock(credentials)
    deferred = hasattr(credentials, "_refresh_using") and (frozen is None or provider == "login")
    if deferred:
        # assume-role, web identity and SSO fetch at first use; login gives what its cache holds, however old.
        return of_fetched(credentials._refresh_using(), provider)
    if frozen is None:
        frozen = credentials.get_frozen_credentials()
    return snapshot(frozen.access_key, frozen.secret_key, frozen.token, getattr(credentials, "_expiry_time", None), provider)


def set_clock(credentials: Any) -> None:
    """The walk's, for what decides whether tokens, cached sessions and the keys that take a role have expired.

    Private attributes of botocore's, pinned by tests/unit/credentials/test_bounds.py: its providers offer no way in.
    """
    while hasattr(credentials, "_refresh_using"):
        credentials._time_fetcher = walk.now
        refresh = credentials._refresh_using
        # With an MFA device's serial, the method is within another thing.
        fetcher: Any = getattr(refresh, "__self__", None) or getattr(getattr(refresh, "_refresh", None), "__self__", None)
        if hasattr(fetcher, "_time_fetcher"):
            fetcher._time_fetcher = walk.now
        if hasattr(fetcher, "_expiry_window_seconds"):
            window = fetcher._expiry_window_seconds
            fetcher._is_expired = functools.partial(is_expired, window)
        credentials = getattr(fetcher, "_source_credentials", None)


def is_expired(window: float, response: Mapping[str, Any]) -> bool:
    """`CachedCredentialFetcher._is_expired`, by the walk's clock."""
    expires = response["Credentials"]["Expiration"]
    if isinstance(expires, str):
        from botocore.utils import parse_timestamp

        expires = parse_timestamp(expires)
    return bool((expires - walk.now()).total_seconds() < window)


def snapshot(access_key: str, secret_key: str, token: str | None, expiry: str | datetime | None, provider: str) -> Snapshot | None:
    """`expiry`: without a time zone it is UTC. None if a key is empty. Raises `ValueError`."""
    if not access_key or not secret_key:
        return None
    return Snapshot(access_key, secret_key, token or None, unix_seconds(expiry) if expiry else None, provider)


def unexpired(outcome: Found | Failure, now: float) -> Found | Failure:
    """The outcome, but for keys that have expired at `now` (Unix seconds): they are none."""
    if isinstance(outcome, Failure) or outcome.snapshot.expires_at is None or outcome.snapshot.expires_at > now:
        return outcome
    when = datetime.fromtimestamp(outcome.snapshot.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    provider = outcome.snapshot.provider
    return Failure(
        (*outcome.passed, (provider, f"its keys expired at {when}")), EXPIRED.get(provider, "get new keys from it"), "its keys expired"
    )


EXPIRED = {
    "env": "set new keys and their AWS_CREDENTIAL_EXPIRATION",
    "custom-process": "the process must make new keys",
}
"""What to do about expired keys, by provider."""


WORD = r"(?:[A-Za-z][a-z]{0,14}|[A-Z]{2,5})(?![\w+/=-])"
SAID = (
    r"(?i:required|missing|expired|invalid|incorrect|wrong|empty|unset|unknown|undefined|none|null|absent|needed|denied|refused|rejected|"
    r"revoked|unavailable|unauthorized|unsupported|malformed|mismatch|forbidden|failed|failure|error|timeout|not|no|is|was|has|must|does|"
    r"cannot|could|can|unable|please|for|from|of|in|on|the|a|an|this|it|you|your|file|header|request|connection|permission|access|user|"
    r"signature|token|key|credentials)(?=[.,;:!?)\]}]*(?:\s|$))"
)
"""What is said of a secret where it could stand itself: "Password: required", "token: expired, log in again"."""
NAMES = r"secret|token|passw(?:or)?d|passphrase|pwd|api[_-]?key|private[_-]?key|saml(?:response|assertion)|assertion|cookie"
PEM = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)"
QUOTED = r"""(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)"""
VALUE = (
    rf"(?!\s|(?i:bearer|basic)\s+{SAID}|{SAID})"
    # JSON in a string has backslashes before its quotes. Without quotes it is a word, that may have some inside.
    rf"""(?:{PEM}|\\*{QUOTED}|[^\s"'](?:[^\s"'}}]|}}(?!\s|,|$)|{QUOTED})*)"""
)
SECRETS = (
    rf"{PEM}"
    # User and password of a URL.
    r"|(?<=//)[^\s/]+@"
    # A scheme and what belongs to it.
    rf"""|(?P<header>(?i:authorization[\\"']*\s*[:=]\s*))(?:(?i:["']?(?:bearer|basic|digest|negotiate|token|aws4-hmac-sha256)\s+)(?!{SAID}))?{VALUE}"""
    r"""(?:[,\s]+[\w-]+=(?:"[^"]*"|[^\s,]+))*"""
    rf"""|(?P<name>(?i:(?:{NAMES})(?![\w-]*file)[\w-]*[\\"']*(?:\s+(?:access\s+)?key)?\s*[:=]\s*|(?<![\w-])--[\w-]*(?:{NAMES})[\w-]*\s+)){VALUE}"""
    rf"""|(?P<scheme>\b(?i:bearer|basic)\s+)(?!{WORD})[\w.~+/=-]{{4,}}"""
    # By their form: JWTs, tokens of Vault, GitHub, GitLab and Slack.
    r"|\beyJ[\w-]*(?:\.[\w-]*){2,4}|(?<![\w.-])(?:hv[sbr]\.[\w-]{6,}|[sbr]\.\w{16,}|(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-)[\w-]{6,})"
    # A secret access key is 40 characters of base64, of both cases; tokens are longer. Paths and ARNs hold other characters in between.
    r"|(?<![A-Za-z0-9/+])(?=[a-z0-9/+]*[A-Z])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])|[A-Za-z0-9+=_-]{60,}"
)
"""Compiled only when there is something to redact: that takes milliseconds of the start."""
LONGEST = 300
LOOKED_AT = 8 << 10
"""Characters that are searched for secrets: more than are shown, so that none is cut where it would not be known any more."""


def redact(text: str) -> str:
    """What others wrote (a process on stderr, a metadata server in its body), without what may be a secret in it; one line. Of a Python
    traceback its last line, which has the cause."""
    before, traceback, after = text.partition("Traceback (most recent call last):")
    if traceback:
        text = before + after.strip().splitlines()[-1] if after.strip() else before
    line = " ".join(text.split())[:LOOKED_AT]
    line = re.sub(SECRETS, lambda match: f"{match['header'] or match['name'] or match['scheme'] or ''}[redacted]", line)
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"


def explain(error: BaseException) -> str:
    """An exception of botocore's in one line, with the mend where botocore does not say it."""
    return told(error, mend_for(error))


def told(error: BaseException, mend: str | None) -> str:
    """The same with a mend that is known."""
    text = (redact(str(error)) or type(error).__name__).rstrip(".")
    if isinstance(error, json.JSONDecodeError):
        text = f"what it gave is not JSON: {text}"
    return f"{text} ({mend})" if mend else text


def too_much(error: BaseException) -> TooLargeError | None:
    """What botocore has wrapped, where an answer was too long."""
    inner = getattr(error, "kwargs", {}).get("error")
    return inner if isinstance(inner, TooLargeError) else None


NO_ANSWER = "no answer in time"
REFUSED = "AWS refused the call"
UNABLE = "AWS could not answer the call"
STS = "STS"
ASKED = {
    "assume-role": STS,
    "assume-role-with-web-identity": STS,
    "identity-role": STS,
    "identity-web-identity": STS,
    "sso": "IAM Identity Center",
    "login": "AWS Sign-In",
    "container-role": "the container credentials endpoint",
    "iam-role": "the instance metadata service",
}
"""Who is asked in the end, by provider."""


def down(error: BaseException, provider: str) -> str | None:
    """The source that does not work, if it is that: it cannot be reached, does not answer, fails, or has had enough."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        if not is_unable(error):
            return None
        return ASKED["sso"] if error.operation_name == "GetRoleCredentials" else ASKED.get(provider)
    if isinstance(error, exceptions.CredentialRetrievalError):
        # Of the one that the role is taken with.
        provider = str(error.kwargs["provider"])
        return ASKED.get(provider) if provider == "container-role" else None
    # An answer that is too long, or too slow, is among the first. Without them it is a process that hangs, or a file.
    return ASKED.get(provider) if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)) else None


def is_unable(error: "ClientError") -> bool:
    """True where AWS has not looked at the call: it fails, or has had enough."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or "Throttl" in error.response.get("Error", {}).get("Code", "")


def kind_of(error: BaseException, provider: str) -> str:
    """The class of a provider's error, for those who may not see its text."""
    from botocore import exceptions

    if isinstance(error, exceptions.CredentialRetrievalError):
        provider = str(error.kwargs["provider"])
    if isinstance(error, (TimeoutError, exceptions.ReadTimeoutError)):
        return NO_ANSWER
    if provider in ("custom-process", "identity-process"):
        return "what the command printed is not valid" if isinstance(error, ValueError) else "the command failed"
    if isinstance(error, TooLargeError):
        return "it gave too much"
    if isinstance(error, exceptions.ProfileNotFound):
        return "the profile does not exist"
    if isinstance(error, (exceptions.ConfigParseError, exceptions.InvalidConfigError, exceptions.PartialCredentialsError)):
        return "its configuration is not valid"
    if isinstance(error, exceptions.ClientError):
        return UNABLE if is_unable(error) else REFUSED
    if isinstance(error, (exceptions.UnauthorizedSSOTokenError, exceptions.SSOTokenLoadError, exceptions.TokenRetrievalError)):
        return "nobody is logged in, or the login has expired"
    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        return "no connection"
    return Failure.kind


def mend_for(error: BaseException, provider: str = "", profile: str | None = None) -> str | None:
    """What to do about a provider's error; None: its text says all. `profile`: the name of the one in use, if it has been chosen."""
    from botocore import exceptions

    if provider == "assume-role":
        profile = source_of(profile)
        if isinstance(error, exceptions.CredentialRetrievalError):
            provider = str(error.kwargs["provider"])
    of_profile = f" --profile {shlex.quote(profile)}" if profile else ""
    if isinstance(error, exceptions.ProfileNotFound):
        known = known_profiles()
        # A hundred thousand names would take seconds.
        close = difflib.get_close_matches(profile or "", known, 1) if len(known) <= MOST_COMPARED else []
        return f"did you mean {close[0]}? See `aws configure list-profiles`" if close else "see `aws configure list-profiles`"
    if isinstance(error, exceptions.ConfigParseError):
        return "mend the file named above"
    if isinstance(error, exceptions.PartialCredentialsError):
        return "set both the access key id and the secret access key"
    if isinstance(error, exceptions.ClientError):
        return STS_MENDS.get(error.response.get("Error", {}).get("Code", ""))
    if isinstance(error, (exceptions.UnauthorizedSSOTokenError, exceptions.SSOTokenLoadError, exceptions.TokenRetrievalError)):
        return f"run `aws sso login{of_profile}`"
    if isinstance(error, (exceptions.InvalidConfigError, exceptions.LoginInsufficientPermissions)):
        return None
    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        return "check the network and HTTPS_PROXY"
    return MENDS.get(provider, "").replace("{profile}", of_profile) or None


MOST_COMPARED = 5000


def as_hint(mend: str | None) -> str:
    """A mend as a sentence, for errors on the command line."""
    mend = mend or "`sigward whoami --explain` shows every provider that was asked"
    return mend[0].upper() + mend[1:] + ("" if mend.endswith("?") else ".")


def source_of(profile: str | None) -> str | None:
    """Whose keys a profile takes its role with, at the end of its `source_profile`s: that one is to be logged in."""
    with contextlib.suppress(Exception):
        profiles, seen = files.full()["profiles"], set()
        while (source := profiles[profile or "default"].get("source_profile")) and source not in seen:
            seen.add(source)
            profile = source
    return profile


def known_profiles() -> list[str]:
    """The names that the files hold; none if they cannot be read."""
    with contextlib.suppress(Exception):
        return list(files.full()["profiles"])
    return []


MENDS = {
    "sso": "run `aws sso login{profile}`",
    "login": "run `aws login{profile}`",
    "custom-process": "run the profile's credential_process by itself to see what it says",
    "identity-process": "run the identity's process by itself to see what it says",
    "container-role": "see the log of the agent behind AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI",
    "iam-role": "`sigward imds role` shows what the instance has",
}
"""What to do about a provider's errors that are none of the kinds above."""


STS_MENDS = {
    "AccessDenied": "the role's trust policy must allow these credentials to take it, and their own policy sts:AssumeRole",
    "ExpiredToken": "the credentials that take the role have expired",
    "InvalidIdentityToken": "the token is not one of the provider that the role trusts",
    "ExpiredTokenException": "the token has expired: is its file renewed?",
    "RegionDisabledException": "the account has STS switched off in this region",
    "PackedPolicyTooLarge": "shorten the session policy or the tags",
}
"""What to do about STS's answers, by code."""
