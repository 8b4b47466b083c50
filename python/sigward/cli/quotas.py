"""`sigward quotas`: which quotas stand behind what AWS throttles, how much of them is used, and how to get more.

AWS's Service Quotas API: ListServiceQuotas, ListAWSDefaultServiceQuotas, RequestServiceQuotaIncrease; CloudWatch's `AWS/Usage`.
"""

import json
import re
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sigward.cli.signing import load_credentials
from sigward.credentials import Chain
from sigward.credentials.chain import explain
from sigward.errors import SigwardError, UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import Quotas

CODES = {
    "cloudwatch": "monitoring",
    "stepfunctions": "states",
    "dynamodbstreams": "dynamodb",
    "cognito-identity": "cognito-identity",
    "elbv2": "elasticloadbalancing",
    "elb": "elasticloadbalancing",
    "efs": "elasticfilesystem",
    "emr": "elasticmapreduce",
    "apigatewayv2": "apigateway",
    "ses": "ses",
    "sesv2": "ses",
    "s3control": "s3",
}
"""Service Quotas' code, where it is not botocore's name of the service."""

RATES = re.compile(r"rate|per second|requests|throttl|tps|transactions|\bAPI\b|calls", re.IGNORECASE)
"""What the name of a quota of calls holds."""


class QuotasError(SigwardError):
    """AWS does not tell, or does not take the request; the message has its words."""

    slug = "quotas-failed"
    exit_code = 69


@dataclass(frozen=True)
class Quota:
    """One quota. `value`: applied to this account; `default`: AWS's. `used`: the most in a period of the last hour, None: unknown."""

    service: str
    code: str
    name: str
    value: float
    default: float | None
    unit: str
    adjustable: bool
    used: float | None = None


@dataclass(frozen=True)
class Throttled:
    """One operation that the running sigward has seen throttled."""

    service: str
    operation: str
    region: str
    calls: int
    throttled: int
    ever: int
    steady: bool


def quotas(command: "Quotas") -> int:
    """Returns the exit status. Raises `UsageError`, `CredentialsError`, `QuotasError`."""
    if command.first == "request":
        return request(command)
    seen = throttled(command.admin)
    services = [command.first] if command.first else sorted({one.service for one in seen})
    if not services:
        raise UsageError(
            "quotas: no service is named, and no running sigward has seen one throttled.",
            hint="Name one: sigward quotas ec2. A sigward that serves is asked by its `admin` address.",
        )
    clients = Clients(command)
    found: list[Quota] = []
    for service in services:
        operations = [one.operation for one in seen if one.service == service]
        told = list_quotas(clients, CODES.get(service, service))
        found += told if command.all_quotas else chosen(told, operations)
    if command.usage:
        found = [clients.with_usage(quota) for quota in found]
    if command.json_output:
        sys.stdout.write(json.dumps({"throttled": [asdict(one) for one in seen], "quotas": [asdict(quota) for quota in found]}) + "\n")
        return 0
    show(seen, found)
    return 0


class Clients:
    """AWS clients with the default identity's credentials."""

    def __init__(self, command: "Quotas") -> None:
        found, region = load_credentials(command)
        self.keys, self.region = found.snapshot, region.name
        self.metrics: dict[tuple[str, str], dict[str, Any]] = {}

    def of(self, service: str) -> Any:
        """One client."""
        session = Chain(None, self.region).session()
        keys: dict[str, Any] = {
            "aws_access_key_id": self.keys.access_key_id,
            "aws_secret_access_key": self.keys.secret_access_key,
            "aws_session_token": self.keys.session_token,
        }
        return session.create_client(service, region_name=self.region, **keys)

    def with_usage(self, quota: Quota) -> Quota:
        """The quota with what CloudWatch says of it; as it was where it says nothing."""
        metric = self.metrics.get((quota.service, quota.code))
        if not metric:
            return quota
        now = datetime.now(UTC)
        asked = {
            "Namespace": metric["MetricNamespace"],
            "MetricName": metric["MetricName"],
            "Dimensions": [{"Name": name, "Value": value} for name, value in metric.get("MetricDimensions", {}).items()],
            "StartTime": now - timedelta(hours=1),
            "EndTime": now,
            "Period": 60,
            "Statistics": [metric.get("MetricStatisticRecommendation", "Maximum")],
        }
        try:
            points = self.of("cloudwatch").get_metric_statistics(**asked)["Datapoints"]
        except Exception:  # no right to it, or no such metric: the quota is told all the same
            return quota
        values = [point[asked["Statistics"][0]] for point in points]
        if not values:
            return quota
        # CloudWatch counts calls a minute, quotas count them a second.
        scale = 60 if metric["MetricName"] in ("CallCount", "ThrottleCount") and asked["Statistics"] == ["Sum"] else 1
        return Quota(**{**asdict(quota), "used": max(values) / scale})


def list_quotas(clients: Clients, code: str) -> list[Quota]:
    """A service's quotas: the applied value, else AWS's default. Raises `QuotasError`."""
    client = clients.of("service-quotas")
    try:
        defaults = {raw["QuotaCode"]: raw for raw in pages(client, "list_aws_default_service_quotas", code)}
        applied = {raw["QuotaCode"]: raw for raw in pages(client, "list_service_quotas", code)}
    except Exception as error:  # botocore's kinds, and the network's
        told = error_code(error)
        hint = {
            "NoSuchResourceException": "Service Quotas calls some services otherwise than their API: aws service-quotas list-services.",
            "AccessDeniedException": "The credentials need servicequotas:ListServiceQuotas and servicequotas:ListAWSDefaultServiceQuotas.",
        }.get(told, "See `sigward whoami` for whose credentials were used.")
        raise QuotasError(f"quotas: {code}: {explain(error)}.", hint=hint) from error
    found = []
    for quota_code, raw in (defaults | applied).items():
        if raw.get("UsageMetric"):
            clients.metrics[code, quota_code] = raw["UsageMetric"]
        default = defaults.get(quota_code, {}).get("Value")
        period = raw.get("Period") or {}
        unit = "" if raw.get("Unit", "None") == "None" else str(raw["Unit"])
        if period:
            unit = f"{unit} per {period.get('PeriodValue', 1)} {str(period.get('PeriodUnit', '')).lower()}".strip()
        found.append(Quota(code, quota_code, raw["QuotaName"], raw["Value"], default, unit, bool(raw.get("Adjustable"))))
    return sorted(found, key=lambda quota: quota.name)


def pages(client: Any, operation: str, code: str) -> Iterable[dict[str, Any]]:
    """All quotas that a listing gives."""
    for page in client.get_paginator(operation).paginate(ServiceCode=code):
        yield from page["Quotas"]


def chosen(told: list[Quota], operations: list[str]) -> list[Quota]:
    """The quotas of calls: those that name one of the operations, else those whose name speaks of a rate."""
    named = [quota for quota in told if any(mentions(quota.name, operation) for operation in operations)]
    return named or [quota for quota in told if RATES.search(quota.name)]


def mentions(name: str, operation: str) -> bool:
    """True if a quota's name has the operation in it, in one word or in several."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", operation)
    return operation.lower() in name.lower() or spaced.lower() in name.lower()


def throttled(admin: str) -> list[Throttled]:
    """What the running sigward has seen throttled; nothing if none runs at this address."""
    if admin == "off" or admin.endswith(":0"):
        return []
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{admin}/throttled", timeout=2) as answer:
            return [Throttled(**one) for one in json.load(answer)]
    except (OSError, ValueError, TypeError):
        return []


def request(command: "Quotas") -> int:
    """Asks AWS for more of one quota, after asking back. Raises `UsageError`, `QuotasError`."""
    if command.code is None or command.value is None:
        raise UsageError("quotas request: CODE and VALUE are needed.", hint="sigward quotas request L-1216C47A 64 --service ec2")
    try:
        value = float(command.value)
    except ValueError as error:
        raise UsageError(f"quotas request: {command.value!r} is not a number.", hint="The value to ask for, e.g. 200.") from error
    clients = Clients(command)
    service = command.service or next(iter({one.service for one in throttled(command.admin)}), None)
    if service is None:
        raise UsageError("quotas request: whose quota is it?", hint="Name its service: --service ec2.")
    service = CODES.get(service, service)
    known = {quota.code: quota for quota in list_quotas(clients, service)}
    quota = known.get(command.code)
    if quota is None:
        raise UsageError(
            f"quotas request: {service} has no quota {command.code}.", hint=f"sigward quotas {service} --all-quotas lists them."
        )
    if not quota.adjustable:
        raise UsageError(f"quotas request: {quota.name} ({quota.code}) cannot be raised.", hint="Call less often: see [[pace]].")
    if value <= quota.value:
        raise UsageError(f"quotas request: {quota.name} is {quota.value:g} already.", hint="Ask for more than that.")
    if not command.yes:
        sys.stderr.write(f"Ask AWS to raise {quota.name} ({quota.code}) in {clients.region} from {quota.value:g} to {value:g}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            sys.stderr.write("nothing was asked for\n")
            return 1
    try:
        answer = clients.of("service-quotas").request_service_quota_increase(ServiceCode=service, QuotaCode=quota.code, DesiredValue=value)
    except Exception as error:  # botocore's kinds, and the network's
        hint = {
            "ResourceAlreadyExistsException": "There is an open request for this quota: aws service-quotas "
            "list-requested-service-quota-change-history.",
            "AccessDeniedException": "The credentials need servicequotas:RequestServiceQuotaIncrease.",
        }.get(error_code(error), "See `sigward whoami` for whose credentials were used.")
        raise QuotasError(f"quotas request: {explain(error)}.", hint=hint) from error
    made = answer["RequestedQuota"]
    sys.stdout.write(f"{made.get('Id', '')}  {made.get('Status', '')}\n")
    return 0


def error_code(error: Exception) -> str:
    """AWS's code, if it is an answer of AWS's."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def show(seen: list[Throttled], found: list[Quota]) -> None:
    """Two tables for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    if seen:
        table = Table("operation", "region", "throttled in a minute", "since the start", "what to do", title="Throttled")
        for one in seen:
            advice = "steady: raise the quota, or call less often" if one.steady else "now and then: backoff takes care of it"
            table.add_row(f"{one.service}:{one.operation}", one.region, f"{one.throttled} of {one.calls}", str(one.ever), advice)
        console.print(table)
    table = Table("code", "quota", "value", "default", "used", "can be raised", title="Quotas")
    for quota in found:
        used = "" if quota.used is None else f"{quota.used:g} ({quota.used / quota.value:.0%})" if quota.value else f"{quota.used:g}"
        default = "" if quota.default is None else f"{quota.default:g}"
        table.add_row(quota.code, quota.name, f"{quota.value:g} {quota.unit}".strip(), default, used, "yes" if quota.adjustable else "no")
    console.print(table)
