"""The metrics' reference, the Grafana dashboard and the alert rules, held against the engine's own registry."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigward import _core
from sigward.metrics import reference
from tests.needs import needs

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "sigward.json"
RULES = ROOT / "deploy" / "prometheus" / "sigward.rules.yaml"
RULE_TESTS = RULES.with_name("sigward.rules.test.yaml")

METRICS = {name: (kind, set(labels)) for name, kind, _, labels in _core.metric_descriptions()}
OF_THE_SCRAPE = {"job", "instance"}
NOT_OURS = {"up"}

promtool = needs("promtool")


def family(name: str) -> tuple[str, set[str]] | None:
    """The metric that a sample's name belongs to, and the labels that it can have."""
    if name in METRICS and METRICS[name][0] != "histogram":
        return name, METRICS[name][1] | OF_THE_SCRAPE
    bare, _, suffix = name.rpartition("_")
    if METRICS.get(bare, ("", set()))[0] == "histogram" and suffix in ("bucket", "sum", "count"):
        return bare, METRICS[bare][1] | OF_THE_SCRAPE | ({"le"} if suffix == "bucket" else set())
    return None


def faults(expression: str, legend: str = "") -> list[str]:
    """What in a PromQL expression is not in the registry: names of metrics, of labels in selectors, groupings and legends."""
    found: list[str] = []
    known: set[str] = set()
    # Keywords and functions are followed by a parenthesis, or stand between two operands.
    words = re.finditer(r"(?<![\w:.\"$])([a-zA-Z_:][\w:]*)\s*(\(|\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', expression))
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", expression)
    for word in words:
        name, selector = word[1], word[3]
        if not name.startswith("sigward") and selector is None:
            continue
        if name in NOT_OURS:
            known |= OF_THE_SCRAPE
            continue
        metric = family(name)
        if metric is None:
            found.append(f"there is no metric {name}")
            continue
        known |= metric[1]
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or "")
        found += [f"{name} has no label {label}" for label in labels if label not in metric[1]]
    assert known or found, f"no metric in {bare}"
    grouped = [
        label.strip() for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression) for label in group.split(",")
    ]
    found += [f"no metric of it has a label {label}" for label in grouped if label not in known]
    shown = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", legend)
    found += [f"the legend has {label}, which is not grouped by" for label in shown if label not in (grouped or known)]
    return found


def expressions() -> Iterator[tuple[str, str, str]]:
    """(where, expression, legend) of every panel and rule."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert query, variable["definition"]
            yield f"variable {variable['name']}", f"count by ({query[2]}) ({query[1]})", ""
    for rule in rules():
        yield rule["alert"], rule["expr"], "".join(re.findall(r"\{\{ \$labels\.\w+ \}\}", rule["text"]))


def rules() -> list[dict[str, str]]:
    """Name, expression and text of every alert rule. The file is YAML of a plain kind: no parser for it is among our dependencies."""
    found: list[dict[str, str]] = []
    for block in RULES.read_text().split("      - alert: ")[1:]:
        name, _, rest = block.partition("\n")
        expr = re.search(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", rest)
        assert expr, name
        found.append({"alert": name, "expr": (expr[1] or expr[2]).strip(), "text": rest[expr.end() :]})
    return found


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), "python -m sigward.metrics > docs/metrics.md"


def test_every_metric_that_is_shown_is_described() -> None:
    engine = _core.Engine("{}")
    try:
        engine.set_credentials_failed("default", [("env", "nothing there")])
        shown = set(re.findall(r"^# TYPE (\S+) (\w+)$", engine.metrics(), re.MULTILINE))
    finally:
        engine.close()
    assert shown
    assert shown <= {(name, kind) for name, (kind, _) in METRICS.items()}
    assert ("sigward_credentials_usable", "gauge") in shown


@pytest.mark.parametrize(("where", "expression", "legend"), list(expressions()))
def test_an_expression_names_what_there_is(where: str, expression: str, legend: str) -> None:
    assert faults(expression, legend) == [], where


@pytest.mark.parametrize(
    ("expression", "legend", "said"),
    [
        ("sum(rate(sigward_request_total[5m]))", "", "no metric sigward_request_total"),
        ('sigward_requests_total{servic="s3"}', "", "no label servic"),
        ("sum by (oeration) (sigward_requests_total)", "", "label oeration"),
        ("sum by (service) (sigward_requests_total)", "{{region}}", "legend has region"),
        ("sigward_request_duration_seconds", "", "no metric sigward_request_duration_seconds"),
        ("sigward_in_flight_requests_bucket", "", "no metric sigward_in_flight_requests_bucket"),
        ('sigward_ready == 1 and other{job="a"}', "", "no metric other"),
        ('up{instnce="a"} == 0 and sum by (instnce) (up)', "", "label instnce"),
    ],
)
def test_a_misspelt_name_is_found(expression: str, legend: str, said: str) -> None:
    assert any(said in fault for fault in faults(expression, legend))


def test_most_metrics_are_on_the_dashboard() -> None:
    text = DASHBOARD.read_text()
    assert {name for name in METRICS if not re.search(rf"\b{name}(_bucket|_count)?\b", text)} == set()


@promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    lines = ["groups:", "- name: all", "  rules:"]
    for number, (_, expression, _) in enumerate(expressions()):
        written = expression.replace("$__rate_interval", "5m")
        lines += [f"  - record: sigward:test:{number}", f"    expr: {json.dumps(written)}"]
    file = tmp_path / "all.yaml"
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_rules_are_well_formed() -> None:
    done = subprocess.run(["promtool", "check", "rules", "--lint-fatal", str(RULES)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@promtool
def test_the_rules_fire_when_they_should() -> None:
    done = subprocess.run(["promtool", "test", "rules", str(RULE_TESTS)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r"alertname: (\w+)", RULE_TESTS.read_text()))
    assert tested == {rule["alert"] for rule in rules()}
