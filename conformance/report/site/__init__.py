"""The site of several reports: static pages, one a question, with nothing to fetch.

``index.html`` has the backends by chapters, ``clauses.html`` every clause on every backend. A
backend has a page of its runs over time, a run one of its stories.
"""

from moe_routing.conformance.report.site.pages import MARK, site

__all__ = ["MARK", "site"]
