"""Runs that the tests of the writers share: one with every status, and one that is real."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest
from nightly import SERIES

from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.clauses import CLAUSES, select_clauses
from moe_routing.conformance.cli import check as check_command
from moe_routing.conformance.events.stock import STOCK
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.run.engine import no_hints
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.conformance.run.session import Settings, check, in_process
from moe_routing.implementations import load_adapter

WRONG = Path(__file__).parent / "data" / "wrong_adapters.py"

LONGEST = (
    "zoo/test_honest.py",
    "zoo/test_census.py",
    "cli/test_ways_in.py",
    "docs/test_tutorial.py",
    "cli/test_new_adapter.py",
    "checking/test_narrow_claims.py",
    "clauses/test_wrong_adapters.py",
    "pytest_plugin/test_plugin.py",
    "run/test_isolation.py",
    "cli/test_streams.py",
    "clauses/test_registry.py",
    "run/test_edges.py",
    "known/test_shipped.py",
    "implementations/test_transformers_routers.py",
    "generators/test_scenes.py",
    "report/test_gating.py",
    "judge/test_selection.py",
    "report/test_widths.py",
    "zoo/test_parade.py",
    "zoo/test_shrunk_mutants.py",
    "implementations/test_process.py",
    "zoo/test_nearest.py",
    "report/test_site_browser.py",
    "run/test_unwritable.py",
    "cli/test_cli.py",
    "docs/test_integrations.py",
    "ranks/test_expert_parallel.py",
    "run/test_interrupts.py",
    "implementations/test_axolotl_releases.py",
    "ranks/test_command.py",
    "report/test_progress.py",
    "traces/test_over_ray.py",
    "ranks/test_on_ranks.py",
    "implementations/test_process_c.py",
    "clauses/test_odd_claims.py",
    "report/test_html_browser.py",
    "judge/test_batch.py",
    "clauses/test_rules_proven.py",
    "zoo/test_residents.py",
    "docs/test_event_shares.py",
    "docs/test_performance_page.py",
    "cli/test_report.py",
    "implementations/test_claims.py",
    "generators/test_generators.py",
    "clauses/test_own_faults.py",
    "clauses/test_claim_audit.py",
    "implementations/test_capacities.py",
    "zoo/test_narrow_mutants.py",
    "run/test_starter.py",
    "run/test_one_file_for_two.py",
)
"""The files that take longest, as `pytest --durations=0` shows: of several workers, none should
begin one of them when the others are at their end."""


UNUSED = ("anyio", "benchmark", "hypothesispytest", "typeguard")
"""The plugins of other packages that start with every pytest of this environment."""


def pytest_configure() -> None:
    """Keep freed memory, as workers do: a tenth of the time goes into pages made anew."""
    keep_freed_memory()


def pytest_collection_finish() -> None:
    """Look through nothing again that was imported or collected, whenever garbage is."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    tests = Path(__file__).parent
    rank = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _no_plugins_that_no_test_uses() -> Iterator[None]:
    """Let the pytest of a test's own, started in a process, leave out what others installed.

    Those plugins take two thirds of an empty run; the one of the tutorial has them.
    """
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in UNUSED))
        yield


@pytest.fixture(scope="module")
def without_hints() -> Iterator[None]:
    """Runs that compare no failure with the mutants, which takes longer than such a run."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(check_command, "hints", no_hints)
        yield


HOSTILE = (
    "</script><script>document.title='taken'</script> & \"'`|*_ ]]> [red]% ::error::x \x1b[31m\x00"
)
"""A name or message that means something in every format there is."""


@pytest.fixture(scope="session")
def hostile() -> str:
    """Text that means something in every format there is."""
    return HOSTILE


@pytest.fixture(scope="session")
def every_status() -> RunResult:
    """One clause of each status, on an adapter whose name, story and paths are hostile."""
    clauses = tuple(
        ClauseResult(
            id=id_,
            level=CLAUSES[id_].level,
            chapter=CLAUSES[id_].chapter,
            status=status,
            examples=3,
            tokens=5,
            seconds=0.5,
            message="" if status == "pass" else f"{status}: {HOSTILE}",
            failure=Failure(stage="weights", summary=HOSTILE, token=1, details=(HOSTILE, "````"))
            if status == "fail"
            else None,
            case_file=f"cases/{HOSTILE}.json" if status in ("fail", "error", "crash") else None,
            divergences={"listed": HOSTILE} if status == "known" else {},
        )
        for id_, status in zip(CLAUSES, get_args(Status), strict=False)
    )
    adapter = AdapterResult(
        name=HOSTILE,
        package="pack",
        version="1.0",
        numerics=["multiply=tf32"],
        clauses=clauses,
        reference=f"my, {HOSTILE}.py:Router",
    )
    return _run(adapter)


class Patches(pytest.MonkeyPatch):
    """Sets constructed cases aside before it replaces anything that they may follow from."""

    def __init__(self) -> None:
        super().__init__()
        self._undone = ExitStack()

    def setattr(self, *given: Any, **more: Any) -> None:
        self._set_aside()
        super().setattr(*given, **more)

    def delattr(self, *given: Any, **more: Any) -> None:
        self._set_aside()
        super().delattr(*given, **more)

    def setitem(self, mapping: Any, *given: Any) -> None:
        if mapping is not os.environ:
            self._set_aside()
        super().setitem(mapping, *given)

    def delitem(self, mapping: Any, *given: Any, **more: Any) -> None:
        if mapping is not os.environ:
            self._set_aside()
        super().delitem(mapping, *given, **more)

    def undo(self) -> None:
        super().undo()
        self._undone.close()
        self._aside = False

    def _set_aside(self) -> None:
        if not self._aside:
            self._aside = True
            self._undone.enter_context(STOCK.set_aside())

    _aside = False


@pytest.fixture
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """As pytest's, but constructed cases of a test that patches have nothing to do with others'."""
    patches = Patches()
    yield patches
    patches.undo()


@pytest.fixture(scope="session")
def nothing_checked() -> RunResult:
    """An adapter that supports no clause."""
    clauses = tuple(
        ClauseResult(
            id=each.id,
            level=each.level,
            chapter=each.chapter,
            status="unsupported",
            message="the adapter claims nothing",
        )
        for each in CLAUSES.values()
    )
    return _run(
        AdapterResult(
            name="idle",
            package=None,
            version=None,
            numerics=[],
            clauses=clauses,
            reference="idle.py:Idle",
        )
    )


@pytest.fixture(scope="session")
def wrong_run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A right adapter and two that are wrong at different stages, with their case files."""
    references = ["reference", *(f"{WRONG}:{name}" for name in ("BiasedWeights", "LastExpertLost"))]
    clauses = select_clauses(["weights.*", "groups.*", "logits.match"])
    plan = Plan(clauses=clauses, max_examples=10, series=SERIES)
    return check(
        in_process({reference: load_adapter(reference) for reference in references}, plan),
        plan,
        Settings(profile="smoke", cases=tmp_path_factory.mktemp("cases")),
    )


def _run(adapter: AdapterResult) -> RunResult:
    return RunResult(
        profile="ci", seed=0, max_examples=100, environment={"python": "3"}, adapters=(adapter,)
    )
