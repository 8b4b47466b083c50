"""The documentation: what is written in it holds, and the site is built without a warning and fetches nothing."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sigward import _core
from sigward.cli import COMMANDS as SUMMARIES
from sigward.cli.commands import COMMANDS, read, split_program
from sigward.settings import Settings
from tests.conftest import ROOT
from tests.shell import Shell

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sigward.toml of the checkout's or the person's is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


# ---------------------------------------------------------------- written


@dataclass(frozen=True)
class Block:
    """A piece of code in a page. `marker`: of the comment before it."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All fenced blocks of these languages. One in a list is indented."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            body = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
            if match[2] in languages:
                found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[2], body))
    return found


def samples() -> list[Block]:
    """Settings in pages and in deploy/: fenced, indented, as files of their own, and in the chart's values."""
    found = blocks("toml")
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"(?:^\n)(?:^    \[.*\n)(?:^(?:    .*)?\n)*", text, re.MULTILINE):
            found.append(Block(page, text.count("\n", 0, match.start()) + 2, "toml", textwrap.dedent(match[0])))
    for file in sorted((ROOT / "deploy").rglob("*.toml")):
        found.append(Block(file, 1, "toml", file.read_text()))
    for file in sorted((ROOT / "deploy").rglob("*values.yaml")):
        if config := yaml.safe_load(file.read_text()).get("config"):
            found.append(Block(file, 1, "toml", config))
    return found


def test_samples_are_found_wherever_they_stand() -> None:
    places = {sample.page.relative_to(ROOT).parts[0] for sample in samples()}
    assert places == {"README.md", "docs", "deploy"}
    with_rules = [sample for sample in samples() if re.search(r"^\[\[(route|pace)\]\]", sample.text, re.MULTILINE)]
    # Each rule that stands anywhere in them stands in a sample: none is left out by its layout.
    texts = "\n".join(page.read_text() for page in PAGES)
    written = len(re.findall(r"^ *\[\[(?:route|pace)\]\]", texts, re.MULTILINE))
    in_scripts = sum(len(re.findall(r"^\[\[(?:route|pace)\]\]", block.text, re.MULTILINE)) for block in blocks("sh"))
    assert in_scripts
    assert sum(len(re.findall(r"^\[\[(?:route|pace)\]\]", sample.text, re.MULTILINE)) for sample in with_rules) == written - in_scripts


@pytest.mark.parametrize("sample", samples(), ids=str)
def test_samples_of_settings_hold_without_a_warning(sample: Block) -> None:
    told = json.loads(Settings(**tomllib.loads(sample.text)).engine_json("us-east-1"))
    # Files that a page names are not here.
    engine = _core.Engine(json.dumps({key: value for key, value in told.items() if key not in ("access_log", "clients", "tls")}))
    try:
        assert engine.warnings() == []
    finally:
        engine.close()


@pytest.mark.parametrize("text", [block.text for block in blocks("sh") if "<<'TOML'" in block.text])
def test_settings_that_a_script_writes_hold_without_a_warning(text: str) -> None:
    for written in re.findall(r"<<'TOML'\n(.*?)^TOML$", text, re.MULTILINE | re.DOTALL):
        engine = _core.Engine(Settings(**tomllib.loads(written)).engine_json("us-east-1"))
        assert engine.warnings() == []
        engine.close()


def test_check_says_nothing_of_the_samples_in_deploy(sigward: Shell) -> None:
    in_deploy = [sample for sample in samples() if sample.page.is_relative_to(ROOT / "deploy")]
    assert len(in_deploy) > 1
    for sample in in_deploy:
        (sigward.home / "sample.toml").write_text(sample.text)
        ran = sigward.keys()("check", "--config", "sample.toml")
        assert ran.status == 0, ran.err
        assert "warning" not in ran.out


@pytest.mark.parametrize("block", blocks("yaml", "json"), ids=str)
def test_data_in_pages_can_be_read(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        assert list(yaml.safe_load_all(block.text))


def commands() -> list[tuple[str, list[str]]]:
    """Every `sigward …` in the pages' shell blocks."""
    found = []
    for block in blocks("sh", "bash", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for match in re.finditer(r"(?:^|[\s(\"'])sigward ((?:[a-z]|--compat).*)", line.partition(" #")[0]):
                text = re.sub(r"\)\"?$", "", re.split(r" (?:\||&&|>|2>|&$|<)|;| &$", match[1])[0])
                words = shlex.split(re.sub(r"\$(HOME|PWD)", "/home/me", text))
                found.append((f"{block}: sigward {text}", words))
    return found


@pytest.mark.parametrize(("where", "words"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_command_lines_in_pages_are_understood(where: str, words: list[str]) -> None:
    name, rest = words[0], words[1:]
    if name.startswith("--compat"):
        from sigward import compat

        compat.read(words)
        return
    assert name in SUMMARIES, where
    if name in COMMANDS:
        read(COMMANDS[name], f"sigward {name}", split_program(rest)[0] if name == "run" else rest)


# ---------------------------------------------------------------- the site


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    # Not --quiet: what it silences, --strict does not count.
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    strangers = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^\s\">]+")
    for page in pages:
        assert not strangers.findall(page.read_text()), page
