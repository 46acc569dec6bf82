"""The JUnit writer: a testsuite an adapter, a testcase a clause.

There is no standard. What is written here is valid under both schemas in common use, that
of Ant's tasks and that of the Jenkins xUnit plugin: so every attribute that either requires
is there, and nothing that either refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import complaints, story_lines
from moe_routing.conformance.run.environment import suite_version


def junit_xml(run: RunResult) -> str:
    """Return the JUnit report of a run."""
    root = ET.Element("testsuites")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for number, adapter in enumerate(run.adapters):
        cases = [_case(adapter, clause) for clause in adapter.clauses]
        cases += [_complaint(words) for about, words in complaints(run) if about is adapter]
        root.append(_suite(cases, number, now, adapter.name, adapter.reference))
        root[-1].insert(0, _properties(run, adapter))
    if whole := [_complaint(words) for about, words in complaints(run) if about is None]:
        root.append(_suite(whole, len(root), now, "moe-routing", "moe-routing"))
        root[-1].insert(0, ET.Element("properties"))
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(cases: list[ET.Element], number: int, now: str, name: str, package: str) -> ET.Element:
    counts = {
        count: str(sum(case.find(kind) is not None for case in cases))
        for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped",) * 2)
    }
    found = {
        "name": printable(name),
        "package": printable(package),
        "id": str(number),
        "timestamp": now,
        "hostname": "localhost",
        "tests": str(len(cases)),
        "time": _seconds(sum(float(case.get("time", 0.0)) for case in cases)),
    }
    suite = ET.Element("testsuite", found | counts)
    suite.extend([*cases, ET.Element("system-out"), ET.Element("system-err")])
    return suite


def _properties(run: RunResult, adapter: AdapterResult) -> ET.Element:
    found: dict[str, object] = {
        "suite_version": suite_version(),
        "profile": run.profile,
        "seed": run.seed,
        "max_examples": run.max_examples,
    }
    if adapter.package:
        found["wraps"] = f"{adapter.package} {adapter.version}"
    properties = ET.Element("properties")
    for name, value in found.items():
        ET.SubElement(properties, "property", name=name, value=printable(str(value)))
    return properties


def _case(adapter: AdapterResult, clause: ClauseResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        name=clause.id,
        classname=printable(adapter.name),
        time=_seconds(clause.seconds),
    )
    kind = STATUSES[clause.status].junit
    if kind == "skipped":
        words = f"{clause.status}: {clause.message}"
        ET.SubElement(case, "skipped", message=printable(words))
    elif kind is not None:
        found = ET.SubElement(case, kind, type=clause.status, message=printable(clause.message))
        found.text = "\n".join(story_lines(adapter, clause))
    return case


def _complaint(words: str) -> ET.Element:
    """A case for what is wrong with the run itself, for readers who do not see the exit code."""
    case = ET.Element("testcase", name="the run itself", classname="moe-routing", time="0.000")
    ET.SubElement(case, "error", type="run", message=words).text = words
    return case


def _seconds(value: float) -> str:
    return f"{value:.3f}"
