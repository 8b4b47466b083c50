"""DuckDB with httpfs, its own S3 client: `duckdb_client.py BUCKET`."""

import os
from importlib.metadata import files
from urllib.parse import urlsplit

import duckdb
from common import BUCKET, step

base = urlsplit(os.environ["S3_MATRIX_BASE"])
database = duckdb.connect(config={"allow_unsigned_extensions": "true"})
[extension] = [file for file in files("duckdb-ext-httpfs") or [] if file.name == "httpfs.duckdb_extension"]
database.load_extension(str(extension.locate()))
database.execute(f"SET ca_cert_file = '{os.environ['SSL_CERT_FILE']}'; SET enable_server_cert_verification = true; SET http_retries = 0")
if proxy := os.environ.get("HTTPS_PROXY"):
    database.execute(f"SET http_proxy = '{urlsplit(proxy).netloc}'")
database.execute(
    f"CREATE SECRET (TYPE s3, KEY_ID '{os.environ['AWS_ACCESS_KEY_ID']}', SECRET '{os.environ['AWS_SECRET_ACCESS_KEY']}', "
    f"REGION '{os.environ['AWS_REGION']}', ENDPOINT '{base.netloc}', URL_STYLE 'path', USE_SSL {base.scheme == 'https'})"
)


def ask(query: str) -> str:
    return str(database.execute(query.replace("BUCKET", f"s3://{BUCKET}")).fetchall())


rows = "SELECT i AS a, 'row ' || i AS b, i % 3 AS c FROM range({}) AS made(i)"
step("write CSV", lambda: ask(f"COPY ({rows.format(1000)}) TO 'BUCKET/small.csv'"))
step("write Parquet", lambda: ask(f"COPY ({rows.format(300_000)}) TO 'BUCKET/medium.parquet'"))
step("write JSON", lambda: ask(f"COPY ({rows.format(200_000)}) TO 'BUCKET/large.json'"))
step("write odd", lambda: ask(f"COPY ({rows.format(10)}) TO 'BUCKET/a b+c/é.csv'"))
step(
    "write partitions", lambda: ask(f"COPY ({rows.format(30)}) TO 'BUCKET/parts' (FORMAT parquet, PARTITION_BY (c), FILENAME_PATTERN 'p')")
)
step("read CSV", lambda: ask("SELECT count(*), sum(a) FROM 'BUCKET/small.csv'"))
step("read Parquet", lambda: ask("SELECT count(*), sum(a), max(b) FROM 'BUCKET/medium.parquet'"))
step("read JSON", lambda: ask("SELECT count(*), sum(a) FROM 'BUCKET/large.json'"))
step("read odd", lambda: ask("SELECT * FROM 'BUCKET/a b+c/é.csv' ORDER BY a"))
step("read partitions", lambda: ask("SELECT c, count(*) FROM read_parquet('BUCKET/parts/*/*.parquet') GROUP BY c ORDER BY c"))
step("list", lambda: ask("SELECT replace(file, 'BUCKET', '') FROM glob('BUCKET/**') ORDER BY file"))
step("not there", lambda: ask("SELECT * FROM 'BUCKET/none.csv'"))
