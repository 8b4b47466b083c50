"""The commands' flags, and what each does with the parts that do the work."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import CliPositionalArg

from sigward.ca import NAME_DOMAINS, RENEW, RENEW_KEY, unvouched
from sigward.cli.command import Command as Command
from sigward.cli.command import Serve as Serve
from sigward.cli.command import Web as Web
from sigward.cli.command import read as read
from sigward.clients import MasterKey
from sigward.credentials import Failure, Found, Region, resolve_region
from sigward.credentials.chain import SKIPPED, as_hint, unexpired
from sigward.environ import ClientEnvironment, leave_own_proxy
from sigward.errors import CaError, CredentialsError, UsageError
from sigward.front import load_authority
from sigward.plan import DEFAULT_IDENTITY
from sigward.settings import Settings, is_address

if TYPE_CHECKING:
    from sigward._core import Engine


def run(name: str, arguments: list[str]) -> int:
    """Reads a command's flags, environment and file, and runs it. Returns the exit status."""
    program: list[str] = []
    if name == "run":
        arguments, program = split_program(arguments)
    command = read(COMMANDS[name], f"sigward {name}", arguments)
    if isinstance(command, Run):
        return command.with_own_listeners(arguments).execute(program)
    return cast("Any", command).execute()  # type: ignore[no-any-return]


def split_program(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(flags, program) around `--`."""
    if "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    if arguments and not any(argument in ("-h", "--help") for argument in arguments):
        raise UsageError("run: there is no `--` before the program.", hint="sigward run [flags] -- CMD [arguments]")
    return arguments, []


class Run(Command):
    """Run a program behind a sigward of its own: sigward run [flags] -- CMD [arguments]."""

    needs_every_rule = True
    listen: str = Field("127.0.0.1:0", description="Forward proxy for the program; port 0 takes a free one.")
    admin: str = Field("off", description="/healthz, /readyz and /metrics; `off`: none.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="Log on stderr.")
    client: str | None = Field(None, description="Give the program the issued key of this `[clients.NAME]` instead of a dummy one.")
    credentials_ok: bool = Field(True, description="Require credentials before the program starts; `--no-credentials-ok`: start it anyway.")

    def with_own_listeners(self, arguments: list[str]) -> "Run":
        """Listeners that the environment and the file name are `serve`'s, and may be in use by it: only flags count here."""
        given = {argument.partition("=")[0] for argument in arguments}
        own: dict[str, Any] = {"listen": "127.0.0.1:0", "admin": "off", "reverse": [], "transparent": "off"}
        if "--clients.socket" not in given:
            self.clients.socket = None
        return self.model_copy(update={name: value for name, value in own.items() if f"--{name}" not in given})

    def execute(self, program: list[str]) -> int:
        from sigward.cli.serving import run_program

        if not program:
            raise UsageError("run: there is no program.", hint="sigward run [flags] -- CMD [arguments]")
        if self.listen == "off" or self.listen.startswith("unix:"):
            raise UsageError(f"listen: {self.listen}: the program needs a forward proxy on a port.", hint="Leave --listen out.")
        self.warn_of_no_proxy(os.environ)
        key, plan = self.key_for(self.client), self.plan()
        own = plan.clients.named[self.client].identity if self.client else None
        return run_program(plan, program, key, identity=own or DEFAULT_IDENTITY, needs_credentials=self.credentials_ok)


class Sign(Command):
    """Show how one request is signed: canonical request, string to sign, signature, headers to add. Sends nothing."""

    method: CliPositionalArg[str] = Field(description="GET, POST, …")
    url: CliPositionalArg[str] = Field(description="https://host/path?query")
    header: list[str] = Field(default_factory=list, description="A header, `name: value`; may be repeated.")
    data: str | None = Field(None, description="The body.")
    data_file: Path | None = Field(None, description="The body, from a file.")
    service: str | None = Field(None, description="Signing name, where the host does not tell.")
    query_plus: Literal["blank", "plus"] = Field("blank", description="Meaning of a raw `+` in the query, as in a `[[route]]`.")
    at: str | None = Field(None, description="The time, e.g. 2015-08-30T12:36:00Z; none: now.")
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.signing import sign

        return sign(self)


class Explain(Command):
    """Say why AWS refused a signature: from the body of its answer and, if given, the request as it was sent."""

    answer: CliPositionalArg[str] = Field(description="A file with the body of AWS's answer; `-`: standard input.")
    method: str = Field("GET", description="The request's method.")
    url: str | None = Field(None, description="https://host/path?query, to compare with what sigward would sign.")
    header: list[str] = Field(default_factory=list, description="A header that was sent, `name: value`; may be repeated.")
    data: str | None = Field(None, description="The body.")
    data_file: Path | None = Field(None, description="The body, from a file.")
    service: str | None = Field(None, description="Signing name, where the host does not tell.")
    query_plus: Literal["blank", "plus"] = Field("blank", description="Meaning of a raw `+` in the query, as in a `[[route]]`.")
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.explain import explain

        return explain(self)


class Token(Command):
    """Print a token that stands for a password: sigward token rds|elasticache|msk|eks. It lives 15 minutes."""

    kind: CliPositionalArg[Literal["rds", "elasticache", "msk", "eks"]] = Field(description="What it is for.")
    host: str | None = Field(None, description="rds: the database's host name.")
    port: int | None = Field(None, ge=1, le=65535, description="rds: its port.")
    user: str | None = Field(None, description="rds, elasticache: the user.")
    cluster: str | None = Field(None, description="elasticache: the replication group or cache; eks: the cluster's name.")
    serverless: bool = Field(False, description="elasticache: it is a serverless cache.")
    at: str | None = Field(None, description="The time, e.g. 2015-08-30T12:36:00Z; none: now.")

    def execute(self) -> int:
        from sigward.cli.token import token

        return token(self)


class Whoami(Command):
    """Say whose credentials sigward would use, and from where. Calls no AWS API but those that give credentials, unless asked to."""

    identity: str = Field("default", description="An `[identities.NAME]`, or `default`.")
    explain: bool = Field(False, description="Tell every provider of the chain: used, passed over, failed, and why.")
    account: bool = Field(False, description="Ask STS (GetCallerIdentity) for account and ARN.")
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.whoami import whoami

        return whoami(self)


class Login(Command):
    """Open a session with an MFA code: sigward login --profile P. A running sigward picks it up; so does the AWS CLI, for a role."""

    serial: str | None = Field(None, description="The MFA device's ARN; none: the profile's mfa_serial.")
    duration: int | None = Field(None, ge=900, le=129600, description="Seconds that the session lives; none: 3600.")
    code_command: str | None = Field(None, description="A command that prints the code; none: asked for, or read from standard input.")
    totp: bool = Field(False, description="Make the code from the device's secret in the system's keyring (pip install 'sigward[totp]').")
    totp_store: bool = Field(
        False, description="Put the device's secret (base32, asked for or on standard input) into the system's keyring first."
    )

    def execute(self) -> int:
        from sigward.cli.login import login

        return login(self)


class Imds(Command):
    """Read EC2's instance metadata: sigward imds get PATH, sigward imds role. It holds the role's name, never its policy."""

    what: CliPositionalArg[Literal["get", "role"]] = Field(description="get or role.")
    path: CliPositionalArg[str | None] = Field(
        None, description="get: `/latest/user-data`, or below /latest/meta-data without a slash in front: `placement/region`."
    )

    def execute(self) -> int:
        from sigward.cli.imds import imds

        return imds(self)


class ClientOf(Command):
    """Keys that sigward issues to its clients: client list, client key NAME, client credentials [NAME] (for credential_process)."""

    what: CliPositionalArg[Literal["key", "list", "credentials"]] = Field(description="key, list or credentials.")
    name: CliPositionalArg[str | None] = Field(
        None, description="key, credentials: the client; credentials: none, if the user has one only."
    )
    format: Literal["env", "json", "profile"] = Field(
        "env", description="key: variables, credential_process's JSON, or ~/.aws/credentials."
    )

    def execute(self) -> int:
        from sigward.cli.client import client

        return client(self)


class Quotas(Command):
    """The quotas behind what AWS throttles: quotas [SERVICE] lists them, quotas request CODE VALUE asks for more."""

    first: CliPositionalArg[str | None] = Field(
        None, description="A service (ec2, dynamodb, …), none: those that the running sigward has seen throttled; or `request`."
    )
    code: CliPositionalArg[str | None] = Field(None, description="request: the quota's code, e.g. L-1216C47A.")
    value: CliPositionalArg[str | None] = Field(None, description="request: the value to ask for.")
    service: str | None = Field(None, description="request: the quota's service; none: the one whose quota has the code.")
    all_quotas: bool = Field(False, description="List every quota of the service, not those of rates alone.")
    usage: bool = Field(True, description="Ask CloudWatch how much is used.")
    yes: bool = Field(False, description="request: do not ask back.")
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.quotas import quotas

        return quotas(self)


class KnowledgeOf(Command):
    """What sigward knows of AWS's hosts: knowledge show HOST, knowledge refresh (a table of the installed botocore)."""

    what: CliPositionalArg[Literal["show", "refresh"]] = Field(description="show or refresh.")
    host: CliPositionalArg[str | None] = Field(None, description="show: a host name or URL.")
    output: Path | None = Field(
        None, description="refresh: the file to write; none: the setting `knowledge`, else knowledge.bin beside the CA."
    )
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.knowledge import knowledge

        return knowledge(self)


class ActionsOf(Command):
    """Say which operation a request is, and which IAM actions it needs: sigward actions METHOD URL. Sends nothing."""

    method: CliPositionalArg[str] = Field(description="GET, POST, …")
    url: CliPositionalArg[str] = Field(description="https://host/path?query")
    header: list[str] = Field(default_factory=list, description="A header, `name: value`; may be repeated.")
    data: str | None = Field(None, description="The body, where a form names the action.")
    service: str | None = Field(None, description="Signing name, where the host does not tell.")
    json_output: bool = Field(False, description="Print JSON.")

    def execute(self) -> int:
        from sigward.cli.knowledge import actions_of

        return actions_of(self)


class Env(Command):
    """Print the variables that send a program through a running sigward: eval "$(sigward env)"."""

    shell: Literal["sh", "fish", "docker", "kubernetes"] = Field(
        "sh", description="Whose syntax: sh (also bash, zsh), fish, docker (--env-file), kubernetes (a container's `env`)."
    )
    client: str | None = Field(None, description="The issued key of this `[clients.NAME]` instead of a dummy one.")
    proxy: str | None = Field(
        None,
        description="For another container or host: `http://HOST:PORT`, where it reaches sigward; `--trust-dir` is then where it sees what "
        "`serve` writes, and nothing is written; none: `listen`, on this host.",
    )

    def execute(self) -> int:
        proxy, own = self.proxy, {}
        if proxy is None:
            proxy, own = self.own_proxy(), dict(os.environ)
            self.trust().write(self.authority())
        elif not is_proxy(proxy):
            raise UsageError(
                f"--proxy: {proxy!r}: http://HOST:PORT or https://HOST:PORT is expected.", hint="Such as http://127.0.0.1:8080."
            )
        region = resolve_region(self.region, self.profile).asked
        self.warn_of_no_proxy(own)
        client = ClientEnvironment(proxy.removesuffix("/"), self.trust(), region, self.key_for(self.client))
        sys.stdout.write(client.script(self.shell, own))
        return 0

    def own_proxy(self) -> str:
        """Where the sigward of these settings listens."""
        if self.listen == "off" or self.listen.startswith("unix:") or self.listen.endswith(":0"):
            raise UsageError(
                f"listen: {self.listen}: programs need a forward proxy on a known port.",
                hint="Set listen, or use `sigward run -- CMD`.",
            )
        return f"http://{self.listen}"


def is_proxy(url: str) -> bool:
    """True for http://HOST:PORT and https://HOST:PORT."""
    address = url.partition("://")[2].removesuffix("/")
    try:
        split = urlsplit(url)
        return split.scheme in ("http", "https") and is_address(address) and bool(split.hostname) and bool(split.port)
    except ValueError:
        return False


class Ca(Command):
    """The CA that clients trust: path (where its certificate lies), export (PEM on stdout), trust (how to), renew (a new one)."""

    what: CliPositionalArg[Literal["path", "export", "trust", "renew"]] = Field(description="path, export, trust or renew.")

    def execute(self) -> int:
        trust, authority = self.trust(), self.authority()
        if self.what == "renew":
            authority.renew()
        trust.write(authority)
        if self.what == "export":
            sys.stdout.write(trust.certificate.read_text())
        elif self.what == "trust":
            sys.stdout.write(TRUST.format(certificate=trust.certificate, bundle=trust.bundle, truststore=trust.truststore))
        else:
            sys.stdout.write(f"{trust.certificate}\n")
        if self.what == "renew":
            for name in (name for name in self.vouched_names() if "*" in name):
                sys.stderr.write(f"warning: {unvouched(authority.directory, name)}\n")
            sys.stderr.write("Let clients trust the new certificate, then send SIGHUP to sigward or restart it.\n")
            sys.stderr.write("Pause log rotation until then if it sends SIGHUP: every SIGHUP takes the new CA.\n")
        return 0


class ConfigOf(Command):
    """Allow a folder's sigward.toml to be read, as it is now: config allow [FILE]. A change asks again. config revoke [FILE]."""

    what: CliPositionalArg[Literal["allow", "revoke"]] = Field(description="allow or revoke.")
    file: CliPositionalArg[Path | None] = Field(None, description="Settings file. Default: ./sigward.toml.")

    @classmethod
    def find_file(cls, arguments: list[str]) -> None:
        """It reads none: neither the one that it is about, nor another that does not hold."""

    def execute(self) -> int:
        from sigward.cli.config import config

        return config(self)


class Check(Command):
    """Check settings, CA and the credentials of every identity without serving. Status 0, 64 (settings), 77 (credentials) or 78 (CA)."""

    needs_every_rule = True

    def execute(self) -> int:
        from sigward import _core

        region = resolve_region(self.region, self.profile)
        if self.clients.issued():
            MasterKey(self.clients.key_file).ensure()
        try:
            engine = _core.Engine(self.engine_json(region.name))
        except _core.SettingsError as error:
            raise UsageError(f"{error}.", hint=error.hint) from error
        say = sys.stdout.write
        source = Settings.source
        say(f"settings     ok ({source.path if source else 'no file; defaults'})\n")
        self.say_ways()
        for warning in engine.warnings():
            say(f"warning      {warning}\n")
        unusable: CaError | None = None
        try:
            try:
                say(f"ca           {self.ca_state(engine)}\n")
            except CaError as error:
                unusable = error
            failures = self.check_identities(engine, region)
        finally:
            engine.close()
        say(f"region       {region.name} (from {region.source})\n")
        if unusable is not None:
            raise unusable
        if failures:
            raise no_credentials_of(failures)
        return 0

    def say_ways(self) -> None:
        """Where it listens, and every place that requests go to."""
        say = sys.stdout.write
        say(f"listen       {self.listen}\n")
        for listen, upstream in self.reverse_listeners():
            say(f"reverse      {listen} → {upstream or 'the endpoint that Host names'}\n")
        say(f"admin        {self.admin}\n")
        for addon in self.addons:
            say(f"addon        {addon}\n")
        for number, route in enumerate(self.route, 1):
            asked = ((None, route.operation), ("bucket", route.bucket), ("client", route.client))
            more = "".join(f" {name} {value}" if name else f" {value}" for name, value in asked if value)
            asks = f"{route.host or 'AWS'}{f':{route.port}' if route.port else ''}{route.path or ''}{more}"
            to = "".join(f" → {place}" for place in (route.upstream, route.connect) if place)
            say(f"route {number:<6} {asks}: {route.action}{to}\n")
        if proxy := self.egress.engine()["proxy"]:
            say(f"egress       {urlsplit(proxy).netloc.rpartition('@')[2]}\n")

    def check_identities(self, engine: "Engine", region: Region) -> dict[str, Failure]:
        """Walks the chain of every identity and says what came of it. Returns those that failed."""
        leave_own_proxy()
        names = self.every_identity()
        with ThreadPoolExecutor(max_workers=32) as pool:
            outcomes = list(pool.map(lambda name: unexpired(self.chain(name, region.asked).load(), time.time()), names))
        failures: dict[str, Failure] = {}
        for name, walked in zip(names, outcomes, strict=True):
            outcome = publish(engine, name, walked) if isinstance(walked, Found) else walked
            if isinstance(outcome, Failure):
                failures[name] = outcome
                state = "failed ({}: {})".format(*outcome.cause)
            else:
                ends = outcome.snapshot.expires_at
                state = f"ok ({outcome.snapshot.provider}; expires {iso(ends) if ends else 'never'})"
            sys.stdout.write(f"credentials  {state}\n" if name == DEFAULT_IDENTITY else f"identity     {name}: {state}\n")
        return failures

    def ca_state(self, engine: "Engine") -> str:
        """Where the CA is, and whom it vouches for. Raises `CaError`."""
        authority = self.authority()
        authority.ensure()
        load_authority(engine, authority.directory)
        missing = [name for name in self.vouched_names() if not engine.vouches_for(name)]
        if missing:
            hint = NAME_DOMAINS if all("*" in name for name in missing) else RENEW
            raise CaError(f"the CA in {authority.directory} does not vouch for {', '.join(missing)}.", hint=hint)
        if authority.has_other_key():
            raise CaError(f"the CA in {authority.directory} has an EC key, and ca_key is {self.ca_key}.", hint=RENEW_KEY)
        ends = ""
        for name, state, until, what, mend in engine.certificates():
            if name == "ca" and state == "expired":
                raise CaError(f"{what} ({authority.directory}).", hint=mend)
            if state != "valid":
                sys.stdout.write(f"warning      {what}. {mend}\n")
            if name == "ca":
                ends = iso(until)
        return f"ok ({authority.certificate_file}; expires {ends})"


class Completion(Command):
    """Print a shell's completions: sigward completion bash|zsh|fish."""

    shell_name: CliPositionalArg[Literal["bash", "zsh", "fish"]] = Field(description="bash, zsh or fish.")

    def execute(self) -> int:
        from sigward.cli.completion import completion

        return completion(self)


class Demo(Command):
    """Start an AWS emulator that verifies signatures and sigward before it, and send real clients' calls through."""

    keep: bool = Field(False, description="Leave it running to try.")
    throttle: bool = Field(False, description="Instead: a service that allows 20 calls a second, hammered without sigward and with it.")
    seconds: float = Field(8.0, gt=0, le=600, description="throttle: how long each of both lasts.")

    def execute(self) -> int:
        try:
            from sigward.demo import main, throttle
        except ImportError as error:
            raise UsageError(f"the demo's parts are not installed: {error.name}.", hint="pip install 'sigward[demo]'") from error
        return throttle(self.seconds) if self.throttle else main(keep=self.keep, front=self.front)


COMMANDS: dict[str, type[Command]] = {
    "serve": Serve,
    "web": Web,
    "run": Run,
    "sign": Sign,
    "explain": Explain,
    "token": Token,
    "whoami": Whoami,
    "login": Login,
    "imds": Imds,
    "client": ClientOf,
    "quotas": Quotas,
    "knowledge": KnowledgeOf,
    "actions": ActionsOf,
    "env": Env,
    "ca": Ca,
    "config": ConfigOf,
    "check": Check,
    "completion": Completion,
    "demo": Demo,
}

TRUST = """\
One program:   eval "$(sigward env)"            # or: sigward run -- CMD
curl:          curl --cacert {certificate} …
Python, AWS:   export AWS_CA_BUNDLE={bundle} REQUESTS_CA_BUNDLE={bundle}
Node.js:       export NODE_EXTRA_CA_CERTS={certificate}
Java:          java -Djavax.net.ssl.trustStore={truststore} -Djavax.net.ssl.trustStorePassword=changeit …
Debian:        sudo cp {certificate} /usr/local/share/ca-certificates/sigward.crt && sudo update-ca-certificates
Fedora, RHEL:  sudo trust anchor {certificate}
Alpine:        sudo cp {certificate} /usr/local/share/ca-certificates/sigward.crt && sudo update-ca-certificates
macOS:         sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {certificate}
Windows:       certutil -addstore Root {certificate}

Trust it on a whole system only where you trust whoever can read its key: it can stand in for AWS's hosts and those of your routes.
"""


def iso(seconds: float) -> str:
    """2026-01-31T12:00:00Z"""
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show(value: object) -> str:
    """yes and no for people."""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def publish(engine: "Engine", identity: str, found: Found) -> Found | Failure:
    """Gives keys to an engine, which refuses those that nothing can be signed with."""
    from sigward import _core

    keys = found.snapshot
    try:
        engine.set_credentials(identity, keys.access_key_id, keys.secret_access_key, keys.session_token, keys.expires_at, keys.provider)
    except _core.SigningError as error:
        return Failure((*found.passed, (keys.provider, str(error))))
    return found


def no_credentials(failure: Failure, identity: str = DEFAULT_IDENTITY) -> CredentialsError:
    """The cause and what to do about it; where nothing is set up, all that was tried."""
    whose = "" if identity == DEFAULT_IDENTITY else f" for {identity}"
    provider, why = failure.cause
    if why != SKIPPED.get(provider):
        cause = why.removesuffix(f" ({failure.hint})")
        return CredentialsError(f"no AWS credentials{whose}: {provider}: {cause}.", hint=as_hint(failure.hint))
    tried = "\n".join(f"  {provider}: {why}" for provider, why in failure.reasons)
    return CredentialsError(
        f"no AWS credentials{whose}. Tried, in order:\n{tried}",
        hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a --profile, or run where a role is attached.",
    )


def no_credentials_of(failures: dict[str, Failure]) -> CredentialsError:
    """The same of several identities."""
    errors = [no_credentials(failure, name) for name, failure in failures.items()]
    if len(errors) == 1:
        return errors[0]
    return CredentialsError(f"no AWS credentials for {', '.join(failures)}.", hint="`sigward whoami --explain --identity NAME` shows why.")
