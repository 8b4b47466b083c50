"""The reference: what is generated is current and whole, and every error that is made stands in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigward import _core, docs
from sigward.cli import COMMANDS as SUMMARIES
from sigward.cli.commands import COMMANDS, read
from sigward.settings import Settings
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sigward.toml of the checkout's or the person's is read."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", docs.PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == docs.PAGES[name](), f"docs/{name} is stale: make reference"


def test_every_setting_is_described() -> None:
    page = docs.settings_page()
    for name, field in Settings.model_fields.items():
        assert f"`[{name}]`" in page if docs.is_group(field.annotation) else f"| `{name}` |" in page
    assert "None" not in page


def test_every_argument_is_the_command_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    told = dict(zip(*[iter(re.split(r"^## (.*)$", docs.cli_page(), flags=re.MULTILINE)[1:])] * 2, strict=True))
    assert set(told) == set(SUMMARIES)
    for name, model in COMMANDS.items():
        with pytest.raises(SystemExit):
            read(model, f"sigward {name}", ["--help"])
        helped = capsys.readouterr().out
        arguments = re.findall(r"^\| `(-*[A-Za-z_-]+)` \|", told[name], re.MULTILINE)
        for argument in arguments:
            assert re.search(rf"(?<![\w-]){re.escape(argument)}(?![\w-])", helped), f"{name}: {argument}"


# ---------------------------------------------------------------- errors

RAISED = re.compile(r'Refusal::(client|sigward|upstream)\(\s*(\d+),\s*"([a-z0-9-]+)"')
"""A refusal whose slug stands where it is made."""

PYTHON_RAISED = re.compile(r'(?:refusal|Wrong)\(\s*(\d+),\s*"([a-z0-9-]+)"')


def rust() -> Iterator[str]:
    """The sources, without their tests."""
    for crate in ("gateway", "engine", "sigv4"):
        for path in (ROOT / "rust" / crate / "src").rglob("*.rs"):
            if path.name != "slugs.rs":
                yield path.read_text().split("#[cfg(test)]")[0]


def test_every_refusal_is_in_the_table_and_none_else() -> None:
    known = {(slug, status): fault for slug, fault, statuses, _, _ in _core.refusals() for status in statuses}
    sources = "\n".join(rust())
    front = "\n".join(path.read_text() for path in (ROOT / "python" / "sigward" / "mitm").rglob("*.py"))
    made = [(slug, int(status), fault) for fault, status, slug in RAISED.findall(sources)]
    assert len(made) > 30
    assert [one for one in made if known.get((one[0], one[1])) != one[2]] == []
    ours = [(slug, int(status)) for status, slug in PYTHON_RAISED.findall(front)]
    assert len(ours) > 10
    assert [one for one in ours if one not in known] == []
    quoted = set(re.findall(r'"([a-z0-9-]+)"', sources + front))
    assert [slug for slug, _ in known if slug not in quoted] == []
