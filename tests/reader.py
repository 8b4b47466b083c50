"""A second reading of requests, by moto's code: routing and parsing that are driven by botocore's models and share nothing with sigward."""

import functools
import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.routing import ProtocolRouter, RestRouter, get_router_class
from moto.core.utils import get_service_model
from werkzeug.exceptions import HTTPException

CBOR = "smithy-rpc-v2-cbor"


@dataclass(frozen=True)
class Reading:
    """What a service takes a request for. `bucket`, `key`, `source`: of S3 alone; None: the call has none."""

    operation: str
    bucket: str | None = None
    key: str | None = None
    source: str | None = None

    @property
    def buckets(self) -> set[str]:
        """All that the call touches."""
        copied = unquote(self.source or "").lstrip("/").partition("/")[0]
        return {bucket for bucket in (self.bucket, copied) if bucket}


def read(service: str, method: str, host: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> set[Reading]:
    """All that botocore's `service` may take for a call in what was sent: one reading at most for each protocol that it speaks.

    moto chooses one protocol by the content type, which services do not all do alike. `target`: origin-form, with query.
    """
    path, mark, query = target.partition("?")
    # "Smithy HTTP binding traits": a slash at the end is optional. moto tries greedy labels with it first, so it is left out but for
    # operations whose own path ends in one.
    meant = path if service == "s3" else path.rstrip("/") or "/"
    request = wsgi(method, host, f"{meant}{mark}{query}", headers, body)
    as_sent = wsgi(method, host, f"{path}{mark}{query}", headers, body)
    readings = set()
    for protocol, router in routers(service):
        with_slash = read_as(protocol, router, as_sent) if meant != path else None
        if with_slash is None or with_slash.operation not in ending_in_slash(service):
            with_slash = read_as(protocol, router, request)
        if with_slash is not None:
            readings.add(with_slash)
    if CBOR in protocols(service) and (operation := in_cbor_path(method, target)) in operations(service):
        readings.add(Reading(operation))
    return readings


@functools.cache
def ending_in_slash(service: str) -> frozenset[str]:
    """Operations whose own path ends in a slash, such as `/approval-teams/?List`."""
    found = get_service_model(service)
    paths = {name: found.operation_model(name).http.get("requestUri", "").partition("?")[0] for name in found.operation_names}
    return frozenset(name for name, path in paths.items() if len(path) > 1 and path.endswith("/"))


def read_as(protocol: str, router: ProtocolRouter, request: Request) -> Reading | None:
    try:
        operation, parameters = router.match(request)
    except HTTPException:
        return None
    if isinstance(router, RestRouter) and swallows(operation, router._get_path(request)):
        return None
    if router.service_model.service_name != "s3":
        return Reading(operation.name)
    found = parsed(protocol, operation, request, parameters)
    return Reading(operation.name, found.get("Bucket"), found.get("Key"), found.get("CopySource"))


def swallows(operation: OperationModel, path: str) -> bool:
    """moto lets the last label of every path hold slashes; by the model only one with a `+` does, and no service answers to the others."""
    template = operation.http_trait.path
    return "+}" not in template and path.rstrip("/").count("/") != template.rstrip("/").count("/")


def parsed(protocol: str, operation: OperationModel, request: Request, parameters: dict[str, Any]) -> dict[str, Any]:
    """The members of the call's input that its head has."""
    given = {"method": request.method, "values": request.values, "headers": request.headers, "body": b""}
    try:
        found: dict[str, Any] = PROTOCOL_PARSERS[protocol](operation).parse({**given, "url_path": request.path, "url_params": parameters})
    except ValueError:
        # A member that is no number or time: the service refuses the call, but knows which it is.
        return {**parameters, "CopySource": request.headers.get("x-amz-copy-source")}
    return found


def in_cbor_path(method: str, target: str) -> str:
    """moto has no reader for it: "Smithy RPC v2 CBOR protocol", requests."""
    prefix, _, operation = target.partition("?")[0].rpartition("/operation/")
    return operation if method == "POST" and prefix.rpartition("/service/")[1] else ""


@functools.cache
def protocols(service: str) -> tuple[str, ...]:
    metadata = get_service_model(service).metadata
    return tuple(metadata.get("protocols") or [metadata["protocol"]])


@functools.cache
def operations(service: str) -> frozenset[str]:
    return frozenset(get_service_model(service).operation_names)


@functools.cache
def routers(service: str) -> list[tuple[str, ProtocolRouter]]:
    """moto's, one for each protocol that it knows."""
    found = [(protocol, get_router_class(service, protocol)) for protocol in protocols(service)]
    return [(protocol, router(get_service_model(service))) for protocol, router in found if router]


def wsgi(method: str, host: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Request:
    """The request as a server hands it to moto."""
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_NAME": host,
        "SERVER_PORT": "443",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
    }
    for name, value in headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ["CONTENT_LENGTH"] = str(len(body))
    return Request(environ)
