"""AWS's own signing vectors: SigV4 and SigV4a, by headers and by query, every string; and our verifier takes what AWS signed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from sigward import _core
from tests.conftest import signing_suite

WHEN = 1_440_938_160
SUITE = signing_suite()
ABSENT = "AWS's signing suite is missing: set SIGWARD_SIGNING_SUITE"


class Vector:
    """One case of the suite, read from its folder. `form`: "header" or "query"."""

    def __init__(self, folder: Path, form: str) -> None:
        context = json.loads((folder / "context.json").read_text())
        self.credentials = context["credentials"]
        self.form = form
        self.variant = folder.parent.name
        self.expires = context["expiration_in_seconds"]
        self.normalize = context["normalize"]
        self.sign_body = context["sign_body"]
        self.token: Literal["signed", "added-after"] = "added-after" if context.get("omit_session_token") else "signed"
        self.region, self.service = context["region"], context["service"]
        self.method, self.path, self.query, self.headers, self.body = request((folder / "request.txt").read_bytes())
        # In the signed request a header's folded lines are as they were, too.
        self.signed = request((folder / f"{form}-signed-request.txt").read_bytes())

        def text(name: str) -> str:
            return (folder / f"{form}-{name}.txt").read_text()

        self.canonical, self.to_sign, self.signature = text("canonical-request"), text("string-to-sign"), text("signature")
        self.folder = folder

    def signer(self) -> _core.Signer:
        return _core.Signer(
            self.credentials["access_key_id"],
            self.credentials["secret_access_key"],
            self.credentials.get("token"),
            self.region,
            self.service,
            variant=self.variant,  # type: ignore[arg-type]
            token=self.token,
            normalize=self.normalize,
            content_sha256=self.sign_body and self.form == "header",
        )

    def verifier(self) -> _core.Verifier:
        key = self.credentials
        return _core.Verifier(key["access_key_id"], key["secret_access_key"], key.get("token"), token=self.token, normalize=self.normalize)

    def steps(self) -> _core.SigningSteps:
        request = (self.method, self.path, self.query, self.headers, self.body)
        if self.form == "query":
            return self.signer().presign_steps(*request, self.expires, WHEN)
        return self.signer().steps(*request, WHEN)


Request = tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]], bytes]


def request(raw: bytes) -> Request:
    """(method, path, query, headers, body)"""
    head, _, body = raw.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.rpartition(b" ")[0].partition(b"?")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in b" \t" and headers:
            name, value = headers[-1]
            headers[-1] = (name, value + b"\n" + line)
        elif line:
            name, _, value = line.partition(b":")
            headers.append((name, value))
    return method, path, query, headers, body.removesuffix(b"\n") if body == b"\n" else body


def folders(suite: Path, variant: str) -> list[Path]:
    """The cases. Two folders of SigV4a's hold a request alone, and nothing to compare with."""
    return sorted(folder for folder in (suite / variant).iterdir() if (folder / "header-canonical-request.txt").exists())


def vectors() -> Iterator[Any]:
    if SUITE is None:
        yield pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))
        return
    for variant in ("v4", "v4a"):
        for folder in folders(SUITE, variant):
            for form in ("header", "query"):
                yield pytest.param(Vector(folder, form), id=f"{variant}-{form}-{folder.name}")


def test_all_vectors_are_there() -> None:
    if SUITE is None:
        pytest.skip(ABSENT)
    assert {variant: len(folders(SUITE, variant)) for variant in ("v4", "v4a")} == {"v4": 38, "v4a": 38}


@pytest.mark.parametrize("vector", list(vectors()))
def test_every_string(vector: Vector) -> None:
    steps = vector.steps()
    assert steps.canonical_request.decode() == vector.canonical
    assert steps.string_to_sign == vector.to_sign
    if vector.variant == "v4":
        assert steps.signature == vector.signature


@pytest.mark.parametrize("vector", list(vectors()))
def test_what_is_added(vector: Vector) -> None:
    """All of it is what the signed request has; SigV4a's signature is random."""
    steps = vector.steps()

    def comparable(text: bytes) -> bytes:
        return text if vector.variant == "v4" else text.partition(b"Signature=")[0]

    if vector.form == "query":
        ours, theirs = (
            {term.partition(b"=")[0]: comparable(term) for term in query.split(b"&") if term.startswith(b"X-Amz-")}
            for query in (steps.query or b"", vector.signed[2])
        )
        assert ours == theirs
    else:
        before = {name.lower() for name, _ in vector.headers}
        signed = {name.lower(): comparable(value) for name, value in vector.signed[3]}
        assert {name: comparable(value) for name, value in steps.headers} == {
            name: value for name, value in signed.items() if name not in before
        }


@pytest.mark.parametrize("vector", list(vectors()))
def test_what_aws_signed_is_believed(vector: Vector) -> None:
    method, path, query, headers, body = vector.signed
    vector.verifier().verify(method, path, query, headers, body, WHEN)
    with pytest.raises(_core.VerificationError) as caught:
        vector.verifier().verify(b"PUT", path, query, headers, body, WHEN)
    assert caught.value.slug == "signature"


@pytest.mark.parametrize("vector", list(vectors()))
def test_what_we_signed_is_believed(vector: Vector) -> None:
    steps = vector.steps()
    if vector.form == "query":
        vector.verifier().verify(vector.method, vector.path, steps.query or b"", vector.headers, vector.body, WHEN)
    else:
        vector.verifier().verify(vector.method, vector.path, vector.query, [*vector.headers, *steps.headers], vector.body, WHEN)


@pytest.mark.parametrize("vector", [case for case in vectors() if "v4a" in str(case.id)])
def test_the_key_pair_is_the_suites(vector: Vector) -> None:
    point = json.loads((vector.folder / "public-key.json").read_text())
    assert vector.signer().public_key() == b"\x04" + bytes.fromhex(point["X"]) + bytes.fromhex(point["Y"])
