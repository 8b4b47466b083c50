"""What all commands share, and `serve`'s flags: apart from the other commands', so that its start does not wait for theirs."""

from pydantic import ValidationError
from pydantic_settings import CliApp
from pydantic_settings.exceptions import SettingsError

from sigward.ca import CertificateAuthority
from sigward.clients import IssuedKey, key_of
from sigward.environ import DUMMY
from sigward.errors import UsageError
from sigward.settings import Settings, check_environment, find_file, unknown_flag, usage_error


def read[T: Settings](command: type[T], title: str, arguments: list[str]) -> T:
    """One command's settings from flags, environment and file. Raises `UsageError`."""
    check_environment()
    Settings.source = find_file(arguments)
    command.model_config["cli_prog_name"] = title
    try:
        return CliApp.run(command, cli_args=arguments, cli_exit_on_error=False, cli_cmd_method_name="checked")
    except ValidationError as error:
        raise usage_error(error, arguments) from error
    except SettingsError as error:
        text = str(error).removeprefix("error parsing CLI: ")
        hint = unknown_flag(text) if text.startswith("unrecognized arguments: --") else f"See {title} --help, and docs/settings.md."
        raise UsageError(f"{text}.", hint=hint) from error


class Command(Settings):
    """What all commands share."""

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

    def authority(self) -> CertificateAuthority:
        """The CA that the settings name."""
        return CertificateAuthority(self.ca_dir, self.vouched_names())


class Serve(Command):
    """Serve until SIGTERM: forward proxy, reverse listeners, admin."""

    # `sigward.cli.serving` has it read, and does it.
