"""The model authors' own routers, as transformers ships them, checked by the judge.

What a family diverges in is listed in ``implementations/known/transformers.toml``, where
``tests/known/test_shipped.py`` holds it to its witnesses; here everything else must be right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, seed, settings

from moe_routing.conformance import Divergence, load_known
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.explain.failure import first_failure
from moe_routing.conformance.generators.strategies import routing_cases
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Adapter, load_adapter, shipped_known
from moe_routing.implementations.transformers.table import MEMBERS, ROWS
from moe_routing.reference import FORMATS, PRESETS, Preset, RouterInputs, preset

pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

STAGES = ("logits", "selection", "weights")
OWNERS = {each: name for name, row in ROWS.items() for each in row.served}
"""The row that serves each preset."""

KNOWN = [
    entry for path in shipped_known() if "transformers" in path.stem for entry in load_known(path)
]

T = 5


@cache
def adapter(name: str) -> Adapter:
    return load_adapter(f"transformers:{name}")


def whole_answers(name: str) -> list[Divergence]:
    """The divergences of an adapter that show in answers, rather than in what it rejects."""
    bad = ("groups.ragged-rejected", "robustness.rejects-bad-config")
    mine = [entry for entry in KNOWN if f"transformers:{name}" in entry.adapters]
    return [entry for entry in mine if entry.clause not in bad]


@pytest.mark.parametrize("name", MEMBERS)
def test_routes_as_specified(name: str) -> None:
    router, known = adapter(name), whole_answers(name)

    @seed(name)
    @settings(
        max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=routing_cases(router.capabilities()))
    def check(case: Case) -> None:
        trial = Trial(router, case)
        assume(not any(entry.covers(trial.bounds, case) for entry in known))
        wrong = first_failure(trial.verdict, *STAGES)
        assert wrong is None, f"{wrong.summary} at {case.size}, {case.config}"

    check()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_reference_and_router_agree_at_published_sizes(name: str, dtype: str) -> None:
    case = Case(config=preset(name).config, inputs=draw(preset(name), dtype))
    for router in (load_adapter("reference"), adapter(OWNERS[name])):
        trial = Trial(router, case)
        wrong = first_failure(trial.verdict, *STAGES)
        assert wrong is None, f"{router.name}: {wrong.summary}"
        assert trial.verdict.decided.all(), "random normals leave no weight open"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_names_the_precision_of_the_router(name: str) -> None:
    """The least precision that a preset permits is the one that the model's own code has."""
    chosen = preset(name)
    case = Case(config=chosen.config, inputs=draw(chosen, "bfloat16"))
    answer = Trial(adapter(OWNERS[name]), case).received.answer
    stored = {"input": "bfloat16", "float32": "float32"}[chosen.config.weights_dtype]
    assert answer.weights_dtype == stored
    if answer.logits is not None:
        rounded = FORMATS["bfloat16"].represents(answer.logits).all()
        assert rounded == (chosen.config.logits_dtype == "input"), f"logits rounded: {rounded}"


def draw(chosen: Preset, dtype: str) -> RouterInputs:
    """Draw random normals for every array that ``chosen`` has, at its published sizes."""
    rng = np.random.default_rng(20)
    experts, top_k, hidden = chosen.config.num_experts, chosen.config.top_k, chosen.hidden_size

    def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Any:
        return FORMATS[dtype].round(rng.normal(mean, scale, shape)).astype(np.float32)

    arrays: dict[str, Any] = {
        "hidden": normal(T, hidden),
        "gate_weight": normal(experts, hidden, scale=2.0 * hidden**-0.5),
    }
    if chosen.selection_bias:
        arrays["selection_bias"] = normal(experts, scale=0.1)
        arrays["selection_bias_on"] = chosen.selection_bias
    if chosen.gate_bias:
        arrays["gate_bias"] = normal(experts)
    if chosen.per_expert_scale:
        arrays["per_expert_scale"] = normal(experts, scale=0.2, mean=1.0)
    if chosen.config.input_norm:
        arrays["hidden_scale"] = normal(hidden, mean=5.0)
    if chosen.expert_table:
        arrays["expert_table"] = rng.integers(experts, size=(8, top_k))
        arrays["token_ids"] = rng.integers(8, size=T)
    return RouterInputs(dtype=dtype, **arrays)
