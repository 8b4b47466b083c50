"""Five S3 clients before versitygw: direct, and through both fronts, by endpoint URL and by HTTPS_PROXY. `make s3-matrix` runs the rest."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.s3_matrix.clients import CLIENTS, Client
from tests.e2e.s3_matrix.expected import reason
from tests.e2e.s3_matrix.matrix import Cell, Matrix
from tests.e2e.s3_matrix.servers import started
from tests.needs import need

CELLS = (
    Cell("mitmproxy", "endpoint", "chunked"),
    Cell("mitmproxy", "proxy", "stream"),
    Cell("native", "endpoint", "stream"),
    Cell("native", "proxy", "chunked"),
)
"""Each front with each way and treatment. What is held and what is spooled is in other tests, and in every client's small objects."""

NAMES = {"boto3": CELLS[::3], "Go SDK": CELLS, "minio-go": CELLS, "JS SDK": CELLS[1:3], "s3cmd": CELLS[1:3]}
"""Where each goes: the slow ones not everywhere."""


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    need("versitygw")
    with ExitStack() as stack:
        matrix = Matrix(stack.enter_context(started("versitygw")), stack)
        matrix.start(CELLS)
        yield matrix


@pytest.mark.parametrize("name", NAMES)
def test_clients_find_no_difference(matrix: Matrix, name: str) -> None:
    client: Client = CLIENTS[name]
    if missing := client.missing():
        pytest.skip(missing)
    compared = list(matrix.run_all([client], NAMES[name], workers=2))
    assert all(one.steps > 15 for one in compared), compared
    differences = [str(difference) for one in compared for difference in one.differences if not reason(difference)]
    assert not differences, "\n".join(differences)


def test_a_difference_is_found(matrix: Matrix) -> None:
    """Else the tests above would show nothing."""
    liar = Client("liar", lambda place: {"put": "stored" if place.proxy else "refused"}, ())
    [compared] = matrix.run_all([liar], [Cell("native", "proxy", "stream")], workers=1)
    assert [(one.step, one.direct, one.through) for one in compared.differences] == [("put", "refused", "stored")]
