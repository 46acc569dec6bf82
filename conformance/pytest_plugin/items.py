"""Conformance tests for an author's own repository: one pytest item a clause."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from moe_routing.conformance.cases.files import case_folder
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.configuration import Configuration, configuration
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.profiles import DEFAULT, PROFILES
from moe_routing.conformance.checking.scope import clauses_for, untried_methods
from moe_routing.conformance.clauses import Clause, select_clauses
from moe_routing.conformance.clauses.rules import rule_lines
from moe_routing.conformance.known.divergence import Divergence, check_ids, load_known
from moe_routing.conformance.pytest_plugin import ADAPTER, ROOTS
from moe_routing.conformance.pytest_plugin.replay import replay_command
from moe_routing.conformance.run.huge import lacking
from moe_routing.conformance.run.written import with_case_file
from moe_routing.implementations import Adapter, adapter_of, load_adapter

Given = Adapter | type[Adapter] | Callable[[], Adapter] | str
"""An adapter, what makes one, or what names one."""


def conformance_tests(
    adapter: Given | None = None,
    *,
    profile: str | None = None,
    seed: int | None = None,
    clauses: Sequence[str] | str = (),
    known: str | Path | None = None,
    cases: str | Path | None = None,
) -> Callable[..., None]:
    """Return a test function with one item a clause; assign it to a name pytest collects.

    ``adapter`` is one, a class or function that makes one, or names one as the command line
    does; without it, the one of ``[tool.moe-routing]`` in pyproject.toml is meant. ``profile`` is
    ``ci`` and ``seed`` 0 unless given in that table, here, or on pytest's command line; the later
    wins. ``clauses`` is a glob of clause ids or several, ``known`` a known-divergences file, by
    default those of the table; failing cases are written under ``cases``. An unsupported clause
    skips, a known one is an expected failure, every other status but pass fails. Errors:
    ``ValueError`` for an unknown profile, ``NoSuchClause``, ``KnownError``, ``AdapterError``,
    ``ConfigurationError``, ``OSError``.
    """
    table = configuration(ROOTS[-1] if ROOTS else Path.cwd())
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"Expected profile to be one of {', '.join(PROFILES)} but got {profile!r}")
    selected = select_clauses([clauses] if isinstance(clauses, str) else clauses)
    listed = _listed(known, table)
    given: Given = _the_one(table) if adapter is None else adapter
    checked = _loaded(given, table.device or "cpu")
    if not clauses:
        selected = clauses_for(selected, untried_methods(checked), checked.capabilities())

    @pytest.mark.parametrize("clause", selected, ids=[each.id for each in selected])
    def test_routing(clause: Clause, request: pytest.FixtureRequest) -> None:
        drawn = PROFILES[_option(request, "profile") or profile or table.profile or DEFAULT]
        if drawn.huge and clause.huge:
            _require_memory(getattr(checked, "device", table.device or "cpu"))
        plan = Plan(
            clauses=selected,
            max_examples=drawn.max_examples,
            repeats=drawn.repeats,
            series=drawn.series,
            seed=_seed(request, table.seed if seed is None else seed),
            known=listed,
            huge=drawn.huge,
            shrinks=not drawn.huge,
        )
        result = check_clause(checked, clause, plan)
        if result.status == "unsupported":
            pytest.skip(result.message)
        if result.status == "known":
            pytest.xfail("; ".join(f"{k}: {v}" for k, v in result.divergences.items()))
        if result.status != "pass":
            folder = Path(_option(request, "cases") or cases or "moe-routing-cases")
            result = with_case_file(result, folder / case_folder(checked.name))
            file = Path(result.case_file) if result.case_file else None
            command = replay_command(given, checked, request.node, file)
            lines = [f"{result.status}: {clause.statement}", result.message, *result.story]
            lines += (*rule_lines(clause.rules), *result.unwritten)
            pytest.fail("\n".join([*lines, f"Reproduce with: {command}"]), pytrace=False)

    setattr(test_routing, ADAPTER, given)
    return test_routing


def _the_one(table: Configuration) -> str:
    """Return the one adapter of the table. Errors: ``ValueError``."""
    if len(table.adapters) != 1:
        named = ", ".join(table.adapters) or "none"
        raise ValueError(
            "Expected conformance_tests to be given an adapter, or one in [tool.moe-routing] of "
            f"pyproject.toml, but got {named}: conformance_tests(MyRouter())"
        )
    return table.adapters[0]


def _loaded(given: Given, device: str) -> Adapter:
    """Return the adapter; ``device`` is for what is made here, since others have theirs."""
    if isinstance(given, str):
        return load_adapter(given, device=device)
    is_made = not isinstance(given, type) and hasattr(given, "capabilities")
    return adapter_of(given) if is_made else adapter_of(given, device=device)


def _listed(known: str | Path | None, table: Configuration) -> list[Divergence]:
    """Return the known divergences of a file, or else of the table. Errors: ``KnownError``."""
    files = [Path(known)] if known else table.known
    listed = [each for file in files for each in load_known(file)]
    check_ids(listed)
    return listed


def _require_memory(device: str) -> None:
    """Fail the item where this machine cannot hold what a huge call takes of it."""
    if words := lacking(device):
        pytest.fail(f"profile huge {words}", pytrace=False)


def _option(request: pytest.FixtureRequest, name: str) -> str | None:
    given: str | None = request.config.getoption(f"moe_routing_{name}", None)
    return given


def _seed(request: pytest.FixtureRequest, given: int | None) -> int:
    """Return the suite's seed: the option, then the argument, then Hypothesis's option."""
    own = _option(request, "seed")
    if own is not None:
        return int(own)
    if given is not None:
        return given
    shared = str(request.config.getoption("hypothesis_seed", None) or 0)
    if shared.lstrip("-").isdecimal():
        return int(shared)
    return int.from_bytes(hashlib.sha256(shared.encode()).digest()[:4], "big")
