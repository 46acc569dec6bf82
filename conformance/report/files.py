"""The writers of files: each is a function from a run to a text."""

from __future__ import annotations

import json
from collections.abc import Callable

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.badge import badge
from moe_routing.conformance.report.gitlab import code_quality
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.junit import junit_xml
from moe_routing.conformance.report.markdown import markdown
from moe_routing.conformance.report.report import report
from moe_routing.conformance.report.sarif import sarif


def json_text(run: RunResult) -> str:
    """Return the JSON report of a run."""
    return json.dumps(report(run), indent=1) + "\n"


FORMATS: dict[str, Callable[[RunResult], str]] = {
    "json": json_text,
    "junit": junit_xml,
    "markdown": markdown,
    "html": html_page,
    "sarif": sarif,
    "gitlab": code_quality,
    "badge": badge,
}
"""Every kind of file, by the name of its option."""
