"""The table of faults: its page is current, and what it prints is how the tests went."""

from pathlib import Path

import pytest

from tests import fault_table
from tests.conftest import ROOT

pytest_plugins = ["pytester"]


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "faults.md").read_text() == fault_table.reference(), "docs/faults.md is stale: make reference"


def test_fronts_are_read_from_parameters_fixtures_and_marks() -> None:
    found = {
        (path.name, what): fronts
        for path in sorted(fault_table.TESTS.rglob("test_faults.py"))
        for what, _, fronts in fault_table.marked(path)
    }
    both = {"mitmproxy", "native"}
    assert found["test_faults.py", "an upstream that refuses connections"] == both, "by a fixture of conftest.py"
    assert found["test_faults.py", "no descriptors left"] == both, "by a fixture of its module, and that one's"
    native = fault_table.marked(fault_table.TESTS / "conformance" / "test_limits.py")
    assert {what: fronts for what, _, fronts in native}["more connections than allowed"] == {"native"}, "by its mark"
    engine = fault_table.marked(fault_table.TESTS / "unit" / "credentials" / "test_chain.py")
    assert [fronts for *_, fronts in engine] == [set()]


CASES = """
import pytest

both = pytest.mark.parametrize("front", ["mitmproxy", "native"])

@both
@pytest.mark.fault("one", holds="it holds")
def test_one(front): pass

@both
@pytest.mark.parametrize("case", range(3))
@pytest.mark.fault("two", holds="it holds")
def test_two(front, case): assert front == "native" or case

@both
@pytest.mark.native("so")
@pytest.mark.fault("three", holds="it holds")
def test_three(front): pass

@pytest.mark.fault("four", holds="it holds")
def test_four(): pytest.skip("no reason")

@pytest.mark.fault("one", holds="it holds")
def test_one_again(): pytest.skip("no tool")

@both
@pytest.mark.fault("five", holds="it holds")
def test_five(front, request):
    if front == "native":
        request.applymarker(pytest.mark.xfail(reason="known"))
    assert front == "mitmproxy"
"""


def test_it_says_how_each_went(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    pytester.makepyfile(CASES)
    marks = ["fault(what, holds): a row", "native(why): alone", "mitmproxy(why): alone"]
    pytester.makeini("[pytest]\nmarkers =\n" + "".join(f"    {mark}\n" for mark in marks))
    pytester.inline_run("-p", "no:anyio", "-p", "no:asyncio", "-p", "no:timeout", plugins=[fault_table.FaultTable()])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == [
        ["one", "ok; skipped (no tool)", "ok; skipped (no tool)", "it holds"],
        ["two", "FAILED (1 of 3)", "ok", "it holds"],
        ["three", "–", "ok", "it holds"],
        ["four", "skipped (no reason)", "skipped (no reason)", "it holds"],
        ["five", "ok", "known to fail (known)", "it holds"],
    ]


def test_a_mark_that_says_too_little_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text('import pytest\n@pytest.mark.fault("one")\ndef test_x(): pass\n')
    with pytest.raises(ValueError, match=r"test_x\.py:3: fault"):
        list(fault_table.marked(tmp_path / "test_x.py"))
