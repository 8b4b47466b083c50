"""What every test may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def signing_suite() -> Path | None:
    """AWS's signing vectors: `$SIGWARD_SIGNING_SUITE`, else beside the checkout. They are not part of the project."""
    named = os.environ.get("SIGWARD_SIGNING_SUITE")
    places = [Path(named)] if named else [ROOT.parent / "shared" / "aws-signing-test-suite", ROOT / "shared" / "aws-signing-test-suite"]
    return next((place for place in places if (place / "v4").is_dir()), None)


@pytest.fixture(autouse=True)
def no_aws_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the keys, profiles or proxies of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SIGWARD_")) and name not in ("SIGWARD_SIGNING_SUITE", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
