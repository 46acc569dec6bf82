"""What a clause costs on a large call whose tokens differ: the call, the verdict, the allowance."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from bench_clocks import Benchmark, Turn, place
from bench_inputs import MANY
from test_stages import made

from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.judge import by_device
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import load_adapter

JUDGES = {"by NumPy alone": ("cpu", "cuda"), "by the GPU first": ("cuda",)}
"""Who judges, and on which devices the backend then is."""


@pytest.mark.parametrize("judged", JUDGES)
@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
def test_a_clause(
    benchmark: Benchmark,
    monkeypatch: pytest.MonkeyPatch,
    judged: str,
    grouped: bool,
    device: str,
    turn: Turn,
) -> None:
    if device not in JUDGES[judged]:
        pytest.skip(f"{judged} needs --device {JUDGES[judged][0]}")
    if judged == "by NumPy alone":
        monkeypatch.setattr(by_device, "has_torch", lambda device: False)
    case, clause = made(MANY, grouped), CLAUSES["weights.match"]
    adapter = load_adapter("torch", device=device)
    kind = "grouped" if grouped else "plain"
    place(benchmark, "A clause on a large call of tokens that differ", judged, f"{MANY}, {kind}")

    def checked() -> bool:
        trial = Trial(adapter, case, "route")
        return evaluate(clause, trial).broken or not trial.allowance_used

    with nullcontext() if judged == "by NumPy alone" else turn:
        assert not benchmark.pedantic(checked, rounds=3, warmup_rounds=1)
