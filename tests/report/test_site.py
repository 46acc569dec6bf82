"""The site of several reports: what stands where, links that lead there, nothing hostile."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.cli import main
from moe_routing.conformance.report.files import json_text
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.site import MARK, site
from moe_routing.conformance.report.site.records import backends, changes
from moe_routing.conformance.report.text import broken, reproduce

Report = dict[str, Any]


def data(run: RunResult) -> Report:
    found: Report = json.loads(json_text(run))
    found["environment"].setdefault("packages", {"numpy": "2.0"})
    return found


@pytest.fixture
def report(wrong_run: RunResult) -> Report:
    return data(wrong_run)


def older(report: Report, **statuses: str) -> Report:
    """Return an earlier report: of another version, with some clauses of other statuses."""
    found = copy.deepcopy(report)
    for adapter in found["adapters"]:
        adapter["wraps"] = {"package": "kernels", "version": "1.0"}
        for clause in adapter["clauses"]:
            clause["status"] = statuses.get(clause["id"].replace(".", "_"), clause["status"])
    return found


class Read(HTMLParser):
    """The elements, links and ids of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.events: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.events += [name for name in given if name.startswith("on")]
        if "href" in given and tag == "a":
            self.links.append(given["href"] or "")
        if "id" in given:
            self.ids.append(given["id"] or "")

    def handle_data(self, data: str) -> None:
        self.shown += data


def read(pages: dict[str, str]) -> dict[str, Read]:
    return {name: Read(text) for name, text in pages.items()}


class TestPages:
    def test_every_link_leads_to_a_place_that_is_there(
        self, report: Report, every_status: RunResult
    ) -> None:
        pages = read(site([("a", older(report)), ("b", report), ("c", data(every_status))]))
        for name, page in pages.items():
            assert len(set(page.ids)) == len(page.ids), name
            for link in page.links:
                file, _, place = link.partition("#")
                there = pages[file or name]
                assert not place or place in there.ids, f"{name} links to {link}"

    def test_the_first_page_leads_to_each_story_in_one_step(
        self, report: Report, wrong_run: RunResult
    ) -> None:
        pages = site([("now", report)])
        first = Read(pages["index.html"])
        red = [(a, each) for a in wrong_run.adapters for each in broken(a)]
        assert f"Broken now: {len(red)} clauses" in first.shown
        for adapter, clause in red:
            link = f"{adapter.name}.1.html#{clause.id}"
            assert link in first.links
            story = Read(pages[f"{adapter.name}.1.html"]).shown
            assert clause.message in story
            assert reproduce(adapter, clause) in story
            for line in clause.story:
                assert line in story

    def test_a_story_is_drawn_as_on_the_page_of_a_run(self, report: Report) -> None:
        assert "svg" in Read(site([("now", report)])["biased-weights.1.html"]).tags
        assert "permitted band" in site([("now", report)])["last-expert-lost.1.html"]

    def test_a_backend_has_its_versions_and_what_changed(self, report: Report) -> None:
        before = older(report, weights_unbiased="pass")
        pages = site([("monday", before), ("tuesday", report)])
        page = Read(pages["biased-weights.html"])
        assert "1.0 · monday" in page.shown
        assert page.links.count("biased-weights.1.html#weights.unbiased") == 1
        assert page.links.count("biased-weights.2.html#weights.unbiased") == 2, "change and table"
        assert "Changed since the run before" in Read(pages["index.html"]).shown

    def test_reports_of_parts_of_one_version_stand_together(self, report: Report) -> None:
        parts = []
        for chapter in ("weights", "groups"):
            part = copy.deepcopy(report)
            for adapter in part["adapters"]:
                kept = [each for each in adapter["clauses"] if each["chapter"] == chapter]
                adapter["clauses"] = kept
            parts.append((chapter, part))
        (backend, *_) = backends(parts)
        assert {each.chapter for _, each in backend.current.values()} == {"weights", "groups"}
        of_older = backends([("old", older(report)), parts[1]])[0].current
        assert {each.chapter for _, each in of_older.values()} == {"groups"}, "another version"

    def test_a_device_is_a_backend_of_its_own(self, report: Report) -> None:
        other = copy.deepcopy(report)
        for adapter in other["adapters"]:
            adapter["device"] = "cuda"
        pages = site([("cpu", report), ("gpu", other)])
        assert {"biased-weights.html", "biased-weights-cuda.html"} <= set(pages)

    def test_namesakes_in_one_report_are_no_runs_of_one_backend(self, report: Report) -> None:
        for adapter in report["adapters"]:
            adapter["name"] = "same"
        found = backends([("a", report), ("b", report)])
        assert [each.name for each in found] == ["same", "same-2", "same-3"]
        assert {len(each.runs) for each in found} == {2}

    def test_what_is_worse_comes_first(self, report: Report) -> None:
        before = older(report, weights_unbiased="pass", weights_sum="crash")
        (biased, *_) = (
            each
            for each in backends([("a", before), ("b", report)])
            if each.name == "biased-weights"
        )
        assert [each.worse for each in changes(biased)] == [True, False]


class TestHostile:
    def test_no_name_or_message_becomes_markup(self, every_status: RunResult, hostile: str) -> None:
        pages = site([(hostile, data(every_status))])
        for page in read(pages).values():
            assert not {"script", "iframe", "object", "form"} & set(page.tags)
            assert page.events == []
        assert printable(hostile) in Read(pages["index.html"]).shown

    @pytest.mark.parametrize(
        "name",
        [
            *("../../etc/passwd", "index", "clauses", "", ".", "a/b\\c", "a.1", "é你", "x" * 500),
            *('"><img src=x onerror=alert(1)>', "{{7*7}}", "a\nb", "\x00\x1b"),
        ],
    )
    def test_a_name_makes_a_file_here_and_no_others(self, name: str, report: Report) -> None:
        for adapter, new in zip(report["adapters"], (name, name.upper(), "a"), strict=True):
            adapter["name"] = new
        pages = site([("x", report)])
        assert all(Path(file).name == file and len(file) < 100 for file in pages)
        assert len({file.lower() for file in pages}) == len(pages)
        assert all(set(file) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for file in pages)

    @pytest.mark.parametrize("token", [{}, [], 3, {"token": "x"}, {"experts": None}])
    def test_a_token_of_another_form_is_told_as_text(self, token: Any, report: Report) -> None:
        for adapter in report["adapters"]:
            for clause in adapter["clauses"]:
                clause["token"] = token
        assert "Went wrong at:" in site([("x", report)])["biased-weights.1.html"]

    def test_older_reports_and_odd_values_are_shown_as_far_as_they_go(self, report: Report) -> None:
        for adapter in report["adapters"]:
            for key in ("device", "threads", "hints", "untried", "unloaded"):
                del adapter[key]
            for clause in adapter["clauses"]:
                for key in set(clause) - {"id", "status", "constructed", "examples", "message"}:
                    clause[key] = {"odd": [1]}
                clause["id"] = clause["id"].replace("weights.", "gone.<b>")
        pages = read(site([("x", report)]))
        assert "gone.<b>unbiased" in pages["index.html"].shown

    def test_a_backend_that_could_not_run_says_why(self, report: Report) -> None:
        report["adapters"][0]["unloaded"] = "fastmoe is not installed"
        assert "fastmoe is not installed" in site([("x", report)])["reference.1.html"]


class TestCommand:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
        monkeypatch.chdir(tmp_path)
        Path("runs").mkdir()
        for name in ("2026-11-02", "2026-11-01"):
            Path(f"runs/{name}.json").write_text(json.dumps(report))

    def test_writes_the_pages_of_files_and_folders(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["site", "runs", "runs/2026-11-02.json", "--out", "new/pages"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line == "new/pages/index.html: 14 pages of 3 reports"
        shown = Read(Path("new/pages/reference.html").read_text()).shown
        places = [shown.index(f" · {name}") for name in ("runs/2026-11-02", "2026-11-01")]
        assert places == sorted(places), "the newest first, by name"

    def test_replaces_its_own_pages_and_no_others(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["site", "runs", "--out", "pages"]) == 0
        Path("pages/mine.html").write_text("<p>mine</p>")
        Path("pages/gone.html").write_text(f"<head>{MARK}</head>")
        assert main(["site", "runs/2026-11-01.json", "--out", "pages"]) == 0
        assert Path("pages/mine.html").is_file()
        assert not Path("pages/gone.html").exists(), "of a site before"
        assert not Path("pages/reference.2.html").exists()
        Path("pages/index.html").write_text("<p>mine</p>")
        capsys.readouterr()
        assert main(["site", "runs", "--out", "pages"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("moe-routing: --out pages has index.html, which is no page of a")
        assert Path("pages/index.html").read_text() == "<p>mine</p>"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["absent.json", "--out=p"], "report absent.json: No such file or directory"),
            (["empty", "--out=p"], "empty is a folder without a *.json"),
            (["bad.json", "--out=p"], "Cannot read the report bad.json"),
            (["runs", "--out=bad.json"], "bad.json is a file, where a folder is needed"),
        ],
    )
    def test_what_cannot_be_read_or_written_is_one_line(
        self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("empty").mkdir()
        Path("bad.json").write_text("{}")
        assert main(["site", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not Path("p").exists(), "nothing is written before all is read"

    def test_without_a_folder_it_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["site", "runs"])
        assert "--out" in capsys.readouterr().err
