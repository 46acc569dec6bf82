"""Mutants of shapes: wrong for some E, K, H, groups, vocabularies or widths alone."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.mutants.sizes import without
from moe_routing.conformance.zoo.residents import ROUTED, mutant
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array, sigmoid
from moe_routing.conformance.zoo.router.shared_stages import shared_output
from moe_routing.conformance.zoo.router.stages import (
    biased,
    competing,
    expert_ids,
    gate_logits,
    group_scores,
    grouped,
    logits,
    product,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities
from moe_routing.reference.selection import top_k


@mutant(
    "last-slot-lost-at-nine",
    "M38",
    "expert_ids",
    real="sgl-project/sglang#6736",
    needs="K=9, 128 experts",
)
def _(w: Work) -> Array:
    """Eight slots and a fused shared expert: the ninth was never written."""
    ids = np.array(expert_ids(w))
    if w.config.top_k == 9 and w.config.num_experts >= 128 and w.inputs.expert_table is None:
        ids[:, -1] = ids[:, 0]
    return ids


@mutant("first-only-of-2048", "M35", "expert_ids", real="vllm-project/vllm#39391")
def _(w: Work) -> Array:
    """Lanes for 1,024 experts: of 2,048 the upper half was never searched."""
    lost = np.arange(w.config.num_experts) >= 1024
    return without(w, lost) if w.config.num_experts == 2048 else expert_ids(w)


@mutant("tail-lost-at-320", "M36", "expert_ids", real="ROCm/aiter@b82dcd5143", needs="320 experts")
def _(w: Work) -> Array:
    """A kernel for powers of two saw the first 256 of 320 experts."""
    lost = np.arange(w.config.num_experts) >= 256
    return without(w, lost) if w.config.num_experts == 320 else expert_ids(w)


@mutant(
    "bfloat16-scores-of-768-experts",
    "M11",
    "scores",
    real="sgl-project/sglang#30323",
    needs="768 experts",
)
def _(w: Work) -> Array:
    """An instance of the template for 768 experts evaluated its scores in bfloat16."""
    scores = SCORE_FUNCTIONS[w.config.score](w.operated)
    return to_bfloat16(scores) if w.config.num_experts == 768 else scores


@mutant(
    "last-columns-lost-at-7168",
    "M52",
    "logits",
    "reported_logits",
    real="ROCm/aiter@b82dcd5143",
    claims=ROUTED,
    needs="H=7168, 256 experts",
)
def _(w: Work, stage: str) -> Array:
    """A split of H between blocks left the last 128 columns of a wide gate to nobody."""
    if stage == "reported_logits":
        return w.logits
    if w.inputs.hidden_size != 7168 or w.config.num_experts != 256:
        return logits(w)
    return gate_logits(w, lambda x, matrix: product(x[:, :-128], matrix[:, :-128]))


@mutant(
    "bfloat16-gate-from-2048",
    "M10",
    "gate_weight",
    real="vllm-project/vllm#14027",
    needs="H=2048, float32",
)
def _(w: Work) -> Array:
    """A gate kept in float32 was rounded where a wide kernel read it."""
    gate = w.inputs.gate_weight
    return to_bfloat16(gate) if w.inputs.hidden_size >= 2048 else gate


@mutant(
    "bfloat16-partial-sums",
    "M10",
    "logits",
    real="sgl-project/sglang#38719",
    needs="H=2048",
)
def _(w: Work) -> Array:
    """A split-K gate stored the sums of blocks of 256 columns in bfloat16."""
    if w.inputs.hidden_size < 2048:
        return logits(w)

    def blocks(x: Array, matrix: Array) -> Array:
        sums = [
            to_bfloat16(product(x[:, i : i + 256], matrix[:, i : i + 256]))
            for i in range(0, x.shape[1], 256)
        ]
        total: Array = np.stack(sums).sum(axis=0, dtype=np.float32)
        return total

    return gate_logits(w, blocks)


@mutant(
    "groups-beyond-the-eighth-lost",
    "M24",
    "group_scores",
    real="flashinfer-ai/flashinfer#3946",
    needs="9 groups, 128 experts",
)
def _(w: Work) -> Array:
    """Eight lanes held the groups' scores: those of 16 or 32 groups were read past them."""
    scores = np.array(group_scores(w))
    if w.config.num_experts >= 128 and w.groups.kept <= 8:
        scores[:, 8:] = -np.inf
    return scores


@mutant(
    "fifth-kept-group-lost",
    "M25",
    "kept_groups",
    real="ggml-org/llama.cpp#16691",
    needs="32 groups, 256 experts",
)
def _(w: Work) -> Array:
    """Registers for four kept groups: the others were the first one again."""
    groups = np.array(top_k(w.group_scores, w.groups.kept))
    if w.groups.count >= 32 and w.config.num_experts >= 256:
        groups[:, 4:] = groups[:, :1]
    return groups


@mutant(
    "wide-groups-cut-at-128",
    "M24",
    "group_scores",
    real="flashinfer-ai/flashinfer#3946",
    needs="groups of 129",
)
def _(w: Work) -> Array:
    """A group was scored by the first 128 of its experts."""
    if w.experts_per_group <= 128:
        return group_scores(w)
    best: Array = np.sort(grouped(w, w.biased)[:, :, :128], axis=2)
    total: Array = best[:, :, -min(w.groups.top, 128) :].sum(axis=2)
    return total


@mutant(
    "softmax-sums-1024",
    "M18",
    "scores",
    real="databricks/megablocks#87",
    needs="1025 experts",
)
def _(w: Work) -> Array:
    """The sum of a softmax took one block of 1,024 experts: all weights were too large."""
    scores = SCORE_FUNCTIONS[w.config.score](w.operated)
    if w.config.score != "softmax" or w.config.num_experts <= 1024:
        return scores
    block: Array = scores[:, :1024].sum(axis=1, keepdims=True)
    return scores / block


@mutant(
    "bias-ends-at-1024",
    "M04",
    "biased",
    real="vllm-project/vllm#33858",
    needs="1025 experts",
)
def _(w: Work) -> Array:
    """The bias was staged for 1,024 experts; those beyond had none."""
    values = np.array(biased(w))
    values[:, 1024:] = w.scores[:, 1024:]
    return values


@mutant(
    "token-ids-end-at-100000",
    "M52",
    "expert_ids",
    real="vllm-project/vllm#50845",
    needs="a table of 100001 rows",
)
def _(w: Work) -> Array:
    """A table was copied for 100,000 tokens, and ids beyond were read at its end."""
    table, tokens = w.inputs.expert_table, w.inputs.token_ids
    if table is None:
        return expert_ids(w)
    ids: Array = table[np.minimum(tokens, 99_999)]
    return ids


@mutant(
    "negative-zero-sorts-last",
    "M28",
    "competing",
    real="flashinfer-ai/flashinfer#2168",
    claims=Capabilities(takes="logits"),
)
def _(w: Work) -> Array:
    """Logits were compared by their bits, where -0.0 is below every number."""
    values, given = competing(w), w.inputs.logits
    if given is None or w.config.groups is not None:
        return values
    return np.where((given == 0.0) & np.signbit(given), np.float32(-1e38), values)


@mutant(
    "shared-expert-of-128-rows",
    "M59",
    "shared_output",
    real="sgl-project/sglang#6736",
    needs="a width of 129",
)
def _(w: Work) -> Array:
    """A block summed 128 rows of the shared expert, whatever its width."""
    rows = slice(128)
    gate, up = (
        w.shared_input @ w.inputs.gate_proj[rows].T,
        w.shared_input @ w.inputs.up_proj[rows].T,
    )
    output: Array = (gate * sigmoid(gate) * up) @ w.inputs.down_proj[:, rows].T
    return output


@mutant(
    "shared-expert-of-128-tokens",
    "M58",
    "shared_output",
    real="vllm-project/vllm#51632",
    needs="129 tokens",
)
def _(w: Work) -> Array:
    """Tokens beyond the first block of 128 got nothing from the shared expert."""
    output = np.array(shared_output(w))
    output[128:] = 0.0
    return output
