"""boto3, in every form in which it sends a body, and with the calls that are no uploads: `boto3_client.py BUCKET`."""

import hashlib
import io
import json
import os
from base64 import b64encode
from functools import partial
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from common import BUCKET, LARGE, MEDIUM, ODD, PART, SMALL, bytes_of, digest, step

config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, request_checksum_calculation="when_supported")
s3: Any = boto3.client("s3", endpoint_url=os.environ["S3_MATRIX_BASE"], config=config)
SUMS = ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME")


class Stream(io.RawIOBase):
    """Can be read once."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.data.readinto(buffer)


def put(name: str, key: str, body: Any, **more: Any) -> None:
    step(name, lambda: s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)["ETag"])


def call(name: str, operation: str, *wanted: str, key: str | None = None, **more: Any) -> None:
    """One call, and these members of its answer."""
    own = {"Bucket": BUCKET} | ({"Key": key} if key else {})

    def doing() -> str:
        answer = getattr(s3, operation)(**(own | more))
        return json.dumps([answer.get(member) for member in wanted], default=str, sort_keys=True)

    step(name, doing)


def objects() -> None:
    put("put empty", "empty", b"")
    more = {"ContentType": "text/x-small", "CacheControl": "max-age=5", "Metadata": {"colour": "blue  green"}, "Tagging": "x=y%20z"}
    put("put small", "small", bytes_of(SMALL), **more)
    put("put encoded", "encoded", bytes_of(SMALL), ContentEncoding="gzip")
    put("put medium", "medium", bytes_of(MEDIUM))
    put("put a file", "file", io.BytesIO(bytes_of(MEDIUM)))
    put("put a stream", "stream", io.BufferedReader(Stream(bytes_of(MEDIUM))), ContentLength=MEDIUM)
    put("put odd", ODD, bytes_of(SMALL))
    put("put MD5", "md5", bytes_of(SMALL), ContentMD5=b64encode(hashlib.md5(bytes_of(SMALL)).digest()).decode())  # noqa: S324
    put("put a wrong MD5", "wrong", bytes_of(SMALL), ContentMD5=b64encode(b"0" * 16).decode())
    put("put a wrong checksum", "wrong", bytes_of(SMALL), ChecksumCRC32="AAAAAA==")
    put("put if there is none", "small", b"other", IfNoneMatch="*")
    put("put reduced", "reduced", bytes_of(SMALL), StorageClass="STANDARD")
    for algorithm in SUMS[:4]:
        put(f"put {algorithm}", algorithm, bytes_of(SMALL), ChecksumAlgorithm=algorithm)
        put(f"put a file with {algorithm}", f"file {algorithm}", io.BytesIO(bytes_of(MEDIUM)), ChecksumAlgorithm=algorithm)
    transfer = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=2)
    for size in (MEDIUM, LARGE):
        step(f"upload {size}", partial(s3.upload_fileobj, io.BytesIO(bytes_of(size)), BUCKET, f"up/{size}", Config=transfer))


def parts() -> None:
    call("begin another", "create_multipart_upload", key="gone")
    call("uploads", "list_multipart_uploads", "KeyMarker")

    def doing() -> str:
        made = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", ContentType="text/x-parts", Metadata={"a": "b"})
        own = {"Bucket": BUCKET, "Key": "parts", "UploadId": made["UploadId"]}
        first = s3.upload_part(**own, PartNumber=1, Body=bytes_of(PART))["ETag"]
        source = f"{BUCKET}/up/{LARGE}"
        second = s3.upload_part_copy(**own, PartNumber=2, CopySource=source, CopySourceRange=f"bytes=0-{PART - 1}")
        third = s3.upload_part(**own, PartNumber=3, Body=io.BytesIO(bytes_of(SMALL)))["ETag"]
        listed = [part["Size"] for part in s3.list_parts(**own)["Parts"]]
        tags = enumerate((first, second["CopyPartResult"]["ETag"], third), 1)
        whole = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in tags]}
        return f"{listed} {s3.complete_multipart_upload(**own, MultipartUpload=whole)['ETag']}"

    step("parts", doing)

    def aborted() -> str:
        own = {"Bucket": BUCKET, "Key": "aborted"}
        own["UploadId"] = s3.create_multipart_upload(**own)["UploadId"]
        s3.upload_part(**own, PartNumber=1, Body=b"x")
        return str(s3.abort_multipart_upload(**own)["ResponseMetadata"]["HTTPStatusCode"])

    step("abort", aborted)


def reading() -> None:
    keys = ["empty", "small", "encoded", "medium", "file", "stream", ODD, *SUMS[:4], *(f"file {sum_}" for sum_ in SUMS[:4])]
    wanted = ("ContentLength", "ETag", "ContentType", "ContentEncoding", "CacheControl", "Metadata", "StorageClass", "TagCount")
    for key in [*keys, f"up/{MEDIUM}", f"up/{LARGE}", "parts", "wrong", "none"]:
        call(f"head {key}", "head_object", *wanted, *(f"Checksum{sum_}" for sum_ in SUMS), key=key, ChecksumMode="ENABLED")
        step(f"get {key}", lambda key=key: digest(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
    for name, more in [
        ("a range", {"Range": "bytes=100-299"}),
        ("the end", {"Range": "bytes=-7"}),
        ("beyond", {"Range": "bytes=900000-"}),
        ("if it matches", {"IfMatch": '"no"'}),
        ("if it does not", {"IfNoneMatch": f'"{hashlib.md5(bytes_of(MEDIUM)).hexdigest()}"'}),  # noqa: S324
        ("another type", {"ResponseContentType": "text/a b+c", "ResponseCacheControl": "no-cache"}),
    ]:
        call(f"get {name}", "get_object", "ContentLength", "ContentRange", "ContentType", "CacheControl", key="medium", **more)
    call("attributes", "get_object_attributes", "ObjectSize", "Checksum", key="small", ObjectAttributes=["ObjectSize", "Checksum"])
    sink = io.BytesIO()
    step("download", lambda: (s3.download_fileobj(BUCKET, f"up/{LARGE}", sink), digest(sink.getvalue()))[1])


def subresources() -> None:
    """Bodies that are no objects."""
    tags = {"TagSet": [{"Key": "a", "Value": "b c+d"}]}
    call("tag", "put_object_tagging", key="medium", Tagging=tags)
    call("tags", "get_object_tagging", "TagSet", key="medium")
    call("untag", "delete_object_tagging", key="medium")
    call("tag the bucket", "put_bucket_tagging", Tagging=tags)
    call("the bucket's tags", "get_bucket_tagging", "TagSet")
    allow = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{BUCKET}/*"]}
    call("policy", "put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    call("the policy", "get_bucket_policy", "Policy")
    call("no policy", "delete_bucket_policy")
    rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 3}}
    call("life cycle", "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": [rule]})
    call("the life cycle", "get_bucket_lifecycle_configuration", "Rules")
    call("versions", "put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
    call("the versions", "get_bucket_versioning", "Status")
    cors = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.org"]}]}
    call("CORS", "put_bucket_cors", CORSConfiguration=cors)
    call("the CORS", "get_bucket_cors", "CORSRules")
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    call("encryption", "put_bucket_encryption", ServerSideEncryptionConfiguration=encryption)
    call("ACL", "put_object_acl", key="medium", ACL="private")
    call("the ACL", "get_object_acl", "Grants", key="medium")
    call("ownership", "put_bucket_ownership_controls", OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    call("hold", "put_object_legal_hold", key="medium", LegalHold={"Status": "OFF"})
    call("place", "get_bucket_location", "LocationConstraint")
    call("head the bucket", "head_bucket")
    put("put rows", "rows.csv", b"a,b\n1,x y\n2,z\n")
    forms = {"InputSerialization": {"CSV": {"FileHeaderInfo": "USE"}}, "OutputSerialization": {"CSV": {}}, "ExpressionType": "SQL"}

    def select() -> str:
        answer = s3.select_object_content(Bucket=BUCKET, Key="rows.csv", Expression="SELECT b FROM s3object WHERE a = '1'", **forms)
        return "".join(event["Records"]["Payload"].decode() for event in answer["Payload"] if "Records" in event)

    step("select", select)


def the_rest() -> None:
    source = {"Bucket": BUCKET, "Key": ODD}
    step("copy", lambda: s3.copy_object(Bucket=BUCKET, Key="copy é", CopySource=source)["CopyObjectResult"]["ETag"])
    more = {"MetadataDirective": "REPLACE", "ContentType": "text/x-new", "ContentEncoding": "aws-chunked"}
    step("copy anew", lambda: s3.copy_object(Bucket=BUCKET, Key="anew", CopySource=source, **more)["CopyObjectResult"]["ETag"])
    for operation, name in (("list_objects_v2", "list"), ("list_objects", "list, version 1"), ("list_object_versions", "list versions")):
        for told, more in (
            ("", {}),
            (" by threes", {"PaginationConfig": {"PageSize": 3}}),
            (" folders", {"Delimiter": "/"}),
            (" of a prefix", {"Prefix": "a b+c%25/"}),
        ):

            def listed(operation: str = operation, more: dict[str, Any] = more) -> str:
                found: list[str] = []
                for page in s3.get_paginator(operation).paginate(Bucket=BUCKET, **more):
                    found += [f"{one['Key']}:{one['Size']}" for one in page.get("Contents", []) + page.get("Versions", [])]
                    found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
                return "|".join(sorted(found))

            step(name + told, listed)
    doomed = [{"Key": key} for key in ("empty", ODD, "SHA1", "none")]
    call("delete many", "delete_objects", "Errors", Delete={"Objects": doomed})
    call("delete many, quietly", "delete_objects", "Deleted", Delete={"Objects": [{"Key": "SHA256"}], "Quiet": True})
    call("delete", "delete_object", key="anew")
    step("list the rest", lambda: "|".join(one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]))


objects()
parts()
reading()
subresources()
the_rest()
