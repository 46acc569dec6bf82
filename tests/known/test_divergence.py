"""Known divergences: the list cannot rot, cannot hide another bug, and says what is wrong in it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from divergences import ENTRY, divergence, written

from moe_routing.conformance import Divergence, Plan, load_known
from moe_routing.conformance.cases.files import load_case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.known import witnesses
from moe_routing.conformance.known.divergence import KnownError, known_divergences
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


class TestFile:
    def test_an_entry_is_read_whole(self, tmp_path: Path) -> None:
        when = {"score": "sigmoid", "tokens": [1, 2]}
        known = divergence(tmp_path, when=when, affects="groups.*")
        for name in ("id", "clause", "reason", "link"):
            assert getattr(known, name) == ENTRY[name]
        assert known.adapters == ("made-up",)
        assert known.affects == ("groups.*",)
        assert known.when == {"score": ("sigmoid",), "tokens": (1, 2)}
        assert known.witnesses[0].config.score == "sigmoid"

    def test_an_entry_of_some_devices_is_known_on_those_alone(self, tmp_path: Path) -> None:
        path = written(tmp_path, {**ENTRY, "devices": ["cuda"]})
        (known,) = load_known(path)
        assert [known.is_on(device) for device in ("cpu", "cuda", "cuda:1")] == [False, True, True]
        assert known_divergences([path], "cpu") == []
        assert [each.id for each in known_divergences([path], "cuda:0")] == [ENTRY["id"]]
        assert [each.id for each in known_divergences([path])] == [ENTRY["id"]]

    def test_witnesses_that_are_shipped_are_read_when_they_are_needed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[Path] = []
        monkeypatch.setattr(
            witnesses, "load_case", lambda path: (read.append(path), load_case(path))[1]
        )
        known = pickle.loads(pickle.dumps(known_divergences([])))[0]
        assert read == []
        assert len(known.witnesses) == len(known.witness_files)
        assert known.witnesses[0].kind == load_case(known.witness_files[0])[0].kind
        assert read == [*known.witness_files]

    def test_a_witness_that_is_read_late_is_still_checked(self, tmp_path: Path) -> None:
        path = written(tmp_path, {**ENTRY, "witness": "gone.json"})
        (known,) = load_known(path, later=True)
        with pytest.raises(
            KnownError, match=r"divergence 'sigmoid-off-by-one': Cannot read the case file"
        ):
            known.covers(None, load_case(tmp_path / "witness.json")[0])

    def test_an_empty_file_lists_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "known.toml").write_text("# nothing yet\n")
        assert load_known(tmp_path / "known.toml") == []

    @pytest.mark.parametrize("name", ENTRY)
    @pytest.mark.parametrize("how", ["missing", "empty"])
    def test_every_key_is_needed(self, name: str, how: str, tmp_path: Path) -> None:
        entry = {k: v for k, v in ENTRY.items() if k != name}
        if how == "empty":
            entry[name] = [] if name == "adapters" else ""
        assert f": {name} is missing or empty" in self.refusal(written(tmp_path, entry))

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ({"because": "x"}, "unknown keys ['because']; expected only ['id', 'adapters', "),
            ({"clause": "weights.mach"}, "unknown clause 'weights.mach'"),
            ({"clause": "weights.*"}, "unknown clause 'weights.*'"),
            ({"when": {"events": ["tie"]}}, "unknown event 'tie'"),
            ({"when": {"events": [["tie"]]}}, "unknown event ['tie']"),
            ({"when": {"events": {"tie": 1}}}, "unknown event {'tie': 1}"),
            ({"when": {"scores": "sigmoid"}}, "unknown key when.scores: "),
            ({"witness": "absent.json"}, "Cannot read the case file "),
            ({"witness": "known.toml"}, "Cannot read the case file "),
            ({"when": {"groups.kpt": 1}}, "groups.kpt"),
            ({"when": {"renormalize.epsilon": 1}}, "renormalize.epsilon"),
            ({"clause": ["weights.match"]}, "clause"),
            ({"witness": 3}, "witness"),
            ({"when": "always"}, "when"),
        ],
    )
    def test_a_mistake_in_an_entry_names_the_entry(
        self, parts: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        message = self.refusal(written(tmp_path, {**ENTRY, **parts}))
        assert "divergence 'sigmoid-off-by-one': " in message
        assert words in message

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"[[divergence]", "Cannot read "),
            (b"[[divergences]]\nid = 1", "has ['divergences'], but only [[divergence]] tables"),
            (b"[divergence]\nid = 'a'", "[[divergence]]"),
            (b"divergence = [1, 2]", "has the divergence 1, but entries are [[divergence]] tables"),
            (
                b"divergence = [[1]]",
                "has the divergence [1], but entries are [[divergence]] tables",
            ),
            (b"\xff\xfe", "Cannot read "),
        ],
    )
    def test_a_mistake_in_the_file_names_the_file(
        self, text: bytes, words: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "known.toml"
        path.write_bytes(text)
        message = self.refusal(path)
        assert str(path) in message
        assert words in message

    def refusal(self, path: Path) -> str:
        with pytest.raises(KnownError) as error:
            load_known(path)
        assert "\n" not in str(error.value)
        return str(error.value)


class MadeUp:
    """A right router but where one of ``wrong`` holds: there its weights are off by one."""

    name = "made-up"

    def __init__(self, *wrong: Callable[[RouterConfig], bool]) -> None:
        self._wrong = wrong

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = route(config, inputs)
        off = any(wrong(config) for wrong in self._wrong)
        return replace(right, weights=right.weights + 1.0) if off else right


def sigmoid(config: RouterConfig) -> bool:
    return config.score == "sigmoid"


def several(config: RouterConfig) -> bool:
    return config.score == "softmax" and config.top_k >= 2


class TestRun:
    def checked(
        self, adapter: Any, *known: Divergence, clause: str = "weights.match"
    ) -> ClauseResult:
        plan = Plan(clauses=[CLAUSES[clause]], max_examples=120, known=known)
        return check_clause(adapter, CLAUSES[clause], plan)

    @pytest.fixture
    def known(self, tmp_path: Path) -> Divergence:
        return divergence(tmp_path, when={"score": "sigmoid"}, affects=["weights.*", "scores.*"])

    def test_what_is_listed_is_known_and_the_rest_is_searched(self, known: Divergence) -> None:
        result = self.checked(MadeUp(sigmoid), known)
        assert (result.status, result.message) == ("known", known.id)
        assert result.divergences == {known.id: known.reason}
        assert result.examples >= 10, "cases outside the region should be tried"

    def test_what_is_repaired_is_fixed_and_says_what_to_remove(self, known: Divergence) -> None:
        result = self.checked(MadeUp(), known)
        assert result.status == "fixed"
        assert known.id in result.message
        assert "remove its entry" in result.message

    def test_another_bug_in_the_clause_is_not_hidden(self, known: Divergence) -> None:
        result = self.checked(MadeUp(sigmoid, several), known)
        assert result.status == "fail"
        assert (result.case.config.score, result.case.config.top_k) == ("softmax", 2)

    def test_an_affected_clause_passes_outside_the_region(self, known: Divergence) -> None:
        result = self.checked(MadeUp(sigmoid), known, clause="weights.scale")
        assert (result.status, result.message) == ("pass", f"outside {known.id}")
        assert self.checked(MadeUp(sigmoid), clause="weights.scale").status == "fail"

    def test_another_bug_in_an_affected_clause_is_not_hidden(self, known: Divergence) -> None:
        adapter = MadeUp(sigmoid, several)
        assert self.checked(adapter, known, clause="weights.scale").status == "fail"

    def test_other_adapters_and_clauses_are_not_excused(self, known: Divergence) -> None:
        other = MadeUp(sigmoid)
        other.name = "another"
        assert self.checked(other, known).status == "fail"
        listed = replace(known, affects=())
        assert self.checked(MadeUp(sigmoid), listed, clause="weights.scale").status == "fail"

    def test_without_when_everything_is_known(self, known: Divergence) -> None:
        everything = replace(known, when={})
        result = self.checked(MadeUp(lambda config: True), everything)
        assert (result.status, result.examples) == ("known", 0)

    def test_a_fixed_divergence_is_exit_1_on_the_command_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = written(tmp_path, {**ENTRY, "adapters": ["reference"]})
        argv = ["check", "reference", "--clause=weights.match", "--max-examples=2"]
        assert main([*argv, f"--known={path}"]) == 1
        out = capsys.readouterr().out
        assert "fixed" in out
        assert f"the known divergence {ENTRY['id']} is gone: remove its entry" in out
