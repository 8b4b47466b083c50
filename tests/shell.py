"""sigward's command line, run as a person would."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import assert_no_secret

KEY, SECRET, TOKEN = "AKIDCLITESTS", "the-cli-secret", "the-cli-token"


@dataclass
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


class Shell:
    """Runs sigward as a person would: a process of its own, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment |= {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(home / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"),
        }

    def keys(self, *, token: bool = False) -> "Shell":
        self.environment |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        if token:
            self.environment["AWS_SESSION_TOKEN"] = TOKEN
        return self

    def settings(self, text: str) -> None:
        """Its settings file, sigward.toml, named by SIGWARD_CONFIG."""
        (self.home / "sigward.toml").write_text(text)
        self.environment["SIGWARD_CONFIG"] = "sigward.toml"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sigward", *arguments]

    def __call__(self, *arguments: str, stdin: str | None = None) -> Ran:
        ran = subprocess.run(
            self.command(*arguments), cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=60, input=stdin
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        if ran.returncode in (64, 69, 70, 77, 78):
            plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.stderr)
            assert plain.strip().splitlines()[-1].startswith("hint: "), ran.stderr
            assert ran.stderr.count("hint: ") == 1, ran.stderr
        # What `token` prints on stdout is made to stand for a password, with the session token in it.
        told = ran.stderr if arguments[:1] == ("token",) else ran.stdout + ran.stderr
        assert_no_secret(told, f"the output of sigward {arguments[0] if arguments else ''}")
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.home, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
