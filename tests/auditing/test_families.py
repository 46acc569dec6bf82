"""The audit of a small random model of every family: nothing is wrong with any."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")
from tiny_models import batch_for, tiny_model

from moe_routing.conformance import audit
from moe_routing.implementations.models.finding import find_sites
from moe_routing.implementations.models.seen import PARTS
from moe_routing.implementations.transformers.table import ROWS

UNJUDGED = {
    "jetmoe": PARTS[1:],  # the block runs its experts itself
    "llama4_text": ("experts", "router gradients", "experts gradients"),  # of dense routes
    "switch_transformers": ("router gradients",),
    "longcat_flash": ("experts gradients",),  # some experts return what they are given
    "nemotron_h": ("experts", "experts gradients", "layer"),  # squared ReLU, latent experts
    "muse_spark_text": ("experts", "experts gradients", "layer"),  # a norm after each expert
    "inkling2_text": ("experts", "experts gradients"),  # a softcapped gate
    "axk1": ("layer",),  # a norm after the sum
    "minimax_m3_vl_text": ("layer",),  # gate and up of its shared expert in one
    "gemma4_text": ("layer",),  # no block: the decoder layer adds
    "diffusion_gemma_text": ("layer",),
}
"""What the audit says that it does not judge, by family."""


@pytest.mark.parametrize("name", ROWS)
def test_a_family_is_judged_and_right(name: str) -> None:
    model = tiny_model(name)
    found = audit(model, batch_for(name, model, tokens=8))
    assert found.right, str(found)
    parts = {each.part for each in found.judged}
    assert parts == set(PARTS) - set(UNJUDGED.get(name, ())), str(found)


def test_every_block_of_a_family_is_found() -> None:
    model = tiny_model("deepseek_v4")
    rows = {site.path: site.row.name for site in find_sites(model)[0]}
    hashed = [path for path, name in rows.items() if name == "deepseek_v4_hash"]
    assert set(rows.values()) == {"deepseek_v4", "deepseek_v4_hash"}
    assert all(hasattr(model.get_submodule(path).gate, "tid2eid") for path in hashed)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss"])
def test_in_16_bits_with_other_experts(name: str, dtype: str, implementation: str) -> None:
    model = tiny_model(name, dtype)
    model.set_experts_implementation(implementation)
    assert audit(model, batch_for(name, model, tokens=8)).right
