"""pyarrow (the AWS SDK for C++): `pyarrow_client.py BUCKET`."""

import os
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from common import BUCKET, LARGE, MEDIUM, ODD, SMALL, bytes_of, digest, step
from pyarrow import fs

base = urlsplit(os.environ["S3_MATRIX_BASE"])
s3 = fs.S3FileSystem(
    region=os.environ["AWS_REGION"],
    endpoint_override=base.netloc,
    scheme=base.scheme,
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    proxy_options=os.environ.get("HTTPS_PROXY"),
    tls_ca_file_path=os.environ["SSL_CERT_FILE"],
)


def write(key: str, size: int, **options: object) -> None:
    with s3.open_output_stream(f"{BUCKET}/{key}", compression=None, **options) as file:
        file.write(bytes_of(size))


def read(key: str) -> str:
    with s3.open_input_file(f"{BUCKET}/{key}") as file:
        return digest(file.read())


step("write empty", lambda: write("empty", 0))
step("write small", lambda: write("small", SMALL, metadata={"Content-Type": "text/x-small", "Cache-Control": "max-age=5"}))
step("write medium", lambda: write("medium", MEDIUM))
step("write large", lambda: write("large", 2 * LARGE))
step("write odd", lambda: write(ODD, SMALL))
step("write less odd", lambda: write("a b/é=+.txt", SMALL))
for key in ("empty", "small", "medium", "large", ODD, "a b/é=+.txt", "none"):
    step(f"read {key}", lambda key=key: read(key))
    step(f"information of {key}", lambda key=key: str((found := s3.get_file_info(f"{BUCKET}/{key}")).type) + f" {found.size}")


def some() -> str:
    with s3.open_input_file(f"{BUCKET}/medium") as file:
        return digest(file.read_at(200, 100)) + digest(file.read_at(1000, 200_000))


step("read ranges", some)
step("list", lambda: sorted(f"{one.path}:{one.size}" for one in s3.get_file_info(fs.FileSelector(BUCKET, recursive=True))))
step("list folders", lambda: sorted(one.path for one in s3.get_file_info(fs.FileSelector(BUCKET))))
table = pa.table({"a": list(range(50_000)), "b": [f"row {number}" for number in range(50_000)]})
step("write Parquet", lambda: pq.write_table(table, f"{BUCKET}/table.parquet", filesystem=s3))
step("read Parquet", lambda: pq.read_table(f"{BUCKET}/table.parquet", filesystem=s3, columns=["b"]).num_rows)
step("make a folder", lambda: s3.create_dir(f"{BUCKET}/folder/in it"))
step("copy", lambda: s3.copy_file(f"{BUCKET}/small", f"{BUCKET}/copied to +"))
step("move", lambda: s3.move(f"{BUCKET}/copied to +", f"{BUCKET}/moved é"))
step("delete", lambda: s3.delete_file(f"{BUCKET}/medium"))
step("delete a folder", lambda: s3.delete_dir(f"{BUCKET}/a b+c%25"))
step("list the rest", lambda: sorted(one.path for one in s3.get_file_info(fs.FileSelector(BUCKET, recursive=True))))
