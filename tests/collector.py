"""A collector of OpenTelemetry's signals (OTLP over HTTP, protobuf), as real as tests need it."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import Received, read_request

PATIENCE = 20.0


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as Python's values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


class Collector:
    """`received`: each request. `statuses`: what the next ones are answered; 200 where there is none."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.changed = asyncio.Condition()
        self.tls = tls
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls, limit=1 << 24)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while received := await read_request(reader):
                status = self.statuses.pop(0) if self.statuses else 200
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
                async with self.changed:
                    self.received.append(received)
                    self.changed.notify_all()
        writer.close()

    def settings(self, **more: Any) -> dict[str, Any]:
        """The engine's `otlp`, with traces alone."""
        return {"traces": f"http://127.0.0.1:{self.port}/v1/traces", "delay": 0.02, **more}

    async def wait_for(self, come: Callable[[], bool], what: str) -> None:
        """Waits until it has come in."""
        async with asyncio.timeout(PATIENCE), self.changed:
            try:
                await self.changed.wait_for(come)
            except TimeoutError:
                raise AssertionError(f"never: {what}; {len(self.received)} requests came") from None

    def exported(self) -> list[ExportTraceServiceRequest]:
        """Every request with spans."""
        return [ExportTraceServiceRequest.FromString(one.body) for one in self.received if one.target == "/v1/traces"]

    def spans(self) -> list[Span]:
        """All of them."""
        return [span for one in self.exported() for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]

    async def requests(self, count: int) -> list[Span]:
        """The spans of so many requests."""
        await self.wait_for(lambda: len(self.roots()) >= count, f"{count} requests' spans")
        assert len(self.roots()) == count
        return self.roots()

    def roots(self) -> list[Span]:
        """Spans of the server's kind, in the order of their begin."""
        return sorted((span for span in self.spans() if span.kind == Span.SPAN_KIND_SERVER), key=lambda span: span.start_time_unix_nano)

    def below(self, root: Span) -> list[Span]:
        """A request's other spans, in the order of their begin."""
        found = [span for span in self.spans() if span.parent_span_id == root.span_id and span.trace_id == root.trace_id]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))

    def metrics(self) -> Iterator[tuple[dict[str, Any], dict[str, Metric]]]:
        """(resource, metric by name) of every request with metrics."""
        for received in self.received:
            if received.target == "/v1/metrics":
                for of in ExportMetricsServiceRequest.FromString(received.body).resource_metrics:
                    yield plain(of.resource.attributes), {metric.name: metric for scope in of.scope_metrics for metric in scope.metrics}
