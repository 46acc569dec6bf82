"""An adapter on two real ranks, in one group of processes: right, wrong, hung and dead."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.experts import Wishes
from moe_routing.conformance.generators.ranks import choose_ranks_case
from moe_routing.implementations import AdapterError, BackendLost, Capabilities, Unsupported
from moe_routing.implementations.ranks.adapter import OnRanks

pytest.importorskip("torch")

FAULTS = Path(__file__).parents[1] / "helpers" / "rank_faults.py"
SECONDS = 6.0  # of which a round has a third


@pytest.fixture(scope="module")
def ranks() -> Iterator[OnRanks]:
    made = OnRanks(f"{FAULTS}:Ranked", 2, seconds=SECONDS)
    yield made
    made.close()


class As:
    """The ranks, of which a method is called in place of the right one."""

    name = "ranked"

    def __init__(self, ranks: OnRanks, method: str) -> None:
        self._ranks, self._method = ranks, method

    def capabilities(self) -> Capabilities:
        return self._ranks.capabilities()

    def on_ranks(self, config: Any, batches: Any, placement: Any) -> list[Any]:
        calls = [(config, each, placement, rank) for rank, each in enumerate(batches)]
        return self._ranks.called(self._method, calls)


def case(ranks: OnRanks, event: str) -> Any:
    found = EVENTS[f"ranked-{event}"].constructed(ranks.capabilities())
    assert found is not None
    return found


def outcome(ranks: OnRanks, method: str, event: str, clause: str) -> Outcome:
    trial = trial_of(As(ranks, method), case(ranks, event), "on_ranks")
    return evaluate(CLAUSES[f"shards.{clause}"], trial)


@pytest.mark.parametrize(
    ("event", "clause"),
    [
        ("several", "on-ranks"),
        ("remainder", "on-ranks"),
        ("uneven", "uneven-batches"),
        ("last-idle", "idle-batch"),
        ("first-idle", "idle-batch"),
        ("skewed", "skewed-batches"),
        ("moved", "maps-on-ranks"),
        ("replicas", "replicas-on-ranks"),
        ("absent", "absent-on-ranks"),
        ("no-token", "no-batch"),
    ],
)
def test_the_eager_ranks_of_torch_are_right(ranks: OnRanks, event: str, clause: str) -> None:
    assert outcome(ranks, "on_rank", event, clause) == Outcome()


@pytest.mark.parametrize("event", ["several", "away", "idle", "unchosen", "replicas"])
def test_and_so_are_their_gradients(ranks: OnRanks, event: str) -> None:
    trial = trial_of(ranks, case(ranks, f"learned-{event}"), "gradients_on_ranks")
    assert evaluate(CLAUSES["shards.gradients"], trial) == Outcome()


@pytest.mark.parametrize(
    ("method", "event", "clause", "says"),
    [
        ("offset", "several", "on-ranks", ("rank 1: output[0, 0]=", "on rank")),
        ("reduced", "several", "on-ranks", ("rank 0: output[0, 0]", "rank 0    experts [0, 1]")),
        ("idle", "last-idle", "idle-batch", ("rank 0: output[3, 0]=0", "tokens  [4, 0]")),
    ],
)
def test_a_wrong_rank_is_named_with_its_token_and_the_experts(
    ranks: OnRanks, method: str, event: str, clause: str, says: tuple[str, ...]
) -> None:
    found = outcome(ranks, method, event, clause)
    assert found.failure is not None
    story = "\n".join((found.failure.summary, *found.failure.details))
    assert all(words in story for words in says), story
    assert "token " in story
    assert "expert" in story


def test_the_remainder_of_experts_is_missed_on_the_last_rank(ranks: OnRanks) -> None:
    shards = replace(ranks.capabilities().shards, num_ranks=2)
    claimed = replace(ranks.capabilities(), shards=shards)
    offers = {"experts": (5,), "tokens": (8,), "placement": ("blocks",)}
    offers |= {"load": ("last",), "absence": ("none",), "ranks": (2,)}
    wishes = Wishes(offers=offers)
    rng = random.Random(0)
    drawn = choose_ranks_case(lambda _, offered: rng.choice(offered), claimed, wishes)
    found = evaluate(
        CLAUSES["shards.on-ranks"], trial_of(As(ranks, "remainder"), drawn, "on_ranks")
    )
    assert found.failure is not None
    assert "       4        1" in "\n".join(found.failure.details)


def lost(ranks: OnRanks, method: str, event: str = "several") -> BackendLost:
    config, batches, placement = case(ranks, event).arguments(case(ranks, event).inputs)
    calls = [(config, each, placement, rank) for rank, each in enumerate(batches)]
    with pytest.raises(BackendLost) as found:
        ranks.called(method, calls)
    return found.value


def test_a_rank_that_hangs_is_named_in_time_and_where_it_is(ranks: OnRanks) -> None:
    began = time.monotonic()
    error = lost(ranks, "sleeps")
    assert time.monotonic() - began < SECONDS
    assert error.status == "timeout"
    assert "rank 0 in " in str(error)
    assert "rank 1 in " in str(error)
    assert "in sleeps" in str(error)
    assert "after 2 s" in str(error)


def test_a_rank_that_leaves_others_waiting_is_told_from_them(ranks: OnRanks) -> None:
    error = lost(ranks, "skips", "last-idle")
    assert error.status == "timeout"
    assert str(error).startswith("no answer from rank 0 in ")
    assert str(error).endswith("; rank 1 had answered")


@pytest.mark.parametrize(
    ("method", "status", "words"),
    [
        ("dies", "crash", "rank 1 killed by SIGKILL"),
        ("exits", "crash", "rank 1 exited with code 1; it last wrote 'SystemExit: 7'"),
        ("raises", "error", "rank 1 raised ValueError: no such expert (tests/helpers/rank_faults"),
        ("refuses_alone", "error", "rank 1 refused a call that others answered"),
    ],
)
def test_a_rank_that_is_lost_is_named(ranks: OnRanks, method: str, status: str, words: str) -> None:
    error = lost(ranks, method)
    assert (error.status, words in str(error)) == (status, True), str(error)


def test_ranks_start_anew_after_a_loss(ranks: OnRanks) -> None:
    lost(ranks, "dies")
    assert outcome(ranks, "on_rank", "several", "on-ranks") == Outcome()


def test_what_all_ranks_refuse_is_refused(ranks: OnRanks) -> None:
    with pytest.raises(Unsupported, match="anything"):
        ranks.called("refuses", [(None, None, None, 0)] * 2)


def test_an_adapter_without_the_method_is_refused_in_a_line() -> None:
    with pytest.raises(AdapterError, match=r"Lonely has no method on_rank, which is what --ranks"):
        OnRanks(f"{FAULTS}:Lonely", 2)


def test_tokens_of_all_ranks_make_the_whole_call(ranks: OnRanks) -> None:
    made = case(ranks, "uneven")
    assert made.inputs.batches.tolist() == [1, 2]
    hidden = np.concatenate([made.inputs.batch(rank).hidden for rank in range(2)])
    assert (hidden == made.inputs.whole.hidden).all()


def test_a_host_that_is_killed_is_a_crash_and_another_takes_its_place(ranks: OnRanks) -> None:
    os.kill(ranks.host, signal.SIGKILL)
    error = lost(ranks, "on_rank")
    assert (error.status, str(error)) == ("crash", "the process that holds the ranks has ended")
    assert outcome(ranks, "on_rank", "several", "on-ranks") == Outcome()
