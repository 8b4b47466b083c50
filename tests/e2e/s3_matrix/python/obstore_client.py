"""obstore (object_store for Rust): `obstore_client.py BUCKET`."""

import os
from datetime import timedelta

import obstore
from common import BUCKET, LARGE, MEDIUM, ODD, PART, SMALL, bytes_of, digest, step
from obstore.store import S3Store


def store(**more: object) -> S3Store:
    base = os.environ["S3_MATRIX_BASE"]
    options: dict[str, object] = {"allow_http": True}
    if proxy := os.environ.get("HTTPS_PROXY"):
        options["proxy_url"] = proxy
    retries = {"max_retries": 0}
    return S3Store(BUCKET, endpoint=base, virtual_hosted_style_request=False, client_options=options, retry_config=retries, **more)


s3 = store()
step("put empty", lambda: obstore.put(s3, "empty", b"")["e_tag"])
step("put small", lambda: obstore.put(s3, "small", bytes_of(SMALL), attributes={"Content-Type": "text/x-small", "colour": "blue"})["e_tag"])
step("put medium", lambda: obstore.put(s3, "medium", bytes_of(MEDIUM), use_multipart=False)["e_tag"])
step("put odd", lambda: obstore.put(s3, ODD, bytes_of(SMALL))["e_tag"])
step("put in parts", lambda: obstore.put(s3, "parts", bytes_of(LARGE), use_multipart=True, chunk_size=PART)["e_tag"])
step("put with SHA256", lambda: obstore.put(store(checksum_algorithm="SHA256"), "SHA256", bytes_of(SMALL))["e_tag"])
parts = store(checksum_algorithm="SHA256")
step("put in parts with SHA256", lambda: obstore.put(parts, "parts SHA256", bytes_of(LARGE), use_multipart=True, chunk_size=PART)["e_tag"])
step("put unsigned", lambda: obstore.put(store(unsigned_payload=True), "unsigned", bytes_of(MEDIUM), use_multipart=False)["e_tag"])
step("put if there is none", lambda: obstore.put(s3, "small", b"other", mode="create"))
for key in ("empty", "small", "medium", ODD, "parts", "SHA256", "parts SHA256", "unsigned", "none"):
    step(f"head {key}", lambda key=key: {name: obstore.head(s3, key)[name] for name in ("path", "size", "e_tag")})
    step(f"get {key}", lambda key=key: digest(bytes(obstore.get(s3, key).bytes())))
step("attributes", lambda: sorted(obstore.get(s3, "small").attributes.items()))
step("get a range", lambda: digest(bytes(obstore.get_range(s3, "medium", start=100, end=300))))
step("get ranges", lambda: [digest(bytes(part)) for part in obstore.get_ranges(s3, "medium", starts=[5, 200_000], ends=[10, 200_100])])
step("get if it matches", lambda: obstore.get(s3, "medium", options={"if_match": '"no"'}))
step("list", lambda: sorted(f"{one['path']}:{one['size']}" for page in obstore.list(s3) for one in page))
step("list from", lambda: sorted(one["path"] for page in obstore.list(s3, offset="medium") for one in page))
step("list folders", lambda: sorted(obstore.list_with_delimiter(s3)["common_prefixes"]))
step("copy", lambda: obstore.copy(s3, "small", "copied to +"))
step("move", lambda: obstore.rename(s3, "copied to +", "moved é"))
step("sign", lambda: "Signature" in obstore.sign(s3, "GET", "small", timedelta(seconds=60)))
step("delete", lambda: obstore.delete(s3, ["empty", ODD, "none"]))
step("list the rest", lambda: sorted(one["path"] for page in obstore.list(s3) for one in page))
