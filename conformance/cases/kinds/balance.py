"""Calls that count loads and change a bias or a loss."""

from __future__ import annotations

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.balance import BALANCE_REDUCTIONS, BALANCE_SIZES
from moe_routing.conformance.trial.balance import BalanceTrial, owed_of
from moe_routing.implementations.permutes import ROUTES_AXES
from moe_routing.reference import BalanceConfig, BalanceInputs
from moe_routing.reference.balance import BALANCE_WORDS

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
