"""Hosts that AWS's public documents name and botocore's rule sets do not: where customers' own endpoints stand, and what takes no SigV4.

Each row names its source. `tests/unit/test_documented_hosts.py` looks up a host of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Takes = Literal["v4", "scope", "never"]


@dataclass(frozen=True)
class Documented:
    """One pattern, written as in `hosts.py`. Each `*` in front stands for exactly one label of a customer's.

    `takes`: "v4"; "scope" if requests are signed only where the client's own scope names `signing_name`; "never".
    `owner_reads`: the endpoint's owner, any customer of AWS's, may see what is sent there, a session token too.
    `own_api`: what is asked there is none of the operations of the service's models.
    `fips`: the label before the region has a twin that ends in `-fips`.
    """

    pattern: str
    signing_name: str
    source: str
    takes: Takes = "v4"
    region: str = "{r}"
    owner_reads: bool = False
    own_api: bool = False
    fips: bool = False


def customer(pattern: str, signing_name: str, source: str, *, fips: bool = False) -> Documented:
    """Behind it stands what a customer has made, and the customer may read what arrives."""
    return Documented(pattern, signing_name, source, owner_reads=True, own_api=True, fips=fips)


def data(pattern: str, signing_name: str, source: str, *, fips: bool = False) -> Documented:
    """It serves an API that no model of botocore's describes."""
    return Documented(pattern, signing_name, source, own_api=True, fips=fips)


def never(pattern: str, signing_name: str, source: str, *, fips: bool = False) -> Documented:
    """It takes no SigV4: another protocol, other passwords, tokens or certificates, or nothing."""
    return Documented(pattern, signing_name, source, takes="never", own_api=True, fips=fips)


def by_scope(pattern: str, signing_name: str, source: str) -> Documented:
    """Most of its clients authenticate in another way; those that sign say so in their scope."""
    return Documented(pattern, signing_name, source, takes="scope", own_api=True)


LATTICE = "VPC Lattice User Guide, SIGv4 authenticated requests"
SERVERLESS = "OpenSearch Service Developer Guide, Collection endpoints for Amazon OpenSearch Serverless"
REGISTRY = "Amazon ECR User Guide, Private registry authentication; Making requests to Amazon ECR registries (dual-stack, FIPS)"
ARTIFACT = "CodeArtifact User Guide, CodeArtifact authentication and tokens"
Q = "Amazon Q Developer User Guide, Configuring a firewall or proxy; aws/language-servers, client/token and client/sigv4"
AGENTS = "Systems Manager User Guide, Reference: ec2messages, ssmmessages, and other API operations"
GENERAL = "AWS General Reference, AWS service endpoints: General endpoints"
BLOCKCHAIN = "AMB Access Ethereum Developer Guide, Using the JSON-RPC API"
MCP = "Agent Toolkit for AWS and Amazon EKS User Guide, MCP servers; aws/mcp-proxy-for-aws (service: the first label)"
IOT_TLS = "AWS IoT Core Developer Guide, Transport Layer Security and endpoint types: X.509 client certificates"

HOSTS = (
    # Customers' own endpoints.
    customer("*.execute-api.{r}", "execute-api", "API Gateway Developer Guide, Invoke REST APIs", fips=True),
    customer("execute-api.{r}", "execute-api", "API Gateway Developer Guide, Invoke a private API (x-apigw-api-id)"),
    customer("*.appsync-api.{r}", "appsync", "AppSync Developer Guide, AWS_IAM authorization"),
    customer("*.appsync-realtime-api.{r}", "appsync", "AppSync Developer Guide, Building a real-time WebSocket client"),
    customer("*.lambda-url.{r}.on.aws", "lambda", "Lambda Developer Guide, Invoking Lambda function URLs"),
    customer("*.gateway.bedrock-agentcore.{r}", "bedrock-agentcore", "Bedrock AgentCore Developer Guide, Use an AgentCore gateway"),
    customer("*.*.vpc-lattice-svcs.{r}.on.aws", "vpc-lattice-svcs", LATTICE),
    customer("*.vpc-lattice-svcs.{r}.on.aws", "vpc-lattice-svcs", LATTICE),
    # AWS's own APIs behind a customer's name.
    data("*.{r}.es", "es", "OpenSearch Service Developer Guide, Signing HTTP requests"),
    data("*.aos.{r}.on.aws", "es", "OpenSearch Service API Reference, DomainStatus: Endpoints, EndpointV2 (dual-stack)"),
    data("*.{r}.aoss", "aoss", SERVERLESS),
    data("*.aoss.{r}.on.aws", "aoss", SERVERLESS, fips=True),
    data("*.{r}.osis", "osis", "OpenSearch Service Developer Guide, Tutorial: Ingesting data into a collection using OpenSearch Ingestion"),
    Documented("*.{r}.cloudsearch", "cloudsearch", "CloudSearch Developer Guide, Submitting search and document requests"),
    Documented("*.*.{r}.neptune", "neptune-db", "Neptune User Guide, Connecting to Amazon Neptune endpoints"),
    Documented("*.{r}.neptune-graph", "neptune-graph", "Neptune Analytics User Guide, Connecting to a graph"),
    Documented("*.neptune-graph.{r}.on.aws", "neptune-graph", "Neptune Analytics User Guide, Connecting to a graph: dual-stack"),
    Documented("*.iot.{r}", "iotdata", "AWS IoT Core Developer Guide, Connecting devices: iot:Data-ATS, iot:Data", fips=True),
    Documented("data.iot.{r}", "iotdata", "botocore, endpoints.json"),
    Documented("*.jobs.iot.{r}", "iot-jobs-data", "AWS IoT Core Developer Guide, Connecting devices: iot:Jobs", fips=True),
    Documented("*.kinesisvideo.{r}", "kinesisvideo", "Kinesis Video Streams API Reference, GetDataEndpoint", fips=True),
    Documented("*.data.mediastore.{r}", "mediastore", "MediaStore API Reference, DescribeContainer"),
    Documented("*.mediaconvert.{r}", "mediaconvert", "MediaConvert API Reference, DescribeEndpoints: account-specific endpoints"),
    data("*.ethereum.managedblockchain.{r}", "managedblockchain", BLOCKCHAIN),
    data("*.wss.ethereum.managedblockchain.{r}", "managedblockchain", BLOCKCHAIN),
    data("*.bitcoin.managedblockchain.{r}", "managedblockchain", "AMB Access Bitcoin Developer Guide, Endpoints"),
    data("*.livy.emr-serverless-services.{r}", "emr-serverless", "EMR Serverless User Guide, Apache Livy endpoint"),
    # Data planes and older names of AWS's own.
    Documented("aps-workspaces.{r}", "aps", "Managed Service for Prometheus User Guide, Ingest metrics", fips=True),
    Documented("transcribestreaming.{r}", "transcribe", "Transcribe Developer Guide, Setting up a streaming transcription", fips=True),
    Documented("streaming-rekognition.{r}", "rekognition", "AWS General Reference, Amazon Rekognition: Face Liveness streaming", fips=True),
    Documented("streaming-logs.{r}", "logs", "CloudWatch Logs API Reference, GetLogObject: SDKs released before April 1, 2026"),
    data("dicom-medical-imaging.{r}", "medical-imaging", "HealthImaging Developer Guide, Using DICOMweb"),
    Documented("mturk-requester-sandbox.{r}", "mturk-requester", "botocore, endpoints.json; MTurk API Reference, sandbox"),
    Documented("verification.signer.{r}", "signer", "botocore, endpoints.json"),
    Documented("global.health", "health", "botocore, endpoints.json", region="{g}"),
    Documented("global.health.us-gov", "health", "botocore, endpoints.json", region="{g}"),
    data("bedrock-mantle.{r}", "bedrock-mantle", "Bedrock User Guide, bedrock-mantle; BerriAI/litellm issue 31475"),
    data("aws-mcp.{r}", "aws-mcp", MCP),
    data("eks-mcp.{r}", "eks-mcp", MCP),
    data("ecs-mcp.{r}", "ecs-mcp", MCP),
    Documented("sts", "sts", "IAM User Guide, Manage AWS STS in an AWS Region: the global endpoint", region="{g}"),
    Documented("ec2", "ec2", GENERAL, region="{g}"),
    Documented("autoscaling", "autoscaling", GENERAL, region="{g}"),
    Documented("elasticmapreduce", "elasticmapreduce", GENERAL, region="{g}"),
    Documented("queue", "sqs", "AWS General Reference, Amazon SQS endpoints: Legacy endpoints", region="{g}"),
    Documented("{r}.queue", "sqs", "AWS General Reference, Amazon SQS endpoints: Legacy endpoints"),
    Documented("queue.{r}", "sqs", "SQS Developer Guide, Interface VPC endpoints"),
    # Signed only for a client whose own scope says so.
    by_scope("git-codecommit.{r}", "codecommit", "CodeCommit User Guide, HTTPS users: HTTP Basic, which Git sends if asked"),
    by_scope("git-codecommit-fips.{r}", "codecommit", "CodeCommit User Guide, Regions and Git connection endpoints"),
    by_scope("q.{r}", "q", Q),
    by_scope("codewhisperer.{r}", "codewhisperer", Q),
    by_scope("ssmmessages.{r}", "ssmmessages", AGENTS),
    by_scope("ec2messages.{r}", "ec2messages", AGENTS),
    # What takes no SigV4.
    never("email-smtp.{r}", "ses", "SES Developer Guide, Using the SES SMTP interface: SMTP AUTH with passwords of its own", fips=True),
    never("inbound-smtp.{r}", "ses", "SES Developer Guide, Email receiving endpoints: SMTP, no authentication"),
    never("feedback-smtp.{r}", "ses", "SES Developer Guide, Using a custom MAIL FROM domain: SMTP"),
    never("*.credentials.iot.{r}", "iot", "AWS IoT Core Developer Guide, Authorizing direct calls: X.509 client certificates", fips=True),
    never("credentials.iot.{r}", "iot", IOT_TLS),
    never("*.deviceadvisor.iot.{r}", "iotdeviceadvisor", IOT_TLS),
    never("greengrass-ats.iot.{r}", "greengrass", "Greengrass V2 Developer Guide, Allow device traffic: X.509 client certificates"),
    never("greengrass.iot.{r}", "greengrass", "Greengrass V1 Developer Guide, Service endpoints: X.509 client certificates"),
    never("data.tunneling.iot.{r}", "IoTSecuredTunneling", "AWS IoT Core Developer Guide, Secure tunneling local proxy: access tokens"),
    never("console.{r}", "console", "AWS Management Console User Guide: pages for browsers, with cookies"),
    never("device.sso.{r}", "sso", "AWS CLI User Guide, Configuring IAM Identity Center: the page for a device's code"),
    never("oidc.eks.{r}", "eks", "EKS User Guide, IAM roles for service accounts: a public document"),
    never("*.dkr.ecr.{r}", "ecr", f"{REGISTRY}: HTTP Basic", fips=True),
    never("dkr.ecr.{r}", "ecr", f"{REGISTRY}: HTTP Basic"),
    never("*.dkr-ecr.{r}.on.aws", "ecr", f"{REGISTRY}: HTTP Basic", fips=True),
    never("*.d.codeartifact.{r}", "codeartifact", f"{ARTIFACT}: HTTP Basic and Bearer"),
    never("d.codeartifact.{r}", "codeartifact", f"{ARTIFACT}: HTTP Basic and Bearer"),
    never("*.grafana-workspace.{r}", "grafana", "Managed Grafana User Guide, Using Grafana HTTP APIs: Bearer"),
    never("*.t.ethereum.managedblockchain.{r}", "managedblockchain", f"{BLOCKCHAIN}: billing tokens"),
    never("testgrid-devicefarm.{r}", "devicefarm", "Device Farm Developer Guide, desktop browser testing: a token in the path"),
)


def documented() -> Iterator[Documented]:
    """All of them, and their twins with FIPS."""
    for row in HOSTS:
        yield row
        if row.fips:
            yield replace(row, pattern=row.pattern.replace(".{r}", "-fips.{r}"), fips=False)
