"""The JUnit writer: a testsuite an adapter, a testcase a clause.

There is no standard. What is written here is valid under both schemas in common use, that
of Ant's tasks and that of the Jenkins xUnit plugin: so every attribute that either wants
is there, and nothing that either refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from moe_routing.conformance.report import suite_version
from moe_routing.conformance.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.writers.text import printable, told

_ERRORS = ("error", "crash", "timeout", "inconclusive")
"""The statuses that say that the question could not be answered, rather than how."""


def junit_xml(run: RunResult) -> str:
    """Return the JUnit report of a run."""
    root = ET.Element("testsuites")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for number, adapter in enumerate(run.adapters):
        root.append(_suite(run, adapter, number, now))
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(run: RunResult, adapter: AdapterResult, number: int, now: str) -> ET.Element:
    cases = [_case(adapter, clause) for clause in adapter.clauses]
    suite = ET.Element(
        "testsuite",
        name=printable(adapter.name),
        package=printable(adapter.reference),
        id=str(number),
        timestamp=now,
        hostname="localhost",
        tests=str(len(cases)),
        time=_seconds(sum(clause.seconds for clause in adapter.clauses)),
        **{
            count: str(sum(case.find(kind) is not None for case in cases))
            for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped",) * 2)
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(run, adapter).items():
        ET.SubElement(properties, "property", name=name, value=printable(str(value)))
    suite.extend(cases)
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    return suite


def _properties(run: RunResult, adapter: AdapterResult) -> dict[str, object]:
    found = {
        "suite_version": suite_version(),
        "profile": run.profile,
        "seed": run.seed,
        "max_examples": run.max_examples,
    }
    if adapter.package:
        found["wraps"] = f"{adapter.package} {adapter.version}"
    return found


def _case(adapter: AdapterResult, clause: ClauseResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        name=clause.id,
        classname=printable(adapter.name),
        time=_seconds(clause.seconds),
    )
    if clause.status in ("unsupported", "known"):
        words = f"{clause.status}: {clause.message}"
        ET.SubElement(case, "skipped", message=printable(words))
    elif clause.status != "pass":
        kind = "error" if clause.status in _ERRORS else "failure"
        found = ET.SubElement(case, kind, type=clause.status, message=printable(clause.message))
        found.text = "\n".join(told(adapter, clause))
    return case


def _seconds(value: float) -> str:
    return f"{value:.3f}"
