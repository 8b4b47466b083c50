""".github/workflows/release.yml: valid by GitHub's schema, pinned, with few rights, true to what it calls.

Only GitHub runs it whole; its local part is `.ci/wheel`.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(RELEASE.read_text())["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]

REQUIRED = {"linux-x86_64", "linux-aarch64", "macos-x86_64", "macos-arm64"}
"""Platforms whose wheels a release needs."""


def checked(workflow: Path) -> "subprocess.CompletedProcess[str]":
    """check-jsonschema has the schema with it."""
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", workflow]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_is_valid() -> None:
    ran = checked(RELEASE)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_schema_finds_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "release.yml"
    wrong.write_text(RELEASE.read_text().replace("runs-on:", "run-on:"))
    assert checked(wrong).returncode == 1


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    lines = [line for line in RELEASE.read_text().splitlines() if "uses:" in line]
    assert len(lines) == len([step for _, step in STEPS if "uses" in step])
    assert [line for line in lines if not re.fullmatch(r" +(- )?uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    pins = {line.split("uses: ")[1] for line in lines}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins}), "one action, two versions"


def test_rights_are_few() -> None:
    assert yaml.safe_load(RELEASE.read_text())["permissions"] == {}
    writes = {name: {right for right, kind in job["permissions"].items() if kind == "write"} for name, job in JOBS.items()}
    assert {name: rights for name, rights in writes.items() if rights} == {
        "images": {"packages", "id-token", "attestations"},
        "bills": {"id-token", "attestations"},
        "publish": {"id-token", "attestations"},
    }
    assert all("tag" in JOBS[name]["if"] for name, rights in writes.items() if rights)
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_the_local_part_is_what_ci_runs() -> None:
    assert {"run": ".ci/wheel"} in JOBS["local"]["steps"]
    assert ".ci/wheel" in (ROOT / ".ci" / "run").read_text().splitlines()
    assert (ROOT / ".ci" / "wheel").stat().st_mode & 0o111


def test_a_release_needs_each_platform_but_windows() -> None:
    platforms = {entry["platform"]: entry.get("experimental", False) for entry in JOBS["wheels"]["strategy"]["matrix"]["include"]}
    assert {name for name, experimental in platforms.items() if not experimental} == REQUIRED
    assert set(JOBS["bills"]["strategy"]["matrix"]["platform"]) == REQUIRED
    assert JOBS["wheels"]["continue-on-error"] == "${{ matrix.experimental || false }}"
    assert set(JOBS["publish"]["needs"]) == set(JOBS) - {"publish"}


def test_the_tag_is_held_against_the_version() -> None:
    [step] = [step for step in JOBS["local"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    def status(tag: str) -> int:
        return subprocess.run(["sh", "-c", step["run"]], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}).returncode

    assert status(f"v{version}") == 0
    assert status(f"v{version}.1") == 1


def test_maturin_is_the_locked_one() -> None:
    [locked] = [entry["version"] for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if entry["name"] == "maturin"]
    used = {step["with"]["maturin-version"] for _, step in STEPS if step.get("uses", "").startswith("PyO3/maturin-action@")}
    assert used == {f"v{locked}"}


@pytest.mark.parametrize("image", JOBS["images"]["strategy"]["matrix"]["include"], ids=lambda image: image["image"])
def test_images_are_those_of_deploy(image: dict[str, str]) -> None:
    text = (ROOT / image["file"]).read_text()
    assert f'org.opencontainers.image.title="{image["image"]}"' in text
    if "target" in image:
        assert re.search(rf"^FROM \S+ AS {image['target']}$", text, re.MULTILINE)
        [build] = [step for step in JOBS["images"]["steps"] if step.get("id") == "build"]
        arguments = {line.partition("=")[0] for line in build["with"]["build-args"].split("\n") if line}
        assert arguments <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
