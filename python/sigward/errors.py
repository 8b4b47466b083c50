"""What sigward raises. Every error names the cause and ends in a hint, and knows its exit status (sysexits.h).

SigwardError (70)
├── UsageError (64)        wrong flags or settings
├── CredentialsError (77)  the chain found no usable keys
├── CaError (78)           the CA's files are missing, damaged or readable by others
├── UnavailableError (69) an address is in use
├── DemoError (69)         the demo cannot run here
└── FrontError (69)        sigward.mitm.front: a listener cannot be bound
"""


class SigwardError(Exception):
    """Base of what sigward raises. `slug`: for machines. `fault`: who has to mend it. `hint`: how. `exit_code`: for the shell."""

    slug = "error"
    fault = "sigward"
    exit_code = 70

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]}\nhint: {self.hint}"


class UsageError(SigwardError):
    """Flags, environment or settings file do not hold; the message names the place, the key and what was found."""

    slug = "bad-settings"
    exit_code = 64


class CredentialsError(SigwardError):
    """No usable keys; the message lists what was tried."""

    slug = "no-credentials"
    exit_code = 77


class CaError(SigwardError):
    """The CA cannot be used; the message names the file."""

    slug = "bad-ca"
    exit_code = 78


class UnavailableError(SigwardError):
    """Something that is needed is taken or not there; the message names it."""

    slug = "unavailable"
    exit_code = 69


class DemoError(SigwardError):
    """The demo cannot run here; the message says what is missing."""

    slug = "demo-failed"
    exit_code = 69
