"""Clauses of the chapter on balance (docs/spec/balance.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.balance import balance_failure, call_line, exact_failure
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.balance import (
    choose_balance_case,
    doubled,
    reversed_tokens,
)
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.balance import BalanceTrial
from moe_routing.implementations import Capabilities

LOADS = ("balanced-uneven", "balanced-second-slot", "balanced-idle-expert", "balanced-not-chosen")
ROWS = ("balanced-padded", "balanced-absent")
LARGE = members("balanced-large")
FORMULAS = (
    "balanced-by-softmax",
    "balanced-by-sigmoid",
    "balanced-is-one",
    "balanced-is-top_k",
    "balanced-first-counted",
    "balanced-layers-sum",
    "balanced-layers-mean",
    "balanced-layers-pooled",
)


def _balance(
    name: str,
    why: str,
    *,
    of: str,
    modes: tuple[str, ...] = ("train",),
    **parts: Any,
) -> Callable[[Check], Check]:
    def needs(capabilities: Capabilities) -> str | None:
        balances = capabilities.balances
        if of and of not in balances.of:
            return f"balances.of={balances.of} has no {of}"
        claimed = {*modes} & {*balances.mode}
        return None if claimed else f"balances.mode={balances.mode} has no {modes[0]}"

    def strategy(capabilities: Capabilities) -> Seeded[BalanceCase]:
        return Seeded(lambda choose: choose_balance_case(choose, capabilities.balances, modes))

    return clause(
        f"balance.{name}",
        "MUST",
        why=why,
        method="balance",
        needs=needs,
        strategy=strategy,
        **parts,
    )


def _counts(stage: str, trial: BalanceTrial) -> Failure | None:
    owed = trial.owed.counts
    return exact_failure(stage, trial.owed, "counts", trial.part_named("counts"), owed)


def _within(stage: str, trial: BalanceTrial, name: str) -> Failure | None:
    """Return the failure of a part that is outside its ball."""
    return balance_failure(stage, trial.owed, name, trial.part_named(name))


@_balance(
    "counts",
    "Counts steer the bias and the loss: one slot left out, or padding taken in, steers elsewhere.",
    of="counts",
    rules=("BAL-1", "BAL-2", "BAL-3"),
    bugs=("M42", "M55", "M70"),
    events=(*LOADS, *ROWS, "balanced-several-layers", *LARGE),
)
def counts(trial: BalanceTrial) -> Failure | None:
    """The count of an expert is the number of its present routes of valid tokens, in all slots."""
    return _counts("counts", trial)


@_balance(
    "aux-loss",
    "A loss that is K times another, or of other scores, trains another model at one coefficient.",
    of="aux_loss",
    rules=("BAL-4", "BAL-5", "BAL-6"),
    bugs=("M55", "M66", "M67", "M68", "M69"),
    events=(*LOADS, *ROWS, *FORMULAS, *LARGE),
)
def aux_loss(trial: BalanceTrial) -> Failure | None:
    """The auxiliary loss is that of the claimed formula, within rounding."""
    return _within("aux-loss", trial, "aux_loss")


@_balance(
    "aux-gradient",
    "The loss is only there for its gradient: with the counts detached, and once.",
    of="aux_gradient",
    rules=("BAL-7",),
    bugs=("M67", "M68", "M69"),
    events=(*LOADS, *ROWS, *FORMULAS),
)
def aux_gradient(trial: BalanceTrial) -> Failure | None:
    """The gradient of the auxiliary loss is that of its shares, with the counts as constants."""
    return _within("aux-gradient", trial, "aux_gradient")


@_balance(
    "z-loss",
    "Of probabilities it is a constant: logits grow until a softmax in 16 bits overflows.",
    of="z_loss",
    rules=("BAL-8",),
    bugs=("M55", "M66", "M69"),
    events=(
        *("balanced-uneven", "balanced-padded", "balanced-layers-sum", "balanced-layers-mean"),
        *("balanced-large-logits", "balanced-large:9-layers-sum"),
        "balanced-large:9-layers-mean",
    ),
)
def z_loss(trial: BalanceTrial) -> Failure | None:
    """The z-loss is the mean square of the logarithm of the logits' summed exponentials."""
    return _within("z-loss", trial, "z_loss")


@_balance(
    "permutation-of-tokens",
    "A loss that hangs on the order of tokens is one of rows that were mixed up.",
    of="aux_loss",
    rules=("BAL-9",),
    bugs=("M67",),
    events=("balanced-uneven", "balanced-padded"),
)
def permutation_of_tokens(trial: BalanceTrial) -> Failure | None:
    """With the tokens in another order the loss is the same, within rounding."""
    other = cast(BalanceTrial, trial.of(reversed_tokens(trial.case)))
    return _within("permutation-of-tokens", other, "aux_loss")


@_balance(
    "doubling",
    "A loss that grows or shrinks with the batch makes a coefficient mean something else each run.",
    of="aux_loss",
    rules=("BAL-10",),
    bugs=("M67",),
    events=("balanced-uneven", "balanced-padded"),
)
def doubling(trial: BalanceTrial) -> Failure | None:
    """With every token twice the loss is the same, within rounding."""
    other = cast(BalanceTrial, trial.of(doubled(trial.case)))
    return _within("doubling", other, "aux_loss")


@_balance(
    "bias-update",
    "A bias with the wrong sign fills the fullest expert; one that drifts outgrows the scores.",
    of="bias",
    rules=("BAL-11", "BAL-12"),
    bugs=("M70",),
    events=(*LOADS, "balanced-padded", "balanced-update-sign", "balanced-update-centred", *LARGE),
)
def bias_update(trial: BalanceTrial) -> Failure | None:
    """A step of training moves the bias by the claimed rule, once."""
    return _within("bias-update", trial, "bias")


@_balance(
    "not-in-evaluation",
    "A bias that evaluation moves is one of other data: two evaluations in a row differ.",
    of="bias",
    modes=("eval",),
    rules=("BAL-13",),
    bugs=("M70",),
    events=("balanced-evaluation",),
)
def not_in_evaluation(trial: BalanceTrial) -> Failure | None:
    """A step of evaluation leaves the bias as it was, bit for bit."""
    if trial.case.config.mode != "eval":
        return None
    return _within("not-in-evaluation", trial, "bias")


@_balance(
    "once-when-recomputed",
    "Activation checkpointing runs the forward pass twice: what counts there counts double.",
    of="",
    modes=("recompute",),
    rules=("BAL-14",),
    bugs=("M69", "M70"),
    events=("balanced-recomputed",),
)
def once_when_recomputed(trial: BalanceTrial) -> Failure | None:
    """Counts, losses and the update of a step are the same where its forward pass is run again."""
    if trial.case.config.mode != "recompute":
        return None
    stage, of = "once-when-recomputed", trial.capabilities.balances.of
    failure = _counts(stage, trial) if "counts" in of else None
    for name in ("aux_loss", "aux_gradient", "z_loss", "bias"):
        if failure is None and name in of:
            failure = _within(stage, trial, name)
    return failure


@_balance(
    "inputs-untouched",
    "The logits and ids are read again: by the experts, and by the backward pass.",
    of="",
    modes=("train", "eval"),
    rules=("BAL-15",),
    bugs=("M61",),
    events=("balanced-uneven",),
)
def inputs_untouched(trial: BalanceTrial) -> Failure | None:
    """The call leaves its logits, ids and mask as they were."""
    changed = [name for name in trial.changed if name != "bias"]
    if not changed:
        return None
    summary = f"wrote to its inputs: {', '.join(changed)}"
    return Failure(stage="inputs-untouched", summary=summary, details=(call_line(trial.owed),))
