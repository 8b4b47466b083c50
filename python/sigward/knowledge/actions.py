"""Operation → the IAM actions that it needs; and back, for rules that name an action where an operation is expected.

Most operations need the action of the same name: "likely", as botocore's models do not say. What is known to differ stands
here, reviewed by hand against the Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/); the tests hold each action against AWS's own managed policies.
"""

from dataclasses import dataclass

SOURCE = "Service Authorization Reference"

PREFIXES = {
    "IoTSecuredTunneling": "iot",
    "awsssoportal": "sso",
    "cloudcontrolapi": "cloudformation",
    "iot-jobs-data": "iotjobsdata",
    "iotdata": "iot",
    "monitoring": "cloudwatch",
    "mturk-requester": "mechanicalturk",
    "s3express": "s3express",
    "tagging": "tag",
}
"""Signing names whose actions have another prefix."""

EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "apigatewaymanagementapi:DeleteConnection": ("execute-api:ManageConnections",),
    "apigatewaymanagementapi:GetConnection": ("execute-api:ManageConnections",),
    "apigatewaymanagementapi:PostToConnection": ("execute-api:ManageConnections",),
    "bedrock-runtime:Converse": ("bedrock:InvokeModel",),
    "bedrock-runtime:ConverseStream": ("bedrock:InvokeModelWithResponseStream",),
    "dynamodb:BatchExecuteStatement": (
        "dynamodb:PartiQLSelect",
        "dynamodb:PartiQLInsert",
        "dynamodb:PartiQLUpdate",
        "dynamodb:PartiQLDelete",
    ),
    "dynamodb:ExecuteStatement": ("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete"),
    "dynamodb:ExecuteTransaction": ("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete"),
    "dynamodb:TransactGetItems": ("dynamodb:GetItem",),
    "dynamodb:TransactWriteItems": ("dynamodb:ConditionCheckItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"),
    "kms:ReEncrypt": ("kms:ReEncryptFrom", "kms:ReEncryptTo"),
    "lambda:Invoke": ("lambda:InvokeFunction",),
    "lambda:InvokeAsync": ("lambda:InvokeFunction",),
    "lambda:InvokeWithResponseStream": ("lambda:InvokeFunction",),
    "s3:AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "s3:CompleteMultipartUpload": ("s3:PutObject",),
    "s3:CopyObject": ("s3:GetObject", "s3:PutObject"),
    "s3:CreateMultipartUpload": ("s3:PutObject",),
    "s3:DeleteBucketCors": ("s3:PutBucketCORS",),
    "s3:DeleteBucketEncryption": ("s3:PutEncryptionConfiguration",),
    "s3:DeleteBucketLifecycle": ("s3:PutLifecycleConfiguration",),
    "s3:DeleteBucketReplication": ("s3:PutReplicationConfiguration",),
    "s3:DeleteBucketTagging": ("s3:PutBucketTagging",),
    "s3:DeleteObjects": ("s3:DeleteObject",),
    "s3:GetBucketAccelerateConfiguration": ("s3:GetAccelerateConfiguration",),
    "s3:GetBucketCors": ("s3:GetBucketCORS",),
    "s3:GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
    "s3:GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "s3:GetBucketNotificationConfiguration": ("s3:GetBucketNotification",),
    "s3:GetBucketReplication": ("s3:GetReplicationConfiguration",),
    "s3:GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
    "s3:GetPublicAccessBlock": ("s3:GetBucketPublicAccessBlock",),
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:HeadObject": ("s3:GetObject",),
    "s3:ListBuckets": ("s3:ListAllMyBuckets",),
    "s3:ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "s3:ListObjectVersions": ("s3:ListBucketVersions",),
    "s3:ListObjects": ("s3:ListBucket",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:ListParts": ("s3:ListMultipartUploadParts",),
    "s3:PutBucketAccelerateConfiguration": ("s3:PutAccelerateConfiguration",),
    "s3:PutBucketCors": ("s3:PutBucketCORS",),
    "s3:PutBucketEncryption": ("s3:PutEncryptionConfiguration",),
    "s3:PutBucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
    "s3:PutBucketNotificationConfiguration": ("s3:PutBucketNotification",),
    "s3:PutBucketReplication": ("s3:PutReplicationConfiguration",),
    "s3:PutObjectLockConfiguration": ("s3:PutBucketObjectLockConfiguration",),
    "s3:PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3:UploadPart": ("s3:PutObject",),
    "s3:UploadPartCopy": ("s3:GetObject", "s3:PutObject"),
    "sns:PublishBatch": ("sns:Publish",),
    "sqs:ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
    "sqs:DeleteMessageBatch": ("sqs:DeleteMessage",),
    "sqs:SendMessageBatch": ("sqs:SendMessage",),
    "sts:GetCallerIdentity": (),
    "sts:GetSessionToken": (),
}
"""`service:Operation` of botocore's → actions. Several: all are needed, but for DynamoDB's: there the body says which. An empty
one: no right is needed."""

FURTHER: dict[str, tuple[str, ...]] = {
    "apigateway:DELETE": (),
    "apigateway:GET": (),
    "apigateway:PATCH": (),
    "apigateway:POST": (),
    "apigateway:PUT": (),
    "execute-api:Invoke": (),
    "iam:PassRole": (),
    "s3:DeleteObjectVersion": ("s3:DeleteObject", "s3:DeleteObjects"),
    "s3:DeleteObjectVersionTagging": ("s3:DeleteObjectTagging",),
    "s3:GetObjectVersion": ("s3:GetObject", "s3:HeadObject"),
    "s3:GetObjectVersionAcl": ("s3:GetObjectAcl",),
    "s3:GetObjectVersionTagging": ("s3:GetObjectTagging",),
    "s3:PutObjectVersionAcl": ("s3:PutObjectAcl",),
    "s3:PutObjectVersionTagging": ("s3:PutObjectTagging",),
}
"""Actions that are checked besides an operation's own, or in its place, and the operations that need them. An empty one: no
operation in the table does."""


@dataclass(frozen=True)
class Actions:
    """`names`: e.g. `("s3:ListBucket",)`. `source`: where it is documented; None: the action of the same name is likely, not proven."""

    names: tuple[str, ...]
    source: str | None


def actions(signing_name: str, service: str, operation: str, method: str, *, unsigned: bool = False) -> Actions:
    """The actions of one operation: `service` and `operation` are botocore's names, `method` the request's."""
    known = EXCEPTIONS.get(f"{service}:{operation}")
    if known is not None:
        return Actions(known, SOURCE)
    if unsigned:
        return Actions((), "botocore's model: it takes no signature")
    if signing_name == "apigateway":
        return Actions((f"apigateway:{method.upper()}",), SOURCE)
    return Actions((f"{PREFIXES.get(signing_name, signing_name)}:{operation}",), None)


def reverse() -> dict[str, dict[str, list[str]]]:
    """What rust/gateway/data/actions.json holds: `operations` by action, and signing names by the `prefixes` that IAM has for them."""
    operations: dict[str, set[str]] = {action: set(needing) for action, needing in FURTHER.items()}
    for operation, needed in EXCEPTIONS.items():
        for action in needed:
            operations.setdefault(action, set()).add(operation)
    prefixes: dict[str, set[str]] = {}
    for signing_name, prefix in PREFIXES.items():
        if signing_name != prefix:
            prefixes.setdefault(prefix, set()).add(signing_name)
    return {
        "operations": {action: sorted(needing) for action, needing in sorted(operations.items())},
        "prefixes": {prefix: sorted(names) for prefix, names in sorted(prefixes.items())},
    }
