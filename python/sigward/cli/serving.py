"""`sigward serve`, `web` and `run`: the parts joined, started in order and stopped in the opposite one."""

import asyncio
import contextlib
import datetime
import importlib.util
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigward import _core, descriptors
from sigward.ca import RENEW_KEY, unvouched
from sigward.cli import notify
from sigward.cli.reading import read_again, read_at_start
from sigward.clients import IssuedKey, MasterKey, Vendor
from sigward.credentials import Chain, Failure, Keeper, Pool, Snapshot, Watcher
from sigward.credentials.chain import DEADLINE
from sigward.environ import ClientEnvironment, leave_own_proxy
from sigward.errors import CaError, SigwardError, UnavailableError, UsageError
from sigward.front import FrontOptions, NativeFront, ReverseListener, load_authority, log_event
from sigward.ownership import complaint
from sigward.plan import DEFAULT_IDENTITY, Plan

if TYPE_CHECKING:
    from sigward.ca import CertificateAuthority

logger = logging.getLogger("sigward")


FIXED = (
    "front", "listen", "reverse", "transparent", "admin", "ca_dir", "trust_dir", "threads", "addons", "grace", "log_level",
    "log_format", "web",
)  # fmt: skip
"""Settings that are taken at the start alone."""

LAST_CALL = 0.5
"""Seconds that telemetry has to be sent at the end, also where requests have taken all of the grace."""

FIRST_LOAD = 1.0
"""Seconds that the listeners wait for the first credentials before they are bound."""


class JsonFormatter(logging.Formatter):
    """A line of JSON: time (RFC 3339, UTC), level, logger, message, and what goes with it: request_id, trace_id, exception."""

    def format(self, record: logging.LogRecord) -> str:
        message, fields = getattr(record, "said", (record.getMessage(), {}))
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        told = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name, "message": message, **fields}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def start_logging(level: str, log_format: str) -> None:
    """Log lines on stderr, as text or as JSON: time, level, logger, message."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("urllib3", "asyncio", "hpack", "h2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A failed refresh is a warning with a traceback there, unredacted. The keeper says the same in a line.
    logging.getLogger("botocore").setLevel(logging.CRITICAL)


class RunError(UsageError):
    """The program cannot be started. Its status is a shell's: 127 not found, 126 found and not to be run."""

    slug = "cannot-run"

    def __init__(self, program: str, error: OSError) -> None:
        super().__init__(f"run: {program}: {error.strerror or error}.", hint="Name a program that is on PATH.")
        self.exit_code = 127 if isinstance(error, FileNotFoundError) else 126


class Service:
    """Engine, keeper, admin and front, as the settings say."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        if plan.clients.issued():
            MasterKey(plan.clients.key_file).ensure()
        try:
            self.engine = _core.Engine(plan.engine)
        except _core.SettingsError as error:
            raise UsageError(f"{error}.", hint=error.hint) from error
        self.pool = Pool()
        self.keepers = {name: self._keeper(name, chain) for name, chain in plan.chains.items()}
        self.watcher = self._watcher()
        self.vendor = Vendor(plan.clients, plan.clients.socket) if plan.clients.socket else None
        self.front: Any = None
        self.admin: tuple[str, int] | None = None
        self.ca_fingerprint = ""

    def _keeper(self, identity: str, chain: Chain) -> Keeper:
        def publish(snapshot: Snapshot) -> None:
            self.engine.set_credentials(
                identity,
                snapshot.access_key_id,
                snapshot.secret_access_key,
                snapshot.session_token,
                snapshot.expires_at,
                snapshot.provider,
            )

        def fail(reasons: tuple[tuple[str, str], ...]) -> None:
            self.engine.set_credentials_failed(identity, list(reasons))

        return Keeper(
            chain, publish, fail, pool=self.pool, hear=self.engine.hear_clock, clock=lambda: time.time() + self.engine.clock_ahead()
        )

    @property
    def keeper(self) -> Keeper:
        """The default identity's."""
        return self.keepers[DEFAULT_IDENTITY]

    def refresh(self, identity: str) -> None:
        """A request waits for this identity's keys."""
        if identity in self.keepers:
            self.keepers[identity].request_refresh()
        else:
            self.engine.set_credentials_failed(identity, [(identity, "no route names this identity")])

    def reload(self, read: Plan | SigwardError) -> None:
        """Takes changed settings, opens the logs anew and reads every identity's credentials; until that is done, the old ones serve.

        Requests under way keep what they began with. Settings that do not hold change nothing.
        """
        try:
            if isinstance(read, SigwardError):
                raise read
            if read.source != self.plan.source:
                # The rules of the file that is away would be dropped.
                raise UsageError(
                    f"they would come from {read.source or 'no file'} and no longer from {self.plan.source or 'none'}",
                    hint="Put the file back, or restart.",
                )
            if read.clients.issued():
                MasterKey(read.clients.key_file).ensure()
            self.engine.configure(read.engine)
        except (SigwardError, _core.SettingsError) as error:
            # A renewed CA is taken all the same.
            self._reload_authority()
            logger.warning("the settings are left as they were: %s", error.args[0])
        else:
            for name in sorted(FIXED):
                if getattr(read, name) != getattr(self.plan, name):
                    logger.warning("%s has changed: that takes a restart", name)
            self._adopt(read)
            self._reload_authority()
            self._log_warnings()
            logger.info("settings and credentials are read anew")
        # Whatever becomes of the settings: who renames a log's file counts on it.
        try:
            self.engine.reopen_logs()
        except _core.SettingsError as error:
            logger.warning("Could not reopen the log; still writing to the old file: %s", error.args[0])
        for keeper in self.keepers.values():
            keeper.request_refresh()

    def _reload_authority(self) -> None:
        """Takes a CA that has been renewed. One that is gone is not replaced here: clients would have to trust a new one."""
        from sigward.ca import CertificateAuthority

        plan = self.plan
        authority = CertificateAuthority(plan.ca_dir, plan.ca_names, plan.ca_key)
        try:
            if not authority.exists():
                raise CaError(f"{authority.key_file} is gone.", hint="Put it back, or restart.")
            authority.ensure()
            load_authority(self.engine, plan.ca_dir, needed=not plan.reverse)
            self._log_new_ca(authority)
        except CaError as error:
            logger.warning("Keeping the current CA: %s", error.args[0])
        except OSError as error:
            logger.warning("Keeping the current CA: %s", error)
        self._tell_unvouched()

    def _log_new_ca(self, authority: "CertificateAuthority") -> None:
        """Names the CA if it is not the one from before: clients that do not trust it yet fail from now on."""
        fingerprint = authority.fingerprint()
        if fingerprint != self.ca_fingerprint:
            self.ca_fingerprint = fingerprint
            end = next(end for name, _, end, _, _ in self.engine.certificates() if name == "ca")
            logger.info(
                "CA changed: clients must trust SHA-256 %s, expires %s",
                fingerprint,
                datetime.datetime.fromtimestamp(end, datetime.UTC).date(),
            )

    def _adopt(self, plan: Plan) -> None:
        """Keepers for the identities that there are now; those of changed ones begin anew."""
        for name, keeper in list(self.keepers.items()):
            if plan.chains.get(name) != self.plan.chains[name]:
                keeper.close()
                del self.keepers[name]
        for name, chain in plan.chains.items():
            if name not in self.keepers:
                self.keepers[name] = self._keeper(name, chain)
                self.keepers[name].start()
        self.plan = plan
        self.watcher.close()
        self.watcher = self._watcher()
        self.watcher.start()

    def _tell_unvouched(self) -> None:
        """Of each host that clients would refuse the CA's certificates for: before they do."""
        for name in self.plan.ca_names:
            if not self.engine.vouches_for(name):
                logger.warning("%s", unvouched(self.plan.ca_dir, name))

    def _log_warnings(self) -> None:
        """Of rules that hold, and look wrong."""
        for warning in self.engine.warnings():
            logger.warning("%s", warning)

    def _watcher(self) -> Watcher:
        return Watcher({keeper: self.plan.chains[name].watched() for name, keeper in self.keepers.items()})

    async def start(self) -> None:
        """Everything listens when it returns; credentials may still be loading. Raises `SigwardError`."""
        from sigward.ca import CertificateAuthority

        plan = self.plan
        authority = CertificateAuthority(plan.ca_dir, plan.ca_names, plan.ca_key)
        authority.ensure()
        self.ca_fingerprint = authority.fingerprint()
        if authority.has_other_key():
            logger.warning("the CA in %s has an EC key, and ca_key is %s. %s", plan.ca_dir, plan.ca_key, RENEW_KEY)
        # The default identity's first: the listeners wait for it.
        for keeper in (self.keeper, *(keeper for keeper in self.keepers.values() if keeper is not self.keeper)):
            keeper.start()
        self.watcher.start()
        if plan.admin != "off":
            try:
                self.admin = self.engine.admin(plan.admin)
            except OSError as error:
                raise UnavailableError(
                    f"admin: cannot listen on {plan.admin}: {error}.",
                    hint="Is it in use? Choose another with --admin, or `off`.",
                ) from error
        options = FrontOptions(
            forward=None if plan.listen == "off" else plan.listen,
            reverse=tuple(ReverseListener(listen, upstream) for listen, upstream in plan.reverse),
            ca_dir=plan.ca_dir,
            body_hold=plan.body_hold,
            grace=plan.grace,
            transparent=None if plan.transparent == "off" else plan.transparent,
            addons=tuple(load_addon(path) for path in plan.addons),
            web=plan.web,
        )
        if plan.front == "native":
            self.front = NativeFront(self.engine, options, self.refresh)
        else:
            if importlib.util.find_spec("mitmproxy") is None:
                raise UsageError("front: mitmproxy is not installed.", hint='Set front = "native", or use the image sigward-inspect.')
            from sigward.mitm import Front

            self.front = Front(self.engine, options, self.refresh)
        # Whoever connects now would only wait here instead; a source that is slow or missing holds nobody up for long.
        await asyncio.to_thread(self.keeper.wait_loaded, FIRST_LOAD)
        await self.front.start()
        self._tell_unvouched()
        self._log_warnings()
        if self.vendor:
            await self.vendor.start()
        self.engine.set_ready("listeners", True)

    async def stop(self) -> None:
        """Not ready, no new connections, what is under way may end within the grace."""
        end = time.monotonic() + self.plan.grace
        self.engine.set_ready("listeners", False, "shutting down")
        try:
            if self.vendor:
                await self.vendor.stop()
            if self.front is not None:
                await self.front.drain()
            for keeper in self.keepers.values():
                keeper.close()
            self.watcher.close()
        finally:
            # Whatever happens before, the logs get their last lines. What is left of the grace is for telemetry.
            # Beside the event loop, which a second signal comes to.
            await asyncio.to_thread(self.close, max(end - time.monotonic(), LAST_CALL))

    def close(self, patience: float) -> None:
        """Drops what is under way; access log and audit log get a line for each. Telemetry has `patience`, in seconds, to be sent."""
        self.engine.close(patience)
        # The fronts take no events any more; what is lost at the end is told all the same.
        for event in self.engine.poll():
            if event[0] == _core.EVENT_LOG:
                log_event(event)

    def ready_line(self) -> str:
        """Where everything listens, in one line that programs can read."""
        told = [f"{name}={shown_address(host, port)}" for name, (host, port) in self.front.addresses.items()]
        if self.admin:
            told.append(f"admin={self.admin[0]}:{self.admin[1]}")
        return "listening " + " ".join(told)


def shown_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets about IPv6; a unix socket as it is."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tell(line: str, log_format: str = "text") -> None:
    """Whoever started this process waits for it, whatever the level. In one piece with its end, so that no other thread's line comes
    between (`print` writes two)."""
    if log_format == "json":
        line = JsonFormatter().format(logging.LogRecord("sigward", logging.INFO, "", 0, line, None, None))
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def load_addon(path: Path) -> object:
    """A mitmproxy script: a module with hooks, or with `addons`. Raises `UsageError`."""
    spec = importlib.util.spec_from_file_location(f"sigward_addon_{path.stem}", path)
    if path.is_file() and (wrong := complaint(path, secret=False)):
        raise UsageError(f"addons: {wrong[0]}.", hint=wrong[1])
    try:
        if spec is None or spec.loader is None:
            raise ImportError("it is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"addons: {path}: {error}.", hint="Name a mitmproxy script that can be imported.") from error
    return module


def serve(name: str, arguments: list[str]) -> int:
    """`sigward serve` or `sigward web`, as `name` says, until SIGTERM or SIGINT; a second one, or SIGQUIT, ends at once.

    SIGHUP reads flags, environment, file and credentials anew.
    """
    plan = read_at_start(name, arguments)
    start_logging(plan.log_level, plan.log_format)
    descriptors.raise_limit()
    leave_own_proxy()

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def at_once() -> None:
            # Another signal would cost the logs their last lines, which take a second or two at most.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            logger.warning("Stopping at once: in-flight requests cut off: %d.", service.engine.in_flight())
            service.close(0)
            os._exit(1)

        def asked() -> None:
            if stop.is_set():
                at_once()
            logger.info("stopping: requests under way have %g s", plan.grace)
            notify.stopping()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        loop.add_signal_handler(signal.SIGQUIT, at_once)
        service = Service(plan)
        reloads = Reloads(service, name, arguments)
        loop.add_signal_handler(signal.SIGHUP, reloads.begin)
        try:
            await service.start()
            tell(f"sigward: {service.ready_line()}", plan.log_format)
            if plan.web:
                tell(f"sigward: web={service.front.web_url}", plan.log_format)
            notify.ready()
            ended = loop.create_task(service.front.wait_closed())
            waiting = loop.create_task(stop.wait())
            await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                raise SigwardError("the front has ended by itself.", hint="See the log above; please report it.")
        finally:
            await service.stop()
        return 0

    return run_loop(main, plan.front)


class Reloads:
    """SIGHUPs: the settings are read beside the event loop, one time after the other."""

    def __init__(self, service: Service, name: str, arguments: list[str]) -> None:
        self.service, self.name, self.arguments = service, name, arguments
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Returns at once."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _reload(self) -> None:
        async with self._turn:
            notify.reloading()
            try:
                self.service.reload(await asyncio.to_thread(self._read))
            finally:
                notify.ready()

    def _read(self) -> Plan | SigwardError:
        try:
            return read_again(self.name, self.arguments)
        except SigwardError as error:
            return error
        except OSError as error:
            return SigwardError(
                f"the settings could not be read again: {error}.",
                hint="Check memory and process limits, and that the Python that runs sigward still exists.",
            )


def run_program(plan: Plan, program: list[str], key: IssuedKey, *, identity: str, needs_credentials: bool) -> int:
    """Runs a program, that signs with `key`, behind a sigward of its own; returns its status, or 128 + the signal that ended it.

    `identity`: whose keys its requests get where no route says. `needs_credentials`: without them it is not started. Raises
    `CredentialsError` then.
    """
    start_logging(plan.log_level, plan.log_format)
    descriptors.raise_limit()
    environment = dict(os.environ)
    leave_own_proxy()

    async def main() -> int:
        from sigward.ca import CertificateAuthority
        from sigward.trust import Trust

        service = Service(plan)
        trust = Trust(plan.trust_dir)
        trust.write(CertificateAuthority(plan.ca_dir, plan.ca_names, plan.ca_key))
        try:
            with first_failure_untold(service, identity) if needs_credentials else contextlib.nullcontext():
                await service.start()
                # The first call should find keys, or be told what is wrong.
                await first_load(service.keepers[identity], DEADLINE + 5.0 if needs_credentials else 10.0)
            if needs_credentials:
                raise_without_keys(service.keepers[identity], identity)
            host, port = service.front.addresses["forward"]
            client = ClientEnvironment(f"http://{host}:{port}", trust, plan.region, key)
            return await run_child(program, client.applied_to(environment))
        finally:
            await service.stop()

    return run_loop(main, plan.front)


async def first_load(keeper: Keeper, seconds: float) -> None:
    """Waits for it, at most so long; in steps, as a thread that waits holds up the end."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(keeper.wait_loaded, 0.5) and time.monotonic() < end:
        pass


def raise_without_keys(keeper: Keeper, identity: str) -> None:
    """Raises `CredentialsError` with the cause and the hint of the provider that failed."""
    if keeper.snapshot is None:
        from sigward.cli.commands import no_credentials

        raise no_credentials(keeper.failure or Failure((("chain", "no answer"),)), identity)


@contextlib.contextmanager
def first_failure_untold(service: Service, identity: str) -> Iterator[None]:
    """Within it keepers log nothing: if this identity's fails, an error is to say so, once. Failures of others are logged at the end."""
    log = logging.getLogger(Keeper.__module__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, keeper in service.keepers.items():
            if name != identity and keeper.failure:
                log.warning("no credentials for %s: %s: %s", name, *keeper.failure.cause)


async def run_child(program: list[str], environment: dict[str, str]) -> int:
    """Starts the program in this terminal, passes signals on, returns its status."""
    try:
        child = await asyncio.create_subprocess_exec(*descriptors.for_child(program), env=environment)
    except OSError as error:
        raise RunError(program[0], error) from error
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        # A terminal sends Ctrl-C to both; the program decides what it means.
        loop.add_signal_handler(number, pass_on, child, number)
    status = await child.wait()
    return 128 - status if status < 0 else status


def pass_on(child: asyncio.subprocess.Process, number: int) -> None:
    """Sends a signal to the program, unless the terminal has sent it already."""
    if number in (signal.SIGINT, signal.SIGQUIT) and sys.stdin.isatty():
        return
    if child.returncode is None:
        child.send_signal(number)


def run_loop(main: Callable[[], Any], front: str) -> int:
    """Runs on uvloop where it is to be had, and where requests go through the loop."""
    from sigward.front import loop_factory

    with asyncio.Runner(loop_factory=None if front == "native" else loop_factory) as runner:
        status: int = runner.run(main())
        return status
