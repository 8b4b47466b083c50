"""`sigward whoami`: whose keys, from where, and what the chain passed over. Never a secret."""

import json
import sys
from typing import TYPE_CHECKING, Any

from sigward.cli.signing import walk
from sigward.credentials import Chain, Failure, Found
from sigward.credentials.chain import SKIPPED
from sigward.errors import CredentialsError, UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import Whoami


def whoami(command: "Whoami") -> int:
    """Returns the exit status. Raises `CredentialsError` if there are none."""
    from sigward.cli.commands import iso, no_credentials, show

    if command.identity not in (known := command.every_identity()):
        raise UsageError(f"identity: {command.identity!r} is not in the settings.", hint=f"There: {', '.join(known)}.")
    outcome, region = walk(command, command.identity)
    steps = explained(outcome)
    if isinstance(outcome, Failure):
        if command.explain:
            tell(steps, as_json=command.json_output)
        raise no_credentials(outcome)
    snapshot = outcome.snapshot
    told: dict[str, Any] = {
        "identity": command.identity,
        "provider": snapshot.provider,
        "access_key_id": f"…{snapshot.access_key_id[-4:]}",
        "temporary": snapshot.session_token is not None,
        "expires": iso(snapshot.expires_at) if snapshot.expires_at else None,
        "region": region.name,
        "region_from": region.source,
    }
    if command.account:
        told |= caller(outcome, region.asked)
    if command.json_output:
        sys.stdout.write(json.dumps(told | ({"chain": steps} if command.explain else {})) + "\n")
        return 0
    told["expires"] = told["expires"] or "never"
    width = max(map(len, told))
    sys.stdout.write("".join(f"{key.replace('_', ' '):<{width}}  {show(value)}\n" for key, value in told.items()))
    if command.explain:
        sys.stdout.write("\n")
        tell(steps, as_json=False)
    return 0


def explained(outcome: Found | Failure) -> list[dict[str, str]]:
    """Every provider in the chain's order: what became of it, and why."""
    passed = outcome.passed if isinstance(outcome, Found) else outcome.reasons
    steps = [{"provider": name, "state": "passed over" if why == SKIPPED.get(name) else "failed", "why": why} for name, why in passed]
    if isinstance(outcome, Found):
        used = outcome.snapshot.provider
        steps.append({"provider": used, "state": "used", "why": ""})
    asked = {name for step in steps for name in step["provider"].split(" → ")}
    if isinstance(outcome, Found) and not outcome.snapshot.provider.startswith("identity-"):
        steps += [{"provider": name, "state": "not asked", "why": "an earlier one gave keys"} for name in SKIPPED if name not in asked]
    return steps


def tell(steps: list[dict[str, str]], *, as_json: bool) -> None:
    """A line for each step."""
    if as_json:
        sys.stdout.write(json.dumps({"chain": steps}) + "\n")
        return
    width = max(len(step["provider"]) for step in steps)
    for step in steps:
        sys.stdout.write(f"{step['provider']:<{width}}  {step['state']:<11}  {step['why']}".rstrip() + "\n")


def caller(found: Found, region: str) -> dict[str, Any]:
    """Account and ARN, as STS tells them. Raises `CredentialsError`."""
    from botocore.exceptions import BotoCoreError, ClientError

    from sigward.credentials.chain import explain

    keys = found.snapshot
    try:
        client: Any = (
            Chain(None, region)
            .session()
            .create_client(
                "sts",
                aws_access_key_id=keys.access_key_id,
                aws_secret_access_key=keys.secret_access_key,
                aws_session_token=keys.session_token,
            )
        )
        answer = client.get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise CredentialsError(
            f"STS does not take them: {explain(error)}.", hint="sigward whoami --explain tells where they come from."
        ) from error
    return {"account": answer["Account"], "arn": answer["Arn"]}
