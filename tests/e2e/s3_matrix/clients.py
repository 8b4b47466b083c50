"""The clients: each does what it can do in a bucket of its own, and says what every step of it came to."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sigward.demo.child import clean_environment
from tests.conftest import ROOT
from tests.e2e.s3_matrix.servers import REGION, plain

HERE = Path(__file__).parent
BUILT = ROOT / "build" / "s3-matrix"
VENV = BUILT / "venv" / "bin" / "python"
MC = ROOT / "build" / "mc" / "bin" / "mc"
SECONDS = 300

Steps = dict[str, str]
"""What every step came to, by its name."""


@dataclass(frozen=True)
class Place:
    """Where a client is sent. `base`: the endpoint. `proxy`: of HTTPS_PROXY. `folder`: empty, its own."""

    base: str
    bucket: str
    key: str
    secret: str
    ca_file: Path
    proxy: str | None
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        bundles = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.proxy) if self.proxy else {}
        own = {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        own |= {name: str(self.ca_file) for name in bundles}
        own |= {"HOME": str(self.folder), "TMPDIR": str(self.folder), "S3_MATRIX_BASE": self.base, "PYTHONWARNINGS": "ignore"}
        return clean_environment() | own | proxies | more

    def run(self, *command: str | Path, given: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        line = [str(part) for part in command]
        return subprocess.run(line, env=self.environment(**more), cwd=self.folder, input=given, capture_output=True, timeout=SECONDS)

    def same(self, text: str) -> str:
        """Without what names this run."""
        for own in (self.bucket, str(self.folder), self.base, self.base.partition("://")[2]):
            text = text.replace(own, "·")
        return plain(text)


@dataclass(frozen=True)
class Client:
    """`needs`: files or commands. `target`: make's, which builds them. `repeatable`: what it stores is the same each time.

    `refused`: servers that do not take what it sends over plain HTTP, so that it is compared with itself over TLS.
    """

    name: str
    run: Callable[[Place], Steps]
    needs: tuple[Path | str, ...]
    target: str = ""
    repeatable: bool = True
    refused: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it cannot run here."""
        lacking = [str(need) for need in self.needs if not (need.exists() if isinstance(need, Path) else shutil.which(need))]
        if not lacking:
            return None
        how = f"make {self.target}" if self.target else f"apt-get install {lacking[0]}"
        return f"{lacking[0].removeprefix(f'{ROOT}/')} is missing: {how}"


def bytes_of(size: int) -> bytes:
    """The same in every client."""
    pattern = bytes((i * 31 + (i >> 8) * 17) & 255 for i in range(65521))
    return (pattern * (size // len(pattern) + 1))[:size]


SMALL, MEDIUM, LARGE = 1000, 300_000, (6 << 20) + 5
FILES = {
    "empty": 0,
    "small.txt": SMALL,
    "medium.bin": MEDIUM,
    "large.bin": LARGE,
    "a b+c%25/é日/*'()!~&=#.txt": SMALL,
    "deep/er/file.json": 17,
}
WHEN = 1_700_000_000


def tree(folder: Path) -> Path:
    """The files that command-line tools send."""
    for name, size in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(size))
        os.utime(path, (WHEN, WHEN))
    return folder


def digest(folder: Path) -> str:
    """What is in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return " ".join(f"{path.relative_to(folder)}={hashlib.sha256(path.read_bytes()).hexdigest()[:8]}" for path in paths)


class Commands:
    """Steps that are commands: what counts is how they end, and what they print if `says`."""

    def __init__(self, place: Place, *front: str | Path, **variables: str) -> None:
        self.place, self.front, self.variables = place, front, variables
        self.steps: Steps = {}

    def __call__(
        self, step: str, *words: str | Path, says: bool = False, reads: bool = False, given: bytes = b"", kept: str = r"^.+$"
    ) -> None:
        """`says`: those lines of what it prints count that are `kept`; `reads`: its bytes."""
        done = self.place.run(*self.front, *words, given=given, **self.variables)
        came = f"exit {done.returncode}"
        if done.returncode:
            # An error's code is its meaning; how it is put depends on the endpoint's name.
            codes = re.findall(r"\b(?:[A-Z][a-z]+){2,}\b|\b[45]\d\d\b", done.stderr.decode("utf-8", "replace"))
            came += " " + " ".join(sorted(set(codes)))
        elif says:
            found = re.findall(kept, self.place.same(done.stdout.decode("utf-8", "replace")), re.MULTILINE)
            came += " " + "|".join(sorted(line.strip() for line in found))
        elif reads:
            came += " " + hashlib.sha256(done.stdout).hexdigest()[:16]
        self.steps[step] = came

    def tell(self, step: str, result: str) -> None:
        self.steps[step] = result


def rclone(place: Place) -> Steps:
    settings = {
        "TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "REGION": REGION, "ENDPOINT": place.base, "FORCE_PATH_STYLE": "true",
        "UPLOAD_CUTOFF": "5M", "CHUNK_SIZE": "5M", "NO_CHECK_BUCKET": "true",
    }  # fmt: skip
    variables = {f"RCLONE_CONFIG_S3_{name}": value for name, value in settings.items()}
    # Its SDK of those days cannot load a bundle into rclone's transport, and gives up: SSL_CERT_FILE tells it the same.
    variables["AWS_CA_BUNDLE"] = ""
    source, there = tree(place.folder / "tree"), f"s3:{place.bucket}"
    run = Commands(place, "rclone", "--config", "/dev/null", "--retries", "1", "--low-level-retries", "1", **variables)
    run("copy", "copy", source, f"{there}/tree")
    run("list", "lsf", "-R", "--format", "pst", f"{there}/tree", says=True)
    run("hashes", "hashsum", "md5", f"{there}/tree", says=True)
    run("check", "check", "--download", source, f"{there}/tree")
    run("stream", "rcat", f"{there}/stream", given=bytes_of(LARGE))
    run("read", "cat", "--offset", "100", "--count", "50000", f"{there}/stream", reads=True)
    run("copy there", "copyto", f"{there}/tree/small.txt", f"{there}/copied", "--header-upload", "Cache-Control: max-age=5")
    run("copy many there", "copy", f"{there}/tree", f"{there}/again")
    run("move there", "moveto", f"{there}/copied", f"{there}/moved to +")
    (source / "small.txt").write_bytes(b"changed")
    os.utime(source / "small.txt", (WHEN + 5, WHEN + 5))
    (source / "empty").unlink()
    run("sync", "sync", source, f"{there}/tree")
    run("touch", "touch", "--timestamp", "2020-01-01T00:00:00", f"{there}/tree/deep/er/file.json")
    run("fetch", "copy", f"{there}/tree", place.folder / "back")
    run.tell("fetched", digest(place.folder / "back"))
    run("size", "size", "--json", there, says=True)
    run("not there", "cat", f"{there}/none")
    run("delete", "delete", f"{there}/again")
    run("list the rest", "lsf", "-R", "--format", "ps", there, says=True)
    return run.steps


def s3cmd(place: Place) -> Steps:
    host = place.base.partition("://")[2]
    proxy = place.proxy.rpartition("/")[2].partition(":") if place.proxy else ("", "", "")
    settings = {
        "access_key": place.key, "secret_key": place.secret, "host_base": host, "host_bucket": host, "bucket_location": REGION,
        "use_https": str(place.base.startswith("https")), "ca_certs_file": str(place.ca_file), "proxy_host": proxy[0],
        "proxy_port": proxy[2] or "0", "multipart_chunk_size_mb": "5", "max_retries": "0", "progress_meter": "False",
    }  # fmt: skip
    (place.folder / "s3cfg").write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    source, there = tree(place.folder / "tree"), f"s3://{place.bucket}"
    run = Commands(place, "s3cmd", "-c", str(place.folder / "s3cfg"))
    run("put", "put", "--recursive", "--no-preserve", f"{source}/", f"{there}/tree/")
    header = ("--add-header", "Cache-Control: max-age=5", "--add-header", "x-amz-meta-colour: blue green", "--mime-type", "text/x-small")
    run("put with headers", "put", "--no-preserve", *header, source / "small.txt", f"{there}/headers")
    run("put a stream", "put", "--no-preserve", "-", f"{there}/stream", given=bytes_of(MEDIUM))
    run("list", "ls", "-r", there, says=True)
    run("information", "info", f"{there}/headers", says=True, kept=r"^ +(?:File size|MIME type|MD5 sum|x-amz-meta-\w+|ACL):.*$")
    (place.folder / "back").mkdir()
    run("get", "get", "--force", "--recursive", f"{there}/tree/", f"{place.folder / 'back'}/")
    run.tell("got", digest(place.folder / "back"))
    run("copy there", "cp", f"{there}/headers", f"{there}/copied to +")
    run("move there", "mv", f"{there}/copied to +", f"{there}/moved é")
    run("delete", "rm", "--recursive", "--force", f"{there}/tree/deep/")
    run("not there", "get", "--force", f"{there}/none", place.folder / "none")
    run("list the rest", "ls", "-r", there, says=True)
    return run.steps


def restic(place: Place) -> Steps:
    source = tree(place.folder / "tree")
    variables = {"RESTIC_REPOSITORY": f"s3:{place.base}/{place.bucket}/repo", "RESTIC_PASSWORD": "p"}
    run = Commands(place, "restic", "--no-cache", "-o", "s3.bucket-lookup=path", **variables)
    run("init", "init")
    run("back up", "backup", source)
    (source / "small.txt").write_bytes(b"changed")
    run("back up again", "backup", source)
    run("list", "ls", "latest", says=True, kept=r"^/.*$")
    run("check", "check", "--read-data")
    run("restore", "restore", "latest", "--target", place.folder / "back")
    restored = place.folder / "back" / str(source).lstrip("/")
    run.tell("restored", digest(restored) if restored.exists() else "nothing")
    run("read", "dump", "latest", source / "medium.bin", reads=True)
    run("forget", "forget", "--keep-last", "1", "--prune")
    run("check again", "check")
    return run.steps


def mc(place: Place) -> Steps:
    source, there = tree(place.folder / "tree"), f"s3/{place.bucket}"
    run = Commands(place, MC, "--no-color", "--quiet", "--disable-pager", MC_CONFIG_DIR=str(place.folder / "mc"))
    run("alias", "alias", "set", "s3", place.base, place.key, place.secret, "--api", "S3v4", "--path", "on")
    run("copy", "cp", "--recursive", f"{source}/", f"{there}/tree/")
    for sum_ in ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"):
        run(f"copy with {sum_}", "cp", "--checksum", sum_, source / "medium.bin", f"{there}/{sum_}")
    run("copy nothing with SHA256", "cp", "--checksum", "SHA256", source / "empty", f"{there}/empty SHA256")
    run("put in parts with CRC32C", "put", "--checksum", "CRC32C", "--part-size", "5MiB", source / "large.bin", f"{there}/parts")
    run(
        "put with headers", "cp", "--attr", "Cache-Control=max-age=5;colour=blue", "--tags", "a=b", source / "small.txt", f"{there}/headers"
    )
    run("pipe", "pipe", "--part-size", "5MiB", f"{there}/pipe", given=bytes_of(LARGE))
    run("list", "ls", "--recursive", there, says=True)
    names = r"^(?:Name|Size|Type|ETag|Checksum|Metadata|Tags? *:|  X-Amz-\S+|  Cache-Control|  Content-Type|  \S+ *:).*$"
    for name in ("headers", "SHA256", "CRC32", "parts"):
        run(f"status of {name}", "stat", f"{there}/{name}", says=True, kept=names)
    run("read", "cat", f"{there}/pipe", reads=True)
    run("read the beginning", "head", "-n", "1", f"{there}/tree/medium.bin", reads=True)
    run("copy there", "cp", f"{there}/headers", f"{there}/copied to +")
    run("move there", "mv", f"{there}/copied to +", f"{there}/moved é")
    run("tag", "tag", "set", f"{there}/CRC32", "a=b c")
    run("tags", "tag", "list", f"{there}/CRC32", says=True, kept=r"^a.*$")
    run("fetch", "mirror", f"{there}/tree", place.folder / "back")
    run.tell("fetched", digest(place.folder / "back"))
    (source / "small.txt").write_bytes(b"changed")
    run("mirror", "mirror", "--overwrite", source, f"{there}/tree")
    run("find", "find", there, "--name", "*.bin", says=True)
    run("not there", "cat", f"{there}/none")
    run("delete", "rm", "--recursive", "--force", f"{there}/tree/deep")
    run("list the rest", "ls", "--recursive", there, says=True)
    return run.steps


def lines(*command: str | Path) -> Callable[[Place], Steps]:
    """A program that prints each step and what it came to."""

    def run(place: Place) -> Steps:
        done = place.run(*command, place.bucket)
        steps: Steps = {}
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            step, tab, result = line.partition("\t")
            if tab:
                steps[step] = place.same(result)
        error = done.stderr.decode("utf-8", "replace").strip().splitlines()
        steps["the end"] = f"exit {done.returncode}" + (f" {place.same(error[-1])}" if done.returncode and error else "")
        return steps

    return run


def python(name: str) -> Client:
    script = HERE / "python" / f"{name}_client.py"
    return Client(name, lines(VENV, script), (VENV,), "build/s3-matrix/venv/bin/python")


GO, NODE = BUILT / "go" / "client", BUILT / "node" / "client.mjs"
CLIENTS = {
    client.name: client
    for client in (
        Client("boto3", lines(sys.executable, HERE / "python" / "boto3_client.py"), ()),
        Client("Go SDK", lines(GO, "sdk"), (GO,), "build/s3-matrix/go/client"),
        # versitygw takes the LF behind MinIO's checksums for a part of them.
        Client("minio-go", lines(GO, "minio"), (GO,), "build/s3-matrix/go/client", refused=("versitygw",)),
        Client("JS SDK", lines("node", NODE), ("node", NODE), "build/s3-matrix/node/client.mjs"),
        Client("s3cmd", s3cmd, ("s3cmd",)),
        Client("rclone", rclone, ("rclone",)),
        Client("restic", restic, ("restic",), repeatable=False),
        Client("mc", mc, (MC,), "build/mc/bin/mc", refused=("versitygw",)),
        *(python(name) for name in ("obstore", "pyarrow", "duckdb", "s3fs")),
    )
}
