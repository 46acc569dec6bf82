"""The files of the site, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moe_routing.conformance.report.site.backend import backend_page
from moe_routing.conformance.report.site.overview import clauses, index
from moe_routing.conformance.report.site.records import backends
from moe_routing.conformance.report.site.run import run_page
from moe_routing.conformance.report.site.shared import MARK

__all__ = ["MARK", "site"]


def site(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return the pages of labelled reports, the oldest first, by the names of their files."""
    found = backends(reports)
    pages = {"index.html": index(found), "clauses.html": clauses(found)}
    for each in found:
        pages[each.page] = backend_page(each)
        pages |= {run.page: run_page(each, run) for run in each.runs}
    return pages
