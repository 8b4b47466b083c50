"""The command line: one module a command. Data goes to stdout, all else to stderr; every error ends in a hint.

`main` picks the command by its first word and lets pydantic-settings read the rest, so that each command's flags win over the
environment and the file.
"""

import os
import sys

from sigward.errors import SigwardError, UsageError

COMMANDS = {
    "serve": "Serve: forward proxy, reverse listeners, admin.",
    "web": "Serve, and show in the browser what happens: mitmweb with sigward's view.",
    "run": "Run a program behind a sigward of its own: sigward run -- CMD …",
    "sign": "Show how one request is signed, in four steps.",
    "explain": "Say why AWS refused a signature, from the body of its answer.",
    "token": "Print a token for RDS, ElastiCache, MSK or EKS.",
    "whoami": "Say whose credentials sigward would use, and from where.",
    "imds": "Read EC2's instance metadata (version 2): the role's name, the region, user data.",
    "login": "Open a session with an MFA code.",
    "client": "Keys that sigward issues to its clients: key NAME, list, credentials.",
    "quotas": "The quotas behind what AWS throttles; quotas request CODE VALUE asks for more.",
    "knowledge": "What sigward knows of a host; a table of the botocore that is installed.",
    "actions": "Say which operation a request is, and which IAM actions it needs.",
    "env": "Print the variables that send a program through sigward.",
    "ca": "The CA that clients trust: path, export, trust, renew.",
    "config": "Allow a folder's sigward.toml to be read: config allow, config revoke.",
    "check": "Check settings, CA and credentials without serving.",
    "healthcheck": "Ask a sigward that runs here whether it is ready.",
    "completion": "Print a shell's completions: completion bash, zsh or fish.",
    "demo": "Show it all working against an emulator that verifies signatures.",
}


def main() -> int:
    """Entry point. Returns the exit status: 0, or as `sigward.errors` says."""
    arguments = sys.argv[1:]
    try:
        status = dispatch(arguments)
        # Here, where a reader that has gone can still be told apart; at exit Python would only complain.
        sys.stdout.flush()
        return status
    except SigwardError as error:
        fail(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read stdout has gone; Python would complain once more while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def dispatch(arguments: list[str]) -> int:
    """Runs one command. Raises `SigwardError`."""
    if not arguments:
        raise UsageError("there is no command.", hint=f"One of {', '.join(COMMANDS)}; sigward --help tells what each does.")
    if arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        from sigward import __version__

        sys.stdout.write(f"sigward {__version__}\n")
        return 0
    if arguments[0].partition("=")[0] == "--compat":
        # In place of another proxy, whose flags are all that its container's arguments hold.
        arguments = ["serve", *arguments]
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        from sigward.settings import did_you_mean

        raise UsageError(f"{name!r} is not a command.", hint=did_you_mean(name, set(COMMANDS)))
    if name in ("serve", "web"):
        from sigward.cli.serving import serve

        return serve(name, rest)
    if name == "healthcheck":
        from sigward.cli.healthcheck import healthcheck

        return healthcheck(rest)
    from sigward.cli import commands

    return commands.run(name, rest)


def overview() -> str:
    """What `sigward --help` shows."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "sigward: an HTTPS signing proxy for AWS",
            "",
            "usage: sigward COMMAND [flags]",
            "",
            *lines,
            "",
            "sigward COMMAND --help tells a command's flags.",
            "",
        ]
    )


def fail(error: SigwardError) -> None:
    """Says on stderr what went wrong and how to mend it. rich heeds NO_COLOR."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "red"), str(error.args[0])))
    console.print(Text.assemble(("hint: ", "cyan"), error.hint))
