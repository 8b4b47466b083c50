"""`sigward quotas`: a small server that speaks Service Quotas, CloudWatch and sigward's own admin address."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.shell import Shell

RATE = {
    "QuotaCode": "L-RATE",
    "QuotaName": "Request rate of DescribeInstances",
    "Value": 100.0,
    "Unit": "None",
    "Adjustable": True,
    "Period": {"PeriodValue": 1, "PeriodUnit": "SECOND"},
    "UsageMetric": {
        "MetricNamespace": "AWS/Usage",
        "MetricName": "CallCount",
        "MetricDimensions": {"Resource": "DescribeInstances", "Service": "EC2", "Type": "API", "Class": "None"},
        "MetricStatisticRecommendation": "Sum",
    },
}
OTHER = {"QuotaCode": "L-OTHER", "QuotaName": "API calls a second of RunInstances", "Value": 2.0, "Unit": "None", "Adjustable": False}
COUNT = {"QuotaCode": "L-COUNT", "QuotaName": "Elastic IPs", "Value": 5.0, "Unit": "None", "Adjustable": True}
THROTTLED = {
    "service": "ec2", "operation": "DescribeInstances", "region": "eu-west-1", "calls": 90, "throttled": 30, "ever": 300, "steady": True,
}  # fmt: skip


class Aws(ThreadingHTTPServer):
    """`asked`: (operation, what it was told). `fails`: a code to refuse with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AwsHandler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, str] = {}
        self.throttled: list[dict[str, Any]] = [THROTTLED]


class AwsHandler(BaseHTTPRequestHandler):
    server: Aws

    def do_GET(self) -> None:
        self.reply(200, self.server.throttled)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        target = self.headers.get("x-amz-target", "")
        operation = target.rpartition(".")[2] or self.path.rpartition("/")[2]
        told = json.loads(body) if body.startswith(b"{") else {"body": body.decode("latin-1")}
        self.server.asked.append((operation, told))
        if code := self.server.fails.get(operation):
            return self.reply(400, {"__type": code, "message": "no"})
        if operation == "ListServiceQuotas":
            return self.reply(200, {"Quotas": [RATE | {"Value": 120.0}, COUNT]})
        if operation == "ListAWSDefaultServiceQuotas":
            if "NextToken" not in told:
                return self.reply(200, {"Quotas": [RATE], "NextToken": "more"})
            return self.reply(200, {"Quotas": [OTHER, COUNT]})
        if operation == "RequestServiceQuotaIncrease":
            return self.reply(200, {"RequestedQuota": {"Id": "request-1", "Status": "PENDING", **told}})
        now = datetime.now(UTC).timestamp()
        return self.reply(200, {"Label": "CallCount", "Datapoints": [{"Timestamp": now, "Sum": 3600.0}, {"Timestamp": now, "Sum": 60.0}]})

    def reply(self, status: int, body: object) -> None:
        told = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def aws(sigward: Shell) -> Iterator[Aws]:
    server = Aws()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    sigward.keys()
    sigward.environment |= {
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": url,
        "AWS_ENDPOINT_URL_CLOUDWATCH": url,
        "SIGWARD_ADMIN": url.removeprefix("http://"),
    }
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_quotas_behind_what_was_throttled(sigward: Shell, aws: Aws) -> None:
    ran = sigward("quotas", "--json-output")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["throttled"] == [THROTTLED]
    [quota] = told["quotas"]
    assert (quota["code"], quota["value"], quota["default"], quota["unit"]) == ("L-RATE", 120.0, 100.0, "per 1 second")
    assert quota["used"] == 60.0, "calls a second, of calls a minute"


def test_a_table_for_people(sigward: Shell, aws: Aws) -> None:
    sigward.environment["COLUMNS"] = "200"
    ran = sigward("quotas")
    assert "ec2:DescribeInstances" in ran.out
    assert "steady: raise the quota" in ran.out
    assert "60 (50%)" in ran.out
    assert "Elastic IPs" not in ran.out


def test_a_service_that_is_named(sigward: Shell, aws: Aws) -> None:
    aws.throttled = []
    told = json.loads(sigward("quotas", "ec2", "--json-output", "--no-usage").out)
    assert [quota["code"] for quota in told["quotas"]] == ["L-OTHER", "L-RATE"], "of calls"
    told = json.loads(sigward("quotas", "cloudwatch", "--all-quotas", "--json-output", "--no-usage").out)
    assert [quota["code"] for quota in told["quotas"]] == ["L-OTHER", "L-COUNT", "L-RATE"]
    assert aws.asked[-1][1]["ServiceCode"] == "monitoring"


def test_usage_that_may_not_be_read_is_left_out(sigward: Shell, aws: Aws) -> None:
    aws.fails["GetMetricStatistics"] = "AccessDenied"
    told = json.loads(sigward("quotas", "ec2", "--json-output").out)
    assert {quota["used"] for quota in told["quotas"]} == {None}


def test_nothing_throttled_and_nothing_named(sigward: Shell, aws: Aws) -> None:
    aws.throttled = []
    ran = sigward("quotas")
    assert (ran.status, "no service is named" in ran.err) == (64, True)


@pytest.mark.parametrize(("code", "said"), [("NoSuchResourceException", "list-services"), ("AccessDeniedException", "servicequotas:List")])
def test_what_aws_refuses_says_what_to_do(sigward: Shell, aws: Aws, code: str, said: str) -> None:
    aws.fails["ListAWSDefaultServiceQuotas"] = code
    ran = sigward("quotas", "nosuch")
    assert (ran.status, said in ran.err.replace("\n", " ")) == (69, True), ran.err


def test_more_is_asked_for_after_asking_back(sigward: Shell, aws: Aws) -> None:
    no = sigward("quotas", "request", "L-RATE", "200", stdin="n\n")
    assert (no.status, "nothing was asked for" in no.err) == (1, True)
    assert "from 120 to 200" in no.err
    assert "RequestServiceQuotaIncrease" not in [operation for operation, _ in aws.asked]
    yes = sigward("quotas", "request", "L-RATE", "200", "--service", "ec2", stdin="y\n")
    assert (yes.status, yes.out) == (0, "request-1  PENDING\n")
    assert aws.asked[-1] == ("RequestServiceQuotaIncrease", {"ServiceCode": "ec2", "QuotaCode": "L-RATE", "DesiredValue": 200.0})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("request",), "CODE and VALUE are needed"),
        (("request", "L-RATE", "many"), "is not a number"),
        (("request", "L-NONE", "3"), "has no quota L-NONE"),
        (("request", "L-OTHER", "3"), "cannot be raised"),
        (("request", "L-RATE", "50"), "is 120 already"),
    ],
)
def test_a_request_that_cannot_be(sigward: Shell, aws: Aws, arguments: tuple[str, ...], said: str) -> None:
    ran = sigward("quotas", *arguments, "--yes")
    assert (ran.status, said in ran.err.replace("\n", " ")) == (64, True), ran.err


def test_an_open_request_is_said(sigward: Shell, aws: Aws) -> None:
    aws.fails["RequestServiceQuotaIncrease"] = "ResourceAlreadyExistsException"
    ran = sigward("quotas", "request", "L-RATE", "200", "--yes")
    assert (ran.status, "open request" in ran.err.replace("\n", " ")) == (69, True), ran.err
