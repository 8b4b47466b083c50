"""What all commands share, and the flags of those that serve: apart, so that their start does not wait for the other commands'."""

import sys
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import CliApp
from pydantic_settings.exceptions import SettingsError

from sigward.ca import CertificateAuthority
from sigward.clients import IssuedKey, key_of
from sigward.environ import DUMMY, check_decoded, passed_by
from sigward.errors import UsageError
from sigward.file import TomlFile, find_file
from sigward.settings import REACH_HINT, Settings, check_environment, is_loopback, unknown_flag, usage_error, wrong


def read[T: "Command"](command: type[T], title: str, arguments: list[str]) -> T:
    """One command's settings from flags, environment and file. Raises `UsageError`."""
    check_environment()
    Settings.source = command.find_file(arguments)
    command.model_config["cli_prog_name"] = title
    try:
        made = CliApp.run(command, cli_args=arguments, cli_exit_on_error=False, cli_cmd_method_name="checked")
    except ValidationError as error:
        raise usage_error(error, arguments) from error
    except SettingsError as error:
        text = str(error).removeprefix("error parsing CLI: ")
        hint = unknown_flag(text) if text.startswith("unrecognized arguments: --") else f"See {title} --help, and docs/settings.md."
        raise UsageError(f"{text}.", hint=hint) from error
    for name in command.model_fields:
        value = getattr(made, name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                check_decoded(name, text)
    return made


class Command(Settings):
    """What all commands share."""

    needs_every_rule: ClassVar[bool] = False
    """True: a settings file of the current folder that is not allowed is an error, as its denies must not be dropped silently."""

    @classmethod
    def find_file(cls, arguments: list[str]) -> TomlFile | None:
        """The settings file of these flags. Raises `UsageError`."""
        asks_for_help = any(argument in ("-h", "--help") for argument in arguments)
        return find_file(arguments, refuse=cls.needs_every_rule and not asks_for_help)

    def checked(self) -> None:
        """pydantic-settings calls it once flags are read; the work is done after, so that its errors are its own."""

    def key_for(self, client: str | None) -> IssuedKey:
        """What a program signs with for sigward: a client's issued key, or a dummy where that will do. Raises `UsageError`."""
        if client is not None:
            return key_of(self.clients, client)
        if self.clients.required:
            raise UsageError(
                "clients.required: a dummy key will not do.", hint=f"Choose --client: {', '.join(sorted(self.clients.issued()))}."
            )
        return DUMMY

    def warn_of_no_proxy(self, own: Mapping[str, str]) -> None:
        """Of entries that keep calls away from sigward. `own`: the program's environment."""
        for entry in passed_by(own, self.routed_names()):
            sys.stderr.write(f"warning: NO_PROXY names {entry!r}: programs that use it bypass sigward, unsigned. Remove it.\n")

    def authority(self) -> CertificateAuthority:
        """The CA that the settings name."""
        return CertificateAuthority(self.ca_dir, self.vouched_names(), self.ca_key)


class Serve(Command):
    """Serve until SIGTERM: forward proxy, reverse listeners, admin."""

    needs_every_rule = True
    compat: Literal["aws-sigv4-proxy"] | None = Field(
        None, description="Take the flags of that proxy instead of these: `sigward --compat aws-sigv4-proxy --help` tells them."
    )

    # `sigward.cli.serving` has it read, and does it.


class Web(Serve):
    """Serve as `sigward serve` does, and show in the browser what happens: mitmweb with sigward's view."""

    inspects = True

    @model_validator(mode="after")
    def _check_pages(self) -> "Web":
        if self.front != "mitmproxy":
            wrong("front: what the native front serves cannot be looked at", 'Leave front out, or set front = "mitmproxy".')
        host = f"[{self.web_host}]" if ":" in self.web_host else self.web_host
        if not is_loopback(f"{host}:{self.web_port}") and not self.allow_remote:
            wrong(f"web_host: {self.web_host} can be reached by other hosts, and what is shown is theirs to see", REACH_HINT)
        return self


SERVING: dict[str, type[Serve]] = {"serve": Serve, "web": Web}
"""Commands that serve until they are told to end."""
