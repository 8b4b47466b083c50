"""The reference of the metrics, made from the engine's own registry: `python -m sigward.metrics`."""

import sys

from sigward import _core

HEAD = """\
# Metrics

`GET /metrics` on the admin address (`admin`, 127.0.0.1:9901) gives them in Prometheus's text format; `[otlp]` sends the same
by OpenTelemetry's protocol ([Telemetry](telemetry.md)). Both fronts count alike.

This page is made from the code: `python -m sigward.metrics`.

| metric | kind | labels | what it counts |
|---|---|---|---|
"""

TAIL = """
A series appears with the first thing that it counts. Of a histogram there are `_bucket`, `_sum` and `_count`.

## Labels

| label | values |
|---|---|
| `service` | The signing name, such as `dynamodb`; empty: the host is not AWS's; `other`: neither the table nor a route has it. |
| `operation` | What the table of operations calls it, such as `PutItem`; empty: it does not know. |
| `region` | The region of the signature; `*`: every one; `other`: neither the table nor the settings have it. |
| `identity` | Whose credentials: `default`, or an `[identities.NAME]`. |
| `action` | `sign`, `pass`, `deny` (by a route) or `refuse`. A denied call has the labels that it would have if it were signed. |
| `code` | The status that the client got, or `client-gone`. |
| `cause` | The outcome that was repeated: a status (`503`), with `throttled`, `expired`, `clock` or `region`, or an error's slug. |
| `rule` | The name of the `[[pace]]` rule or of the documented limit. In `sigward_would_refuse_total`: of the rule that would refuse. |
| `kind` | Where the request names its call twice: `target`, `query`, … |
| `reason` | Of `sigward_passed_total`: why the request passed, see [What is signed](what-is-signed.md). Of others: what happened. |
| `endpoint` | `host:port` of the upstream. |

A Grafana dashboard is in `deploy/grafana/sigward.json`, alert rules for Prometheus are in `deploy/prometheus/sigward.rules.yaml`; they take
`sigward` for the name of the scrape's job.
"""


def reference() -> str:
    """docs/metrics.md."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '–'} | {text} |"
        for name, kind, text, labels in _core.metric_descriptions()
    ]
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    sys.stdout.write(reference())
