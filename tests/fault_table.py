"""Tests of faults as one table: what breaks, through which front, and what holds all the same.

A test belongs to it by `@pytest.mark.fault(what, holds=…)`. `make faults` runs them and prints how each went; docs/faults.md holds the
same rows, read from the tests' text: `python -m tests.fault_table docs/faults.md` (`make reference`).
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from sigward.docs import row
from tests.needs import reason_of

TESTS = Path(__file__).resolve().parent
FRONTS = ("mitmproxy", "native")

PAGE = """\
<!-- Generated from the tests by `make reference`. -->

# Faults

What breaks, and what holds all the same. Each row is one or more tests; `make faults` runs all of them and prints this table with how each
went. All that are quick also run with `make test`. "engine": the test needs no front, because both use the same code.
"""


@dataclass(frozen=True)
class Row:
    """One fault. `fronts`: those that it is tested through; empty: neither, the engine alone."""

    what: str
    holds: str
    fronts: tuple[str, ...]


# ---------------------------------------------------------------- as it is written


def written() -> list[Row]:
    """Every row, in the order of the tests' files and lines. Cases of one fault are one row."""
    fronts: dict[tuple[str, str], set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if "mark.fault" in path.read_text(encoding="utf-8"):
            for what, holds, through in marked(path):
                fronts.setdefault((what, holds), set()).update(through)
    return [Row(what, holds, tuple(front for front in FRONTS if front in through)) for (what, holds), through in fronts.items()]


def marked(path: Path) -> Iterator[tuple[str, str, set[str]]]:
    """(what, holds, fronts) of each mark in a file."""
    module = parsed(path)
    for test in module.functions.values():
        for mark in marks(test, "fault"):
            arguments = [text(argument, module) for argument in (*mark.args, *(keyword.value for keyword in mark.keywords))]
            if len(arguments) != 2 or not test.name.startswith("test_"):
                raise ValueError(f"{path}:{test.lineno}: fault(what, holds=…) marks a test")
            yield arguments[0], arguments[1], alone(test) or through(test, module)


def text(node: ast.expr, module: "Module") -> str:
    """A text as it is written, or by a constant's name."""
    node = module.constants.get(node.id, node) if isinstance(node, ast.Name) else node
    return str(ast.literal_eval(node))


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """`functions`, `constants`: its own and those that it imports from other tests, by name. `conftest`: where else its fixtures are."""

    functions: dict[str, Function]
    constants: dict[str, ast.expr]
    conftest: Path | None

    @property
    def above(self) -> "Module | None":
        """The nearest folder's conftest.py."""
        return parsed(self.conftest) if self.conftest else None

    def fixture(self, name: str) -> "tuple[Function, Module] | None":
        """A fixture as a test of this module would get it."""
        if (found := self.functions.get(name)) and any("fixture" in ast.unparse(decorator) for decorator in found.decorator_list):
            return found, self
        return self.above.fixture(name) if self.above else None


@cache
def parsed(path: Path) -> Module:
    """A file's functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions: dict[str, Function] = {}
    constants: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            other = TESTS.parent / f"{(node.module or '').replace('.', '/')}.py"
            if other.exists() and other != path:
                names = {alias.name: alias.asname or alias.name for alias in node.names}
                functions |= {names[name]: found for name, found in parsed(other).functions.items() if name in names}
                constants |= {names[name]: found for name, found in parsed(other).constants.items() if name in names}
    folder = path.parent.parent if path.name == "conftest.py" else path.parent
    above = [place / "conftest.py" for place in (folder, *folder.parents) if place.is_relative_to(TESTS)]
    return Module(functions, constants, next((place for place in above if place.exists()), None))


def marks(test: Function, name: str) -> list[ast.Call]:
    """Its marks of that name, as far as they are calls."""
    return [mark for mark in test.decorator_list if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{name}"]


def alone(test: Function) -> set[str]:
    """The front that a test is marked to be of alone."""
    return {front for front in FRONTS if marks(test, front)}


def through(function: Function, module: Module) -> set[str]:
    """The fronts among the parameters of a test, or of a fixture that it uses."""
    found: set[str] = set()
    wanted = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            found |= named(decorator, module)
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.usefixtures":
            wanted += [str(ast.literal_eval(name)) for name in decorator.args]
    for name in wanted:
        # A fixture may ask for another of its own name, from above.
        place: Module | None = module.above if name == function.name else module
        if place and (fixture := place.fixture(name)):
            found |= through(*fixture)
    return found


def named(node: ast.AST, module: Module) -> set[str]:
    """The fronts whose names stand in it, or in a constant that does."""
    found: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and part.value in FRONTS:
            found.add(str(part.value))
        elif isinstance(part, ast.Name) and part.id in module.constants:
            found |= named(module.constants[part.id], module)
    return found


def reference() -> str:
    """docs/faults.md."""
    lines = [PAGE, "| fault | what holds | fronts |", "|---|---|---|"]
    lines += [row(fault.what, fault.holds, " and ".join(fault.fronts) or "engine") for fault in written()]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- as it went


@dataclass
class Went:
    """How the cases of one fault went through one front. `why`: of those that were skipped, or are known to fail."""

    ok: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.failed:
            return f"FAILED ({self.failed} of {self.failed + self.ok})" if self.failed + self.ok > 1 else "FAILED"
        parts = ["ok"] if self.ok else []
        parts += [f"known to fail ({why})" for why in dict.fromkeys(self.known)]
        parts += [f"skipped ({why})" for why in dict.fromkeys(self.skipped)]
        return "; ".join(parts) or "–"


class FaultTable:
    """A plugin: prints the table at the end of a run of `-m fault`."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[list[tuple[str, str]], tuple[str, ...]]] = {}
        self.went: dict[tuple[str, str], dict[str, Went]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Notes what each test is a case of. A case that is the other front's alone is none."""
        for item in session.items:
            rows = [(str(mark.args[0]), str(mark.kwargs.get("holds") or mark.args[1])) for mark in item.iter_markers("fault")]
            through = front_of(item)
            only = [front for front in FRONTS if item.get_closest_marker(front)]
            if not only or through in (None, *only):
                self.items[item.nodeid] = rows, tuple(only) if only else FRONTS if through is None else (through,)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts it."""
        rows, fronts = self.items.get(report.nodeid, ([], ()))
        for key in rows:
            for front in fronts:
                went = self.went.setdefault(key, {}).setdefault(front, Went())
                if hasattr(report, "wasxfail") and report.skipped:
                    went.known.append(str(report.wasxfail).removeprefix("reason: "))
                elif report.skipped:
                    went.skipped.append(reason_of(report))
                elif report.failed:
                    went.failed += 1
                elif report.when == "call":
                    went.ok += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints it."""
        table = Table("fault", *FRONTS, "what holds", show_lines=True)
        for (what, holds), fronts in self.went.items():
            table.add_row(what, *(str(fronts.get(front, "–")) for front in FRONTS), holds)
        shown = StringIO()
        Console(file=shown, width=max(120, terminalreporter._tw.fullwidth)).print(table, markup=False)
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(shown.getvalue())


def front_of(item: pytest.Item) -> str | None:
    """The front among its parameters."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return next((value for value in parameters.values() if isinstance(value, str) and value in FRONTS), None)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
