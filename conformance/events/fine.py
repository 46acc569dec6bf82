"""Fine calls: a router of given sizes on exact numbers that tell nearly equal experts apart.

Each logit is the sum of a coarse number and a fine one, both of few bits, so that 16-bit inputs
hold them and no order of summation rounds: an answer that a rounding, a lost column or a lost
expert has changed is wrong, whatever the sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import table_cases, with_inputs
from moe_routing.conformance.generators.scenes import Scene, scenes_for
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS, Floats

COLUMNS = 31
"""The coarse columns of the gate, and the fine ones: a token adds one of each."""

_FINE, _FINE_AMONG_LARGE = 2.0**-12, 2.0**-10
_EDGES = (0, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024)
"""Experts on both sides of where scans end: like the last two, each wins for some token."""

_ANY = ("bfloat16", "float32", "float16")


def dtypes_from(first: str) -> tuple[str, ...]:
    """Return the dtypes of inputs, one of them first."""
    return (first, *(dtype for dtype in _ANY if dtype != first))


@dataclass(frozen=True, kw_only=True)
class Router:
    """The sizes of a router: score, E, K, groups, and whether it has a bias and renormalises.

    It is called in the first of ``dtypes`` that is claimed. What is None is what is claimed.
    """

    experts: int
    top_k: int
    score: str | None = None
    groups: tuple[int, int] | None = None
    biased: bool | None = None
    renormalized: bool | None = None
    dtypes: tuple[str, ...] = _ANY

    def fits(self, bounds: Bounds) -> bool:
        """Whether a call is of such a router."""
        config, bias = bounds.config, bounds.inputs.selection_bias
        groups = None if config.groups is None else (config.groups.count, config.groups.kept)
        return (
            (config.num_experts, config.top_k, groups) == (self.experts, self.top_k, self.groups)
            and self.score in (None, config.score)
            and self.biased in (None, bias is not None and bool(bias.any()))
            and self.renormalized in (None, config.renormalize is not None)
        )


def fine_calls(
    capabilities: Capabilities, router: Router, tokens: int, width: int = 0
) -> Iterator[Case]:
    """Yield calls of ``tokens`` for each dtype and claim, of hidden states of ``width``."""
    for dtype in (dtype for dtype in router.dtypes if dtype in capabilities.dtypes):
        for claim in capabilities.claims:
            alone = replace(capabilities, claims=(claim,), dtypes=(dtype,))
            case = _richest(alone, router, tokens)
            if case is not None:
                made = _with_numbers(case, width)
                if made is not None and capabilities.admits(made.config, made.inputs):
                    yield made


def _richest(capabilities: Capabilities, router: Router, tokens: int) -> Case | None:
    """Return a call of one claim: in float32, biased, renormalised, scaled, where it can."""
    (claim,) = capabilities.claims
    table = np.zeros((tokens, router.experts), np.float32)
    scene = Scene(logits=table, top_k=router.top_k, groups=router.groups, arrays={})
    if not _is_claimed(scene, capabilities):
        return None
    scores = [score for score in _scores(router) if score in claim.score]
    for biased, score in product(_ways(router.biased), scores):
        arrays: Any = {"selection_bias": _bias(router.experts, score)} if biased else {}
        for wants in _settings(router, score, biased):
            cases = table_cases(
                capabilities,
                table,
                top_k=router.top_k,
                wants=wants,
                groups=router.groups,
                exactly=True,
                **arrays,
            )
            for case in cases:
                return case
    return None


def _is_claimed(scene: Scene, capabilities: Capabilities) -> bool:
    """Return whether the claim covers a router of these sizes, before all else is tried."""
    fitting = scenes_for(scene, capabilities.claims[0], capabilities, exactly=True)
    return any(not capabilities.limits.router_refusals(*each.sizes) for each in fitting)


def _ways(settled: bool | None) -> tuple[bool, ...]:
    """Return the ways to try: with it and without, or the one that is settled."""
    return (True, False) if settled is None else (settled,)


def _scores(router: Router) -> tuple[str, ...]:
    """Return the scores to try: where any will do, a sigmoid, which a bias goes with, first."""
    return _BY_CHOICE if router.score is None else (router.score,)


_BY_CHOICE = ("sigmoid", "softmax", "sqrtsoftplus", "identity")


def _settings(router: Router, score: str, biased: bool) -> Iterator[dict[str, Any]]:
    """Yield choices by the names that ``table_cases`` takes, the richest first."""
    fixed: dict[str, Any] = {"score and weights": lambda pair: pair[0] == score}
    if router.groups is None:
        fixed["groups"] = None
    if not biased:
        fixed["selection_bias"] = "none"
    for wide, renormalized, scaled in product(
        (True, False), _ways(router.renormalized), (True, False)
    ):
        rule = operator.is_not if renormalized else operator.is_
        wants = {**fixed, "renormalize": partial(rule, None)}
        if wide:
            wants["dtypes"] = lambda dtypes: {*dtypes} == {"float32"}
        if scaled:
            wants["scale"] = lambda scale: scale not in (0.0, 1.0)
        yield wants


def _bias(experts: int, score: str) -> Floats:
    """Return biases as large as the scores differ, in steps that bfloat16 cannot hold."""
    steps = np.random.default_rng(experts + 1).integers(-512, 513, experts)
    biases: Floats = steps / (2.0**16 if score == "softmax" else 2.0**11)
    return biases


def _numbers(tokens: int, experts: int) -> tuple[Floats, Floats]:
    """Return hidden states ``[T, H]`` that each add a coarse column of a gate and a fine one."""
    rng, rows = np.random.default_rng(experts), np.arange(tokens)
    coarse = rng.integers(-96, 97, (experts, COLUMNS)) / 32.0
    fine = rng.integers(-64, 65, (experts, COLUMNS)) / 8.0
    edges = [*dict.fromkeys([experts - 1, max(0, experts - 2), *_EDGES])]
    for place, edge in enumerate([edge for edge in edges if edge < experts]):
        coarse[edge, [2 * place, 2 * place + 1]] = 4.0
    hidden = np.zeros((tokens, 2 * COLUMNS))
    hidden[rows, rows % COLUMNS] = 1.0
    hidden[rows, COLUMNS + (rows + 7 * (rows // COLUMNS)) % COLUMNS] = _FINE
    return hidden, np.hstack([coarse, fine])


def _with_numbers(case: Case, width: int) -> Case | None:
    """Return the case with fine numbers, for which the gate is no square."""
    inputs = case.inputs
    hidden, gate = _numbers(inputs.num_tokens, inputs.num_experts)
    if inputs.logits is not None:
        return _given(case, hidden @ gate.T) if not width else None
    if width and case.config.input_norm is not None:
        return None
    if width:
        hidden, gate = _spread(hidden, gate, width, joined=inputs.dtype == "float32")
    changes: dict[str, Any] = {"hidden": np.float32(hidden), "gate_weight": np.float32(gate)}
    if inputs.gate_delta is not None:
        changes["gate_delta"] = np.zeros_like(changes["gate_weight"])
    if inputs.hidden_scale is not None:
        changes["hidden_scale"] = np.ones(hidden.shape[1], np.float32)
    return with_inputs(case, **changes)


def _given(case: Case, table: Floats) -> Case | None:
    """Return the case with logits that are inputs, rounded to their dtype.

    None where they are more rows than a gate in float32 carries beside 16 bits.
    """
    inputs, form = case.inputs, INPUT_FORMATS[case.inputs.dtype_of("logits")]
    others: dict[str, Any] = {
        name: each
        for name, each in inputs.arrays().items()
        if name not in ("hidden", "gate_weight", "logits")
    }
    words = ("dtype", "gate_dtype", "selection_bias_on")
    others |= {name: getattr(inputs, name) for name in words}
    try:
        made = RouterInputs.from_logits(np.float32(form.round(table)), **others)
    except ValueError:
        return None
    return replace(case, inputs=made)


def _spread(hidden: Floats, gate: Floats, width: int, *, joined: bool) -> tuple[Floats, Floats]:
    """Return the same columns spread over ``width``, up to the last, in another order of size.

    In float32 the fine numbers join the coarse ones in the gate, which 16 bits cannot hold.
    Two blocks of 256 columns sum to 257 for some experts, which bfloat16 cannot hold, and to
    -256. All is a multiple of so much that 24 bits hold every sum.
    """
    tokens, experts = len(hidden), len(gate)
    gate = np.hstack([np.rint(gate[:, :COLUMNS] * 16.0) / 16.0, np.rint(gate[:, COLUMNS:])])
    hidden = np.where(hidden == _FINE, _FINE_AMONG_LARGE, hidden)
    wide, columns = np.zeros((tokens, width)), np.zeros((experts, width))
    if joined:
        gate, hidden = (
            gate[:, :COLUMNS] + gate[:, COLUMNS:] * _FINE_AMONG_LARGE,
            hidden[:, :COLUMNS],
        )
    places = width - 1 - np.arange(gate.shape[1]) * (width - 768) // gate.shape[1]
    wide[:, places], columns[:, places] = hidden, gate
    odd = np.arange(experts) * 5 % 7 < 3
    wide[:, [0, 1, 256]] = 1.0
    columns[:, 0], columns[:, 1], columns[:, 256] = 256.0, odd, -256.0
    return wide, columns
