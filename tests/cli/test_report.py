"""The JSON report: every key of its schema, plain JSON, and the same for the same seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.run.environment import usable_cpus

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
QUICK = ("--clause=weights.unbiased", "--max-examples=3")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(*argv: str) -> dict[str, Any]:
    main(["check", *argv, "--json", "report.json"])
    return json.loads(Path("report.json").read_text())


class TestReport:
    def test_has_every_key_of_its_schema(self) -> None:
        whole = report("reference", WRONG, *QUICK)
        wanted = {"schema", "suite_version", "spec_version", "environment", "adapters"}
        assert wanted <= set(whole), wanted - set(whole)
        assert (whole["schema"], whole["exit_code"]) == (1, 1)
        assert {"python", "platform", "packages"} <= set(whole["environment"])
        assert [each["name"] for each in whole["adapters"]] == ["reference", "biased-weights"]
        for adapter in whole["adapters"]:
            assert {"name", "wraps", "summary", "clauses"} <= set(adapter)
            assert set(adapter["wraps"]) == {"package", "version"}
            wanted = {"passed", "failed", "known", "inconclusive", "unsupported", "errors"}
            assert wanted | {"applicable", "in_spec"} <= set(adapter["summary"])
            for clause in adapter["clauses"]:
                wanted = {"id", "level", "chapter", "status", "constructed", "examples", "tokens"}
                wanted |= {"seconds", "allowance_used", "message", "case"}
                assert wanted <= set(clause), wanted - set(clause)

    def test_counts_what_ran(self) -> None:
        (clause,) = report("reference", *QUICK)["adapters"][0]["clauses"]
        assert (clause["id"], clause["status"]) == ("weights.unbiased", "pass")
        assert (clause["chapter"], clause["level"]) == ("weights", "MUST")
        assert clause["constructed"] == len(CLAUSES["weights.unbiased"].events), "one for each"
        assert clause["examples"] == 3
        assert set(clause["events"].values()) == {"witnessed"}

    @pytest.mark.parametrize(
        ("jobs", "given", "threads"),
        [
            ("2", None, max(1, (usable_cpus() or 2) // 2)),
            ("2", "1", 1),
            ("1", "1", 1),
        ],
    )
    def test_says_how_many_threads_the_adapter_had(
        self, jobs: str, given: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        whole = report("torch", *QUICK, "--jobs", jobs)
        assert whole["adapters"][0]["threads"] == threads
        assert whole["environment"]["threads"] == given

    def test_has_the_values_of_the_token_that_went_wrong(self) -> None:
        (clause,) = report(WRONG, *QUICK)["adapters"][0]["clauses"]
        token = clause["token"]
        assert set(token) == {
            *("token", "judged", "cut", "experts", "hidden", "slots", "due", "groups"),
            *("explained", "input", "share"),
        }
        (slot, *_) = token["slots"]
        assert slot["right"] is False
        low, high = slot["permitted"]
        assert not low <= slot["weight"] <= high
        (passed,) = report("reference", *QUICK)["adapters"][0]["clauses"]
        assert passed["token"] is None

    def test_names_a_case_file_that_is_there(self) -> None:
        (clause,) = report(WRONG, *QUICK, "--cases=kept")["adapters"][0]["clauses"]
        assert Path(clause["case"]).is_file()
        assert Path(clause["case"]).parts[0] == "kept"

    def test_is_plain_json(self) -> None:
        report("reference", "--clause=robustness.*", "--max-examples=2")
        text = Path("report.json").read_text()
        bare = re.findall(r"(?<![\"\w])(NaN|-?Infinity)(?![\"\w])", text)
        assert not bare, "other languages read no NaN and no Infinity"

    def test_is_the_same_for_the_same_seed_but_for_the_seconds(self) -> None:
        clauses = ("--clause=groups.one-group", "--clause=weights.s*", "--max-examples=4")
        first, again, other = (
            without_seconds(report(WRONG, *clauses, f"--seed={seed}")) for seed in (7, 7, 8)
        )
        assert first == again
        assert first != other

    def test_may_be_written_into_a_new_folder(self) -> None:
        assert main(["check", "reference", *QUICK, "--json", "new/folder/report.json"]) == 0
        assert Path("new/folder/report.json").is_file()

    def test_keeps_the_cases_of_two_adapters_of_one_name_apart(self) -> None:
        twin = f"{DATA}/../data/wrong_adapters.py:BiasedWeights"
        adapters = report(WRONG, twin, *QUICK)["adapters"]
        assert len({each["clauses"][0]["case"] for each in adapters}) == 2


KEPT_APART = ("seconds", "start_seconds", "seed")


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k not in KEPT_APART}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value
