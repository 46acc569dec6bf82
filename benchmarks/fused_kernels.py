"""Print the time of each fused router on a GPU, and its share of the least memory traffic.

    python benchmarks/fused_kernels.py [GLOB ...]

E = 256, K = 8, float32 logits, 1, 64 and 8,192 tokens. A call is one of twenty of a CUDA graph, so
that Python's part is none of it. The least traffic reads the logits and writes K float32 weights
and int32 ids a token; the share is that of what a copy of 1 GiB moves a second.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from moe_routing.implementations import BackendMissing, Unsupported, expand, load_adapter
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.registry import needs_gpu
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs

EXPERTS, TOP_K, TOKENS = 256, 8, (1, 64, 8192)
FAMILIES = ("vllm", "sglang", "flashinfer", "lmdeploy", "transformer-engine")
GROUPS = Groups(count=8, kept=4, top=2, fill=-math.inf)
Call = Callable[[], Any]


def microseconds(call: Call, repeats: int = 20) -> float:
    """Return the median time of a call in a graph of ``repeats`` of them."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    found = []
    for _ in range(25):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / repeats * 1e3)
    return float(np.median(found))


def eager(name: str, logits: torch.Tensor) -> Call:
    """Return a router in eager torch: softmax, or DeepSeek-V3's in 8 groups of which 4 are kept."""

    def softmax() -> Any:
        weights, ids = torch.softmax(logits, -1).topk(TOP_K)
        return weights / weights.sum(-1, keepdim=True), ids

    def deepseek_v3() -> Any:
        scores = logits.sigmoid()
        best = scores.view(-1, 8, EXPERTS // 8).topk(2, -1)[0].sum(-1).topk(4, -1)[1]
        kept = torch.zeros_like(scores[:, :8]).scatter_(1, best, 1).bool()
        hidden = scores.masked_fill(~kept.repeat_interleave(EXPERTS // 8, 1), -math.inf)
        ids = hidden.topk(TOP_K, -1)[1]
        weights = scores.gather(1, ids)
        return weights / (weights.sum(-1, keepdim=True) + 1e-20), ids

    return softmax if name == "eager softmax" else deepseek_v3


def configured(claim: Claim) -> RouterConfig:
    """Return what is claimed, renormalised and in groups where that is."""
    norms = [each for each in claim.renormalize if isinstance(each, Renormalize)]
    return RouterConfig(
        num_experts=EXPERTS,
        top_k=TOP_K,
        score=claim.score[0],
        weights_from=claim.weights_from[0],
        groups=None if None in claim.groups else GROUPS,
        renormalize=norms[-1] if norms else None,
        logits_dtype=claim.logits_dtype[0],
        scores_dtype=claim.scores_dtype[0],
        weights_dtype=claim.weights_dtype[0],
    )


def arrays_of(claim: Claim, tokens: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the arrays that the claim needs beside the logits."""
    if "gate" in claim.selection_bias:
        bias = rng.normal(size=EXPERTS).astype(np.float32) / 8
        return {"selection_bias": bias, "selection_bias_on": "gate"}
    if True in claim.per_expert_scale:
        return {"per_expert_scale": rng.uniform(0.5, 2.0, size=EXPERTS).astype(np.float32)}
    if False not in claim.expert_table:
        table = np.stack([rng.permutation(EXPERTS)[:TOP_K] for _ in range(1000)])
        return {"expert_table": table, "token_ids": rng.integers(0, 1000, size=tokens)}
    return {}


def prepared(name: str, logits: np.ndarray, rng: np.random.Generator) -> Call | None:
    """Return the call of an adapter, or None where it claims no such size."""
    adapter: Any = load_adapter(name, device="cuda")
    for claim in adapter.capabilities().claims:
        given = RouterInputs.from_logits(logits, **arrays_of(claim, len(logits), rng))
        try:
            return adapter.prepare(configured(claim), given)
        except Unsupported:
            continue
    return None


def row(name: str, bandwidth: float) -> list[str]:
    """Return the cells of a row, or none where the adapter has no such size."""
    cells = []
    for tokens in TOKENS:
        rng = np.random.default_rng(tokens)
        logits = rng.normal(size=(tokens, EXPERTS)).astype(np.float32)
        plain = name.startswith("eager")
        on_gpu = torch.from_numpy(logits).cuda()
        call = eager(name, on_gpu) if plain else prepared(name, logits, rng)
        if call is None:
            return []
        with torch.no_grad():
            took = microseconds(call)
        least = tokens * (EXPERTS * 4 + TOP_K * 8) / bandwidth * 1e6
        cells.append(f"{took:.1f}" + f" ({least / took:.0%})" * (tokens == TOKENS[-1]))
    return cells


def names(given: list[str]) -> list[str]:
    """Return the routers that are to be timed. Errors: ``SystemExit``, in one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("globs", nargs="*", metavar="GLOB", help="adapters, such as 'vllm:*'")
    globs = parser.parse_args(given).globs
    if not torch.cuda.is_available():
        parser.error(f"It needs a GPU that torch {torch.__version__} can use, and there is none")
    kernels = [n for family in FAMILIES for n in expand(family, device="cuda") if needs_gpu(n)]
    every = ["eager softmax", "eager deepseek_v3", *kernels]
    for each in globs:
        if not fnmatch.filter(every, each):
            families = ", ".join(FAMILIES)
            parser.error(
                f"No router matches {each!r}; they are those of {families}, and eager ones"
            )
    return [n for n in every if not globs or any(fnmatch.fnmatch(n, each) for each in globs)]


def main(given: list[str]) -> None:
    """Print the table."""
    wanted = names(given)
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / microseconds(lambda: target.copy_(source), 3) * 1e6
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {bandwidth / 1e12:.2f} TB/s\n"
    )
    print(f"| us | {' | '.join(f'T={tokens}' for tokens in TOKENS)} |\n|---|--:|--:|--:|")
    for name in wanted:
        try:
            cells = row(name, bandwidth) if hasattr(load(name), "route") else []
        except BackendMissing as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if cells:
            print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def load(name: str) -> Any:
    """Return the adapter, or for eager torch what has a route."""
    return load_adapter("torch" if name.startswith("eager") else name, device="cuda")


if __name__ == "__main__":
    main(sys.argv[1:])
