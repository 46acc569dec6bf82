"""Clauses of the chapter on permutation (docs/spec/permutation.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from moe_routing.conformance.clauses.permutation_calls import failed, held, permutation_clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.permutation import call_line
from moe_routing.conformance.generators.permutation import to_the_next
from moe_routing.conformance.judge import permutation_laws as laws
from moe_routing.conformance.judge import permutation_parts as parts
from moe_routing.conformance.trial.permutation import PermutationTrial
from moe_routing.implementations import Capabilities

LOADS = (
    "permuted-several",
    "permuted-one-expert",
    "permuted-two-experts",
    "permuted-first-expert",
    "permuted-last-expert",
    "permuted-every-other-empty",
    "permuted-empty-first-and-last",
)
ABSENT = ("permuted-some-absent", "permuted-token-absent", "permuted-all-absent")
COUNTS = ("permuted-count-on-multiple", "permuted-count-one-past", "permuted-count-one-short")
EVERY_TOKENS = members("permuted-tokens")
EVERY_EXPERTS = members("permuted-experts")
HALF_EMPTY = members("permuted-half-empty")
LARGE = ("permuted-routes-above-65535", "permuted-tokens-above-65535")
ODD = "permuted-odd-alignment"


@permutation_clause(
    "conserved",
    "A route in no row is a token that an expert never sees; one in two rows counts double.",
    rules=("PERM-1", "PERM-2"),
    bugs=("M41", "M42", "M44", "M46", "M47", "M52", "M55", "M81"),
    events=(
        *LOADS,
        "permuted-second-slot",
        "permuted-repeated-expert",
        "permuted-none-absent",
        *ABSENT,
        *EVERY_TOKENS,
        *HALF_EMPTY,
        "permuted-signed-weights",
        *LARGE,
    ),
)
def conserved(trial: PermutationTrial) -> Failure | None:
    """Every present route is in exactly one row, and no absent one in any."""
    return held("conserved", laws.conserved, trial)


@permutation_clause(
    "grouped",
    "A grouped product multiplies a whole segment by the matrix of its expert, whoever is in it.",
    rules=("PERM-3",),
    bugs=("M41", "M44", "M46", "M52", "M81"),
    events=(
        *LOADS,
        "permuted-all-experts",
        *EVERY_EXPERTS,
        *HALF_EMPTY,
        "permuted-empty-takes-rows",
    ),
)
def grouped(trial: PermutationTrial) -> Failure | None:
    """A segment holds the routes of its own expert alone."""
    return held("grouped", laws.grouped, trial)


@permutation_clause(
    "counts",
    "Counts size the buffers of an exchange between ranks, and steer the balance of experts.",
    rules=("PERM-4",),
    bugs=("M35", "M42", "M44", "M46", "M47", "M81"),
    events=(
        *LOADS,
        "permuted-second-slot",
        "permuted-repeated-expert",
        *ABSENT,
        *EVERY_EXPERTS,
        *HALF_EMPTY,
        *LARGE,
    ),
)
def counts(trial: PermutationTrial) -> Failure | None:
    """The count of an expert is the number of its present routes, over all slots."""
    return held("counts", laws.counts, trial)


@permutation_clause(
    "offsets",
    "Offsets are what a grouped product runs along: one that is off moves every row after it.",
    rules=("PERM-5",),
    bugs=("M41", "M44", "M47", "M81"),
    events=(
        *LOADS,
        *EVERY_EXPERTS,
        *HALF_EMPTY,
        "permuted-all-absent",
        "permuted-empty-takes-rows",
    ),
)
def offsets(trial: PermutationTrial) -> Failure | None:
    """Segments begin at row 0, follow one another in the order of experts, and end at the last."""
    return held("offsets", laws.offsets, trial)


@permutation_clause(
    "aligned",
    "A kernel that reads whole blocks multiplies the rows of the next expert by the wrong matrix.",
    rules=("PERM-6", "PERM-7"),
    bugs=("M36", "M41", "M81"),
    events=("permuted-several", *COUNTS, ODD, "permuted-empty-takes-rows", *HALF_EMPTY),
)
def aligned(trial: PermutationTrial) -> Failure | None:
    """Every segment is a multiple of the alignment, and an empty expert takes what is asked."""
    return held("aligned", laws.aligned, trial)


@permutation_clause(
    "no-waste",
    "A block too many an expert is work for nothing, and more of it the more experts there are.",
    level="SHOULD",
    rules=("PERM-8",),
    bugs=("M36", "M81"),
    events=("permuted-several", "permuted-empty-first-and-last", *COUNTS, ODD),
)
def no_waste(trial: PermutationTrial) -> Failure | None:
    """A segment has no more rows than its routes and the alignment need."""
    return held("no-waste", laws.no_waste, trial)


@permutation_clause(
    "padding-marked",
    "A padding row that looks like a route is computed, and added to the token that it names.",
    rules=("PERM-9", "PERM-10"),
    bugs=("M36", "M48", "M55", "M81"),
    events=("permuted-several", *COUNTS, "permuted-empty-takes-rows"),
)
def padding_marked(trial: PermutationTrial) -> Failure | None:
    """In a segment the routes come first, and every row after them is marked as padding."""
    return held("padding-marked", laws.padding_marked, trial)


@permutation_clause(
    "capacity-of-buffer",
    "A buffer that is too short for the worst case is written past its end when that comes.",
    rules=("PERM-11",),
    bugs=("M36", "M47"),
    events=("permuted-several", "permuted-count-one-past", "permuted-every-other-empty"),
)
def capacity_of_buffer(trial: PermutationTrial) -> Failure | None:
    """The rows in use lie within the buffer, and are no more than the worst case needs."""
    return held("capacity-of-buffer", laws.capacity_of_buffer, trial)


@permutation_clause(
    "inverse",
    "The combine reads each slot's output through the inverse map: wrong, it adds another token's.",
    rules=("PERM-12",),
    bugs=("M46", "M52", "M81"),
    events=(
        *("permuted-several", "permuted-second-slot", *COUNTS, *ABSENT),
        *("permuted-slots-above-32", *HALF_EMPTY),
    ),
    part="inverse",
)
def inverse(trial: PermutationTrial) -> Failure | None:
    """The inverse map leads from a present route to its row, and from an absent one to none."""
    return held("inverse", parts.inverse, trial)


@permutation_clause(
    "gather",
    "A gather that takes route numbers for tokens reads past the batch, or another token.",
    rules=("PERM-13",),
    bugs=("M52", "M81"),
    events=(
        *("permuted-several", "permuted-second-slot", "permuted-repeated-expert"),
        *("permuted-slots-above-32", "permuted-tokens-above-65535"),
    ),
    part="gather",
)
def gather(trial: PermutationTrial) -> Failure | None:
    """The gather index of a row is the token of its route."""
    return held("gather", parts.gather, trial)


@permutation_clause(
    "tiles",
    "A kernel starts a program a tile: a tile of the wrong expert, or none, is a wrong product.",
    rules=("PERM-14",),
    bugs=("M36", "M44", "M47", "M81"),
    events=(
        *("permuted-several", *COUNTS, "permuted-every-other-empty", *EVERY_EXPERTS),
        *("permuted-tokens:4097", ODD, *HALF_EMPTY),
    ),
    part="tiles",
)
def tiles(trial: PermutationTrial) -> Failure | None:
    """Tiles name the experts in order, each as often as the rows of its segment need."""
    return held("tiles", parts.tiles, trial)


@permutation_clause(
    "stable",
    "Who sums in the order of rows gives other bits when that order changes.",
    rules=("PERM-15",),
    bugs=("M34", "M81"),
    events=(
        "permuted-order-at-stake",
        "permuted-repeated-expert",
        *EVERY_TOKENS,
        "permuted-tokens-above-65535",
    ),
    needs=lambda capabilities: _no_stable_order(capabilities),
)
def stable(trial: PermutationTrial) -> Failure | None:
    """Where a stable order is promised, the routes of an expert keep the order of their numbers."""
    if trial.case.config.order != "stable":
        return None
    return held("stable", laws.stable, trial)


def _no_stable_order(capabilities: Capabilities) -> str | None:
    order = capabilities.permutes.order
    return None if "stable" in order else f"permutes.order={order} has no stable"


@permutation_clause(
    "weights-follow",
    "A weight that is not moved with its route scales the output of another token.",
    rules=("PERM-16",),
    bugs=("M13", "M52", "M81"),
    events=(
        *("permuted-distinct-weights", "permuted-second-slot", "permuted-some-absent"),
        *("permuted-signed-weights", "permuted-slots-above-32"),
        "permuted-routes-above-65535",
    ),
    part="weights",
)
def weights_follow(trial: PermutationTrial) -> Failure | None:
    """The weight of a row is the weight of its route, bit for bit."""
    return held("weights-follow", parts.weights_follow, trial)


@permutation_clause(
    "repeatable",
    "Recomputed in the backward pass, a permutation that differs pairs activations with others; "
    "one that is kept for its arrays is stale when the next batch is written into them.",
    rules=("PERM-17",),
    bugs=("M34", "M42"),
    events=("permuted-several", "permuted-some-absent", *COUNTS),
)
def repeatable(trial: PermutationTrial) -> Failure | None:
    """A second call puts the same routes into the same segments, or those now in the arrays."""
    again = cast(PermutationTrial, trial.of(trial.case))
    breach = parts.same(trial.due, trial.received, again.received)
    if breach is not None:
        return failed("repeatable", trial, breach)
    other = to_the_next(trial.case)
    updated = cast(PermutationTrial, trial.updated(other))
    breach = laws.conserved(updated.due, updated.received) or laws.grouped(
        updated.due, updated.received
    )
    if breach is None:
        return None
    failure = failed("repeatable", updated, breach)
    words = "with new routes written into the arrays of an earlier call"
    return replace(failure, summary=f"{words}: {failure.summary}", made=other)


@permutation_clause(
    "no-tokens",
    "A rank without tokens is ordinary under expert parallelism, and must not end the job.",
    rules=("PERM-18",),
    bugs=("M53",),
    events=("permuted-tokens:0",),
    tokens=(0,),
)
def no_tokens(trial: PermutationTrial) -> Failure | None:
    """Without tokens there are no routes, counts of 0, and the rows of empty experts."""
    if trial.case.num_tokens:
        return None
    return held("no-tokens", parts.first_breach, trial) or held("no-tokens", laws.no_waste, trial)


@permutation_clause(
    "round-trip",
    "What the experts leave alone must come back to its token, and padding must not come along.",
    rules=("PERM-19",),
    bugs=("M46", "M48", "M52", "M55", "M81"),
    events=("permuted-several", "permuted-second-slot", *COUNTS, *ABSENT, *EVERY_TOKENS),
)
def round_trip(trial: PermutationTrial) -> Failure | None:
    """Gathered into rows and scattered back, every token comes back once a present route."""
    return held("round-trip", parts.round_trip, trial)


@permutation_clause(
    "ids-untouched",
    "The ids and weights are read again: by the combine, the loss, the backward pass.",
    rules=("PERM-20",),
    bugs=("M61",),
    events=("permuted-several", "permuted-some-absent"),
)
def ids_untouched(trial: PermutationTrial) -> Failure | None:
    """The call leaves expert ids and weights as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    line = call_line(trial.due, type(trial.native).__name__)
    return Failure(stage="ids-untouched", summary=summary, details=(line,))
