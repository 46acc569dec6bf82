"""The kinds of case: for each, everything that depends on the kind, in one entry.

A new kind is a class of case in ``calls``, a class of trial in ``trial``, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.expert_gradients import (
    ExpertGradientCase,
    ExpertGradientInputs,
)
from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.gradients import GradientCase, GradientInputs
from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.calls.padding import PaddedCase, PaddedInputs
from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.calls.ranks import (
    RankGradientCase,
    RankGradientInputs,
    RanksCase,
    RanksInputs,
)
from moe_routing.conformance.calls.replay import ReplayCase, ReplayInputs
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.calls.shards import ShardsCase, ShardsInputs
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.generators.balance import BALANCE_REDUCTIONS, BALANCE_SIZES
from moe_routing.conformance.generators.capacity import CAPACITY_REDUCTIONS, CAPACITY_SIZES
from moe_routing.conformance.generators.expert_gradients import EXPERT_GRADIENT_REDUCTIONS
from moe_routing.conformance.generators.experts_smaller import (
    EXPERTS_REDUCTIONS,
    EXPERTS_SIZES,
)
from moe_routing.conformance.generators.gradients import GRADIENT_REDUCTIONS
from moe_routing.conformance.generators.layer_smaller import LAYER_REDUCTIONS, LAYER_SIZES
from moe_routing.conformance.generators.padding import PADDING_REDUCTIONS, PADDING_SIZES
from moe_routing.conformance.generators.permutation import (
    PERMUTATION_REDUCTIONS,
    PERMUTATION_SIZES,
)
from moe_routing.conformance.generators.ranks import (
    RANK_GRADIENT_REDUCTIONS,
    RANKS_REDUCTIONS,
    RANKS_SIZES,
)
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.generators.replay import REPLAY_REDUCTIONS, REPLAY_SIZES
from moe_routing.conformance.generators.shards_smaller import SHARDS_REDUCTIONS, SHARDS_SIZES
from moe_routing.conformance.generators.shared import SHARED_REDUCTIONS
from moe_routing.conformance.generators.sizes import ROUTING_SIZES, SHARED_SIZES, Size
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.trial.balance import BalanceTrial, owed_of
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.conformance.trial.capacity import CapacityTrial, demand_of
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial, learning_of
from moe_routing.conformance.trial.experts import ExpertsTrial, layer_of
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.conformance.trial.gradients import facts_of as gradient_facts
from moe_routing.conformance.trial.layer import LayerTrial
from moe_routing.conformance.trial.layer import facts_of as layer_facts
from moe_routing.conformance.trial.lenience import STRICT, Lenience
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.padding import PaddingTrial
from moe_routing.conformance.trial.padding import facts_of as padding_facts
from moe_routing.conformance.trial.permutation import PermutationTrial, due_of
from moe_routing.conformance.trial.ranks import RankGradientsTrial, RanksTrial, together_of
from moe_routing.conformance.trial.repeats import REPEATS
from moe_routing.conformance.trial.replay import ReplayTrial
from moe_routing.conformance.trial.replay import facts_of as replay_facts
from moe_routing.conformance.trial.shards import ShardsTrial, sharded_of
from moe_routing.conformance.trial.shared_experts import SharedTrial
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Adapter, Capabilities, Numerics
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.implementations.computes import EXPERTS_AXES
from moe_routing.implementations.permutes import ROUTES_AXES
from moe_routing.implementations.replays import RECORD_AXES
from moe_routing.implementations.shards import SHARDS_AXES
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    ExpertsConfig,
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    PermutationConfig,
    RouterConfig,
    RouterInputs,
    Routes,
    SharedExpertConfig,
    SharedExpertInputs,
)
from moe_routing.reference.balance import BALANCE_WORDS


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of case.

    In a case file: ``config`` and ``inputs`` rebuild the two parts of a ``case``; ``words``
    are the fields of the inputs that are no arrays, ``integers`` those that are no float32.
    ``methods`` are the adapter's methods that are called with it, in a ``trial``.
    ``facts`` returns what events are read off. ``reductions`` propose smaller cases; of these,
    the ones come first whose answers the specification defines, which ``defined`` reads off facts.
    ``sizes`` are what a failure may begin at. ``claimed`` says whether capabilities claim a case,
    and ``refusals`` what they lack for it, in phrases. A region of a known divergence may name the
    ``axes`` of its inputs; a region that is too wide is described by ``compared``. A call may
    contain one of another kind, whose known divergences it then shares: ``contains`` returns, by
    the name of that kind, the facts of that call. ``routes`` says that its tokens choose experts,
    so that a token can be drawn.
    """

    case: type[AnyCase]
    config: Callable[..., Any]
    inputs: type[Any]
    words: tuple[str, ...] = ("dtype",)
    integers: tuple[str, ...] = ()
    methods: tuple[str, ...]
    trial: type[AnyTrial]
    facts: Callable[[Any, Numerics], Any] = lambda case, numerics: case
    reductions: tuple[Reduction, ...]
    sizes: tuple[Size, ...] = ()
    defined: Callable[[Any], bool] = lambda facts: True
    claimed: Callable[[Any, Capabilities], bool] = lambda case, capabilities: True
    refusals: Callable[[Any, Capabilities], list[str]] = lambda case, capabilities: []
    axes: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    compared: tuple[str, ...] = ("dtype", "tokens")
    contains: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    routes: bool = False

    @property
    def name(self) -> str:
        """The name of the kind, as case files have it."""
        return self.case.kind


ROUTING = Kind(
    case=Case,
    config=RouterConfig.unchecked,
    inputs=RouterInputs,
    words=("dtype", "selection_bias_on"),
    integers=("expert_table", "token_ids"),
    methods=("route", "dispatch"),
    trial=Trial,
    facts=lambda case, numerics: Bounds(case.config, case.inputs, numerics),
    reductions=ROUTING_REDUCTIONS,
    sizes=ROUTING_SIZES,
    defined=lambda bounds: bounds.all_defined,
    claimed=lambda case, capabilities: capabilities.admits(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.refusals(case.config, case.inputs),
    axes=INPUT_AXES,
    compared=(
        *("score", "weights_from", "groups", "renormalize"),
        *("selection_bias", "dtype", "tokens"),
    ),
    routes=True,
)

SHARED_EXPERTS = Kind(
    case=SharedCase,
    config=SharedExpertConfig,
    inputs=SharedExpertInputs,
    methods=("shared_experts",),
    trial=SharedTrial,
    reductions=SHARED_REDUCTIONS,
    sizes=SHARED_SIZES,
    claimed=lambda case, capabilities: not capabilities.storage_refusals(case.inputs),
    compared=("kind", "gated", "dtype", "tokens"),
)

PERMUTATION = Kind(
    case=PermutationCase,
    config=PermutationConfig,
    inputs=Routes,
    words=(),
    integers=("expert_ids",),
    methods=("permute",),
    trial=PermutationTrial,
    facts=lambda case, numerics: due_of(case),
    reductions=PERMUTATION_REDUCTIONS,
    sizes=PERMUTATION_SIZES,
    claimed=lambda case, capabilities: not capabilities.permutes.refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.permutes.refusals(case.config, case.inputs),
    axes=ROUTES_AXES,
    compared=("align", "empty_takes", "order", "tokens", "absent"),
)

GRADIENT = Kind(
    case=GradientCase,
    config=RouterConfig.unchecked,
    inputs=GradientInputs,
    words=ROUTING.words,
    integers=ROUTING.integers,
    methods=("gradients",),
    trial=GradientTrial,
    facts=gradient_facts,
    reductions=(*GRADIENT_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=ROUTING_SIZES,
    claimed=ROUTING.claimed,
    refusals=ROUTING.refusals,
    axes=INPUT_AXES,
    compared=ROUTING.compared,
    contains={"routing": lambda facts: facts.bounds},
)


def _experts_refused(case: ExpertsCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a call of experts, in phrases."""
    found = capabilities.computes.refusals(case.config, case.inputs)
    return capabilities.storage_refusals(case.inputs) + found


EXPERTS = Kind(
    case=ExpertsCase,
    config=ExpertsConfig,
    inputs=ExpertsInputs,
    integers=("expert_ids",),
    methods=("experts",),
    trial=ExpertsTrial,
    facts=lambda case, numerics: layer_of(case),
    reductions=EXPERTS_REDUCTIONS,
    sizes=EXPERTS_SIZES,
    claimed=lambda case, capabilities: not _experts_refused(case, capabilities),
    refusals=_experts_refused,
    axes=EXPERTS_AXES,
    compared=("activation", "gated", "weight_on", "dtype", "tokens", *EXPERTS_AXES),
)

EXPERT_GRADIENT = Kind(
    case=ExpertGradientCase,
    config=ExpertsConfig,
    inputs=ExpertGradientInputs,
    integers=EXPERTS.integers,
    methods=("expert_gradients",),
    trial=ExpertGradientTrial,
    facts=lambda case, numerics: learning_of(case),
    reductions=(*EXPERT_GRADIENT_REDUCTIONS, *EXPERTS_REDUCTIONS),
    sizes=EXPERTS_SIZES,
    claimed=EXPERTS.claimed,
    refusals=EXPERTS.refusals,
    axes=EXPERTS_AXES,
    compared=EXPERTS.compared,
    contains={"experts": lambda facts: facts.layer},
)


SHARDS = Kind(
    case=ShardsCase,
    config=ExpertsConfig,
    inputs=ShardsInputs,
    words=("dtype", "num_ranks"),
    integers=("expert_ids", "rank_of", "logical_of"),
    methods=("shard",),
    trial=ShardsTrial,
    facts=lambda case, numerics: sharded_of(case),
    reductions=SHARDS_REDUCTIONS,
    sizes=SHARDS_SIZES,
    claimed=lambda case, capabilities: not _shards_refused(case, capabilities),
    refusals=lambda case, capabilities: _shards_refused(case, capabilities),
    axes=SHARDS_AXES,
    compared=("activation", "gated", "weight_on", "dtype", "tokens", *SHARDS_AXES),
    contains={"experts": lambda facts: facts.layer},
)


def _shards_refused(case: ShardsCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for calls of shards, in phrases."""
    found = capabilities.computes.refusals(case.config, case.inputs)
    found += capabilities.shards.refusals(case.inputs.placement)
    return capabilities.storage_refusals(case.inputs) + found


RANKS = Kind(
    case=RanksCase,
    config=ExpertsConfig,
    inputs=RanksInputs,
    words=SHARDS.words,
    integers=(*SHARDS.integers, "home"),
    methods=("on_ranks",),
    trial=RanksTrial,
    facts=lambda case, numerics: together_of(case),
    reductions=RANKS_REDUCTIONS,
    sizes=RANKS_SIZES,
    claimed=lambda case, capabilities: not _ranks_refused(case, capabilities),
    refusals=lambda case, capabilities: _ranks_refused(case, capabilities),
    axes=SHARDS_AXES,
    compared=SHARDS.compared,
    contains={"experts": lambda facts: facts.layer},
)

RANK_GRADIENT = replace(
    RANKS,
    case=RankGradientCase,
    inputs=RankGradientInputs,
    methods=("gradients_on_ranks",),
    trial=RankGradientsTrial,
    reductions=RANK_GRADIENT_REDUCTIONS,
)


def _ranks_refused(case: RanksCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for calls of all ranks, in phrases."""
    inputs, shards = case.inputs, capabilities.shards
    sizes = inputs.batches.tolist()
    return _shards_refused(case, capabilities) + shards.batch_refusals(sizes, shared=inputs.shared)


LAYER = Kind(
    case=LayerCase,
    config=LayerConfig,
    inputs=LayerInputs,
    words=ROUTING.words,
    integers=ROUTING.integers,
    methods=("layer",),
    trial=LayerTrial,
    facts=layer_facts,
    reductions=LAYER_REDUCTIONS,
    sizes=LAYER_SIZES,
    defined=lambda facts: facts.bounds.all_defined,
    claimed=lambda case, capabilities: not capabilities.layer_refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.layer_refusals(case.config, case.inputs),
    axes=INPUT_AXES,
    compared=("dtype", "tokens"),
    contains={"routing": lambda facts: facts.bounds},
)


RECORDED = {
    name: lambda inputs, read=read: read(inputs.recorded) for name, read in RECORD_AXES.items()
}
"""What a region of a known divergence may name of a record, and how it is read of inputs."""

REPLAY = Kind(
    case=ReplayCase,
    config=RouterConfig.unchecked,
    inputs=ReplayInputs,
    words=(*ROUTING.words, "layer"),
    integers=(*ROUTING.integers, "recorded_ids", "rows"),
    methods=("replay",),
    trial=ReplayTrial,
    facts=replay_facts,
    reductions=(*REPLAY_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=REPLAY_SIZES,
    claimed=lambda case, capabilities: not _replay_refused(case, capabilities),
    refusals=lambda case, capabilities: _replay_refused(case, capabilities),
    axes={**INPUT_AXES, **RECORDED},
    compared=(*ROUTING.compared, *RECORDED),
    contains={"routing": lambda facts: facts.routing},
)


def _replay_refused(case: ReplayCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a replay, in phrases."""
    found = capabilities.replays.refusals(case.config, case.inputs.recorded)
    return capabilities.refusals(case.config, case.inputs) + found


CAPACITY = Kind(
    case=CapacityCase,
    config=CapacityConfig,
    inputs=Routes,
    words=(),
    integers=("expert_ids",),
    methods=("drop",),
    trial=CapacityTrial,
    facts=lambda case, numerics: demand_of(case),
    reductions=CAPACITY_REDUCTIONS,
    sizes=CAPACITY_SIZES,
    claimed=lambda case, capabilities: not capabilities.drops.refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.drops.refusals(case.config, case.inputs),
    axes=ROUTES_AXES,
    compared=("order", "survivors", "share", "rounding", "zero", "tokens", "absent"),
)


PADDED = Kind(
    case=PaddedCase,
    config=RouterConfig.unchecked,
    inputs=PaddedInputs,
    words=(*ROUTING.words, "told"),
    integers=(*ROUTING.integers, "real"),
    methods=("route_padded",),
    trial=PaddingTrial,
    facts=padding_facts,
    reductions=(*PADDING_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=PADDING_SIZES,
    claimed=lambda case, capabilities: not _padding_refused(case, capabilities),
    refusals=lambda case, capabilities: _padding_refused(case, capabilities),
    axes=INPUT_AXES,
    compared=ROUTING.compared,
    contains={"routing": lambda facts: facts.bounds},
)


def _padding_refused(case: PaddedCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a padded batch, in phrases."""
    found = capabilities.pads.refusals(case.inputs.padding)
    return capabilities.refusals(case.config, case.inputs) + found


BALANCE = Kind(
    case=BalanceCase,
    config=BalanceConfig,
    inputs=BalanceInputs,
    words=(),
    integers=("expert_ids", "valid"),
    methods=("balance",),
    trial=BalanceTrial,
    facts=lambda case, numerics: owed_of(case),
    reductions=BALANCE_REDUCTIONS,
    sizes=BALANCE_SIZES,
    claimed=lambda case, capabilities: not capabilities.balances.refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.balances.refusals(case.config, case.inputs),
    axes=ROUTES_AXES,
    compared=(*BALANCE_WORDS, "tokens", "absent"),
)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        ROUTING,
        SHARED_EXPERTS,
        PERMUTATION,
        GRADIENT,
        EXPERTS,
        EXPERT_GRADIENT,
        SHARDS,
        RANKS,
        RANK_GRADIENT,
        REPLAY,
        CAPACITY,
        PADDED,
        BALANCE,
        LAYER,
    )
}
"""Every kind of case by its name."""


def kind_of(case: AnyCase) -> Kind:
    """Return the kind of a case."""
    return KINDS[case.kind]


def facts_of(case: AnyCase, capabilities: Capabilities) -> Any:
    """Return what events are read off, under the numerics that ``capabilities`` declare."""
    return kind_of(case).facts(case, capabilities.numerics)


def all_defined(case: AnyCase, facts: Any) -> bool:
    """Return whether the specification defines the answer to every token of ``case``."""
    try:
        return kind_of(case).defined(facts)
    except ValueError:  # a configuration made around its checks has no answer
        return False


def trial_of(
    adapter: Adapter,
    case: AnyCase,
    method: str,
    is_known: Callable[[AnyTrial], bool] = lambda trial: False,
    memo: CaseMemo | None = None,
    lenience: Lenience = STRICT,
    repeats: int = REPEATS,
) -> AnyTrial:
    """Return the trial that fits the kind of ``case``; without a ``memo``, with one of its own."""
    made = kind_of(case).trial
    return made(adapter, case, method, is_known, memo or CaseMemo(), lenience, repeats)
