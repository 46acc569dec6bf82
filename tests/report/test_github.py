"""The GitHub writer: annotations and the job summary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.github import MOST, annotations, write_summary
from moe_routing.conformance.report.markdown import markdown
from moe_routing.conformance.report.text import (
    broken,
)

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:BiasedWeights"


class TestGithub:
    def test_an_annotation_is_one_command_in_one_line(
        self, every_status: RunResult, hostile: str
    ) -> None:
        lines = annotations(every_status)
        red = [each for each in every_status.adapters[0].clauses if not each.green]
        assert len(lines) == len(red)
        for line in lines:
            found = re.fullmatch(r"::error file=([^,:\n]*),title=([^,:\n]*)::([^\n\r]*)", line)
            assert found, f"{line!r} is not one command"
            assert "Reproduce with" in found[3]
            assert "%25" in found[1], "a percent sign should be escaped, and first"

    def test_names_a_file_only_where_the_adapter_has_one(self, wrong_run: RunResult) -> None:
        lines = annotations(wrong_run)
        assert all(f"file={WRONG.rpartition(':')[0]}," in line for line in lines[:-1])

    def test_reports_how_many_github_would_drop(self, wrong_run: RunResult) -> None:
        red = sum(len(broken(adapter)) for adapter in wrong_run.adapters)
        assert red > MOST, "this test needs more failures than GitHub shows"
        lines = annotations(wrong_run)
        assert len(lines) == MOST
        assert lines[-1] == (
            f"::error title=moe-routing::{red - MOST + 1} more broken clauses; see the job summary"
        )

    def test_the_summary_is_appended_where_the_environment_says_when_it_is_written(
        self, wrong_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        summary = tmp_path / "summary.md"
        summary.write_text("before\n")
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        write_summary(wrong_run)
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        write_summary(wrong_run)
        assert summary.read_text() == "before\n" + markdown(wrong_run)
