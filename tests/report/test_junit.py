"""JUnit XML: valid under the two schemas in use, with every status and every story in it."""

from __future__ import annotations

import re
import xml.dom.minidom
from typing import get_args
from xml.etree import ElementTree as ET

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.report.junit import junit_xml
from moe_routing.conformance.report.plain import printable

WANTED = {
    "testsuites": set(),
    "testsuite": {"name", "package", "id", "timestamp", "hostname", "tests", "failures"}
    | {"errors", "skipped", "time"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "skipped": {"message"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "system-out": set(),
    "system-err": set(),
}
"""The attributes that the two schemas in use want together: Ant's, and that of Jenkins."""


class TestJunit:
    def test_has_the_elements_and_attributes_that_both_schemas_want(
        self, every_status: RunResult
    ) -> None:
        root = ET.fromstring(junit_xml(every_status))
        for element in root.iter():
            assert set(element.attrib) == WANTED[element.tag], element.tag
        for number, suite in enumerate(root):
            tags = [child.tag for child in suite]
            cases = len(every_status.adapters[number].clauses)
            wanted = ["properties", *["testcase"] * cases, "system-out", "system-err"]
            assert tags == wanted, "Ant's schema is a sequence"
            assert suite.get("id") == str(number)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
            assert re.fullmatch(r"\d+\.\d{3}", suite.get("time", ""))
            assert all(len(case) <= 1 for case in suite.iter("testcase"))

    def test_counts_what_is_in_it(self, every_status: RunResult, wrong_run: RunResult) -> None:
        for run in (every_status, wrong_run):
            for suite, adapter in zip(ET.fromstring(junit_xml(run)), run.adapters, strict=True):
                for count, tag in (("failures", "failure"), ("errors", "error")):
                    assert int(suite.get(count, "")) == len(suite.findall(f"testcase/{tag}"))
                assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
                assert int(suite.get("tests", "")) == len(adapter.clauses)

    def test_every_status_has_its_place(self, every_status: RunResult) -> None:
        (suite,) = ET.fromstring(junit_xml(every_status))
        found = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
        tags = {each.status: found[each.id] for each in every_status.adapters[0].clauses}
        assert set(tags) == set(get_args(Status))
        assert tags == {
            "pass": [],
            **{status: ["skipped"] for status in ("known", "unsupported")},
            **{status: ["failure"] for status in ("fail", "fixed")},
            **{status: ["error"] for status in ("error", "crash", "timeout", "inconclusive")},
        }

    def test_a_failure_is_reported_to_its_end(self, wrong_run: RunResult) -> None:
        texts = [found.text or "" for found in ET.fromstring(junit_xml(wrong_run)).iter("failure")]
        assert texts
        assert all(text.splitlines()[-1].startswith("Reproduce with: ") for text in texts)
        assert all("went wrong at: " in text for text in texts)

    def test_shows_hostile_text_literally(self, every_status: RunResult, hostile: str) -> None:
        text = junit_xml(every_status)
        xml.dom.minidom.parseString(text)
        (suite,) = ET.fromstring(text)
        assert suite.get("name") == printable(hostile)
        (failure,) = (f for f in suite.iter("failure") if f.get("type") == "fail")
        assert printable(hostile) in (failure.text or "")
