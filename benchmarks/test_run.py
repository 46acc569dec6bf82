"""Where the time of a whole ``ci`` run goes, for every backend that is installed."""

from __future__ import annotations

import pytest
from bench_clocks import Benchmark, place
from bench_sampler import sampled

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.known.divergence import known_divergences
from moe_routing.implementations import AdapterError, BackendMissing, load_adapter, registered

BACKENDS = [name for name in registered() if ":" not in name]  # families would take minutes


@pytest.mark.parametrize("name", BACKENDS)
def test_run(benchmark: Benchmark, name: str) -> None:
    """A run as ``check --no-isolate`` makes it, sampled; once, after a warm-up of one clause."""
    try:
        adapter = load_adapter(name)
    except (AdapterError, BackendMissing) as missing:
        pytest.skip(str(missing))
    plan = Plan(clauses=tuple(CLAUSES.values()), known=known_divergences([]))

    def run() -> dict[str, float]:
        with sampled() as found:
            for clause in plan.clauses:
                check_clause(adapter, clause, plan)
        return {part: count / found.total() for part, count in found.most_common()}

    benchmark.group = "a whole run"
    try:
        check_clause(adapter, plan.clauses[0], plan)
        parts = benchmark.pedantic(run)
    except BackendMissing as missing:  # some say so only where an expert is called
        pytest.skip(str(missing))
    place(benchmark, "Where a `ci` run goes", "processor time", name)
    benchmark.extra_info["parts"] = parts
