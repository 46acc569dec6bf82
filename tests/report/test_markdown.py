"""The Markdown writer: rows for what differs, stories in folds, nothing taken for markup."""

from __future__ import annotations

import re
from dataclasses import replace

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.markdown import LARGEST, fenced, markdown
from moe_routing.conformance.report.text import (
    broken,
)


class TestMarkdown:
    def test_has_a_row_for_each_clause_that_differs(self, wrong_run: RunResult) -> None:
        text = markdown(wrong_run)
        shown = set(re.findall(r"^\| `([\w.-]+)` \|", text, re.M))
        ended = [{each.id: each.status for each in a.clauses} for a in wrong_run.adapters]
        rows = {id_: {each.get(id_) for each in ended} for each in ended for id_ in each}
        alike = {id_ for id_, row in rows.items() if row in ({"pass"}, {"unsupported"})}
        assert shown == set(rows) - alike
        assert rows["groups.from-each"] == {"pass", None}, "not all are held to it, so it differs"
        assert "clauses: pass everywhere." in text

    def test_has_a_story_for_each_broken_clause(self, wrong_run: RunResult) -> None:
        text = markdown(wrong_run)
        red = sum(len(broken(adapter)) for adapter in wrong_run.adapters)
        assert text.count("<details><summary>") == red
        assert text.count("Reproduce with: ") == red

    def test_escapes_what_is_not_ours(self, every_status: RunResult, hostile: str) -> None:
        text = markdown(every_status)
        outside = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.M | re.S)
        assert "<script>" not in outside.replace("\\<script", "")
        assert "\x1b" not in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        assert widths == {3}, "a bar in a name should not end its cell"

    def test_escapes_why_an_adapter_could_not_be_loaded(
        self, every_status: RunResult, hostile: str
    ) -> None:
        (adapter,) = every_status.adapters
        unloaded = replace(adapter, unloaded=f"{hostile}\ud800", clauses=())
        text = markdown(replace(every_status, adapters=(unloaded,)))
        assert "could not run: " in text
        assert "<script>" not in text.replace("\\<script", "")
        assert not {"\x1b", "\ud800"} & {*text}, "it should be fit to be written"

    def test_a_fence_is_longer_than_what_it_holds(self) -> None:
        assert fenced(["a ``` b", "`````"]) == ["``````", "a ``` b", "`````", "``````"]

    def test_leaves_stories_out_before_github_leaves_all_of_it_out(
        self, wrong_run: RunResult
    ) -> None:
        from dataclasses import replace

        many = replace(wrong_run, adapters=wrong_run.adapters * 200)
        text = markdown(many)
        assert "more stories are left out." in text
        assert len(text.encode()) < LARGEST
