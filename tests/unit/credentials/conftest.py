"""What tests of credentials share."""

import threading
from collections.abc import Iterator

import pytest

from tests.unit.credentials.servers import Sts


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    """STS, and keys in the environment to call it with."""
    server = Sts()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
