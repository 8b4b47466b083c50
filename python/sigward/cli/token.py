"""`sigward token`: presigned requests that databases, brokers and clusters take for a password.

Each as its AWS page gives it: "Connecting to your DB instance using IAM authentication" (RDS), "Authenticating with IAM"
(ElastiCache), "IAM access control" (MSK), "Grant access to Kubernetes APIs" (EKS).
"""

import base64
import datetime
import json
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

from sigward import __version__, _core
from sigward.cli.signing import load_credentials, moment
from sigward.credentials import Region
from sigward.errors import UsageError
from sigward.settings import CA_NAME

if TYPE_CHECKING:
    from sigward.cli.commands import Token

FIFTEEN_MINUTES = 900


def token(command: "Token") -> int:
    """Prints the token, and nothing else, on stdout."""
    needed = {"rds": ("host", "port", "user"), "elasticache": ("cluster", "user"), "msk": (), "eks": ("cluster",)}[command.kind]
    for name in needed:
        if not getattr(command, name):
            raise UsageError(f"token {command.kind}: --{name} is missing.", hint=EXAMPLES[command.kind])
    if command.kind == "rds" and not CA_NAME.fullmatch(command.host or ""):
        raise UsageError(
            f"token rds: --host: {command.host!r} is no host name. The port has its own flag, --port.", hint=EXAMPLES[command.kind]
        )
    found, default = load_credentials(command)
    region = region_of(command, default)
    when = moment(command.at)
    snapshot = found.snapshot

    def presigned(service: str, host: str, query: str, expires: int, *headers: tuple[bytes, bytes]) -> str:
        signer = _core.Signer(snapshot.access_key_id, snapshot.secret_access_key, snapshot.session_token, region, service)
        try:
            return signer.presign(b"GET", b"/", query.encode(), [(b"host", host.encode()), *headers], b"", expires, when).decode()
        except _core.SigningError as error:
            raise UsageError(f"{error}.", hint=error.hint) from error

    user = quote(command.user or "", safe="")
    cluster = (command.cluster or "").lower() if command.kind == "elasticache" else command.cluster or ""
    match command.kind:
        case "rds":
            host = f"{command.host}:{command.port}"
            text = f"{host}/?{presigned('rds-db', host, f'Action=connect&DBUser={user}', FIFTEEN_MINUTES)}"
        case "elasticache":
            serverless = "&ResourceType=ServerlessCache" if command.serverless else ""
            query = presigned("elasticache", cluster, f"Action=connect&User={user}{serverless}", FIFTEEN_MINUTES)
            text = f"{cluster}/?{query}"
        case "msk":
            host = f"kafka.{region}.amazonaws.com"
            query = presigned("kafka-cluster", host, "Action=kafka-cluster%3AConnect", FIFTEEN_MINUTES)
            text = unpadded(f"https://{host}/?{query}&User-Agent=sigward%2F{__version__}")
        case _:
            suffix = ".cn" if region.startswith("cn-") else ""
            host = f"sts.{region}.amazonaws.com{suffix}"
            named = (b"x-k8s-aws-id", cluster.encode())
            query = presigned("sts", host, "Action=GetCallerIdentity&Version=2011-06-15", 60, named)
            # A token is good for a quarter of an hour, whatever its URL says; a minute is kept in hand.
            ends = datetime.datetime.fromtimestamp(when, datetime.UTC) + datetime.timedelta(minutes=14)
            text = json.dumps(
                {
                    "kind": "ExecCredential",
                    "apiVersion": "client.authentication.k8s.io/v1beta1",
                    "spec": {},
                    "status": {
                        "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        "token": "k8s-aws-v1." + unpadded(f"https://{host}/?{query}"),
                    },
                }
            )
    sys.stdout.write(text + "\n")
    return 0


def region_of(command: "Token", default: Region) -> str:
    """Where the token is for: a database's host names its region. Raises `UsageError` if the settings name another one."""
    own = rds_region(command.host or "") if command.kind == "rds" else None
    if own and command.region and default.name != own:
        raise UsageError(
            f"token rds: {command.host} is in {own}, but the region is set to {command.region}.",
            hint="Leave --region out: the host names it.",
        )
    return own or default.name


def rds_region(host: str) -> str | None:
    """The region in `NAME.ID.REGION.rds.amazonaws.com` (proxies and clusters likewise, in every partition); None: it names none."""
    match = re.fullmatch(r".+\.([a-z0-9-]+)\.rds\.([a-z0-9.-]+)", host.lower())
    known = _core.recognise(f"rds.{match[1]}.{match[2]}") if match else None
    return known.region if match and known and known.region == match[1] else None


def unpadded(url: str) -> str:
    """base64, for URLs, without its padding."""
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


EXAMPLES = {
    "rds": "sigward token rds --host db.abc.eu-west-1.rds.amazonaws.com --port 5432 --user app",
    "elasticache": "sigward token elasticache --cluster my-cache --user app",
    "msk": "sigward token msk --region eu-west-1",
    "eks": "sigward token eks --cluster my-cluster",
}
