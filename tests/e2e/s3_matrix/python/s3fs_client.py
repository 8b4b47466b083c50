"""s3fs (aiobotocore): `s3fs_client.py BUCKET`."""

import os

import s3fs
from common import BUCKET, LARGE, MEDIUM, ODD, PART, SMALL, bytes_of, digest, step

config = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}}
if proxy := os.environ.get("HTTPS_PROXY"):
    config["proxies"] = {"https": proxy}
fs = s3fs.S3FileSystem(
    endpoint_url=os.environ["S3_MATRIX_BASE"],
    config_kwargs=config,
    default_block_size=PART,
    skip_instance_cache=True,
    use_listings_cache=False,
)


def write(key: str, size: int) -> None:
    with fs.open(f"{BUCKET}/{key}", "wb") as file:
        file.write(bytes_of(size))


step("write empty", lambda: write("empty", 0))
step("write small", lambda: write("small", SMALL))
step("write medium", lambda: write("medium", MEDIUM))
step("write large", lambda: write("large", LARGE))
step("write odd", lambda: write(ODD, SMALL))
step("pipe", lambda: fs.pipe_file(f"{BUCKET}/piped", bytes_of(MEDIUM), ContentType="text/x-piped")["ETag"])
step("pipe large", lambda: fs.pipe_file(f"{BUCKET}/piped large", bytes_of(LARGE), chunksize=PART)["ETag"])
for key in ("empty", "small", "medium", "large", ODD, "piped", "piped large", "none"):
    step(f"read {key}", lambda key=key: digest(fs.cat_file(f"{BUCKET}/{key}")))
    step(f"information of {key}", lambda key=key: [fs.info(f"{BUCKET}/{key}").get(name) for name in ("size", "ETag", "ContentType")])
step("read a range", lambda: digest(fs.cat_file(f"{BUCKET}/medium", start=100, end=300)))
step("find", lambda: sorted(fs.find(BUCKET)))
step("list", lambda: sorted(fs.ls(BUCKET, detail=False)))
step("glob", lambda: sorted(fs.glob(f"{BUCKET}/*l*e")))
step("copy", lambda: fs.copy(f"{BUCKET}/small", f"{BUCKET}/copied to +"))
step("move", lambda: fs.mv(f"{BUCKET}/copied to +", f"{BUCKET}/moved é"))
step("set metadata", lambda: fs.setxattr(f"{BUCKET}/small", copy_kwargs={"ContentType": "text/x-new"}, colour="blue"))
step("metadata", lambda: fs.metadata(f"{BUCKET}/small"))
step("tag", lambda: fs.put_tags(f"{BUCKET}/small", {"a": "b c"}))
step("tags", lambda: fs.get_tags(f"{BUCKET}/small"))
step("append", lambda: fs.open(f"{BUCKET}/large", "ab").__exit__(None, None, None))
step("sign", lambda: "Signature" in fs.sign(f"{BUCKET}/small"))
step("remove", lambda: fs.rm([f"{BUCKET}/piped", f"{BUCKET}/{ODD}"]))
step("find the rest", lambda: sorted(fs.find(BUCKET)))
