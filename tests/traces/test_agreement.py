"""Two traces: what explains tokens that they route differently, and what is out of its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_traces import judged
from small_traces import Array, claim_file, keyed, save_npz, small, weights_at

from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.judged import Judged
from moe_routing.conformance.traces.known_router import NOBODY, of_file


def compared(tmp_path: Path, one: Any, other: Any, **options: Any) -> Judged:
    paths = [save_npz(tmp_path / f"{name}.npz", x) for name, x in (("a", one), ("b", other))]
    return judged([paths[0]], of_file(claim_file(tmp_path)), [paths[1]], **options)


def agreement(found: Judged) -> dict[str, int]:
    tally = found.found.agreement
    causes = {cause for counts in tally.counts.values() for cause in counts}
    return {cause: tally.total([cause]) for cause in causes if tally.total([cause])}


def ids_alone(ids: list[Array]) -> dict[str, Array]:
    return {"routed_experts": np.stack(ids, axis=1)}


def swapped(ids: list[Array], logits: list[Array], layer: int, token: int) -> list[Array]:
    """The experts with the last that was chosen replaced by the next best."""
    made = [each.copy() for each in ids]
    made[layer][token, 3] = np.argsort(-logits[layer][token])[4]
    return made


def test_a_trace_agrees_with_itself(tmp_path: Path) -> None:
    arrays = keyed(*small())
    found = compared(tmp_path, arrays, arrays)
    assert (agreement(found), found.exit_code) == ({"alike": 80}, 0)


def test_an_engines_ids_are_held_against_a_trainers_logits(tmp_path: Path) -> None:
    """The trainer recorded no ids: what its logits choose stands for them."""
    logits, ids, _ = small()
    logits[0][3, ids[0][3, 3]] = logits[0][3, np.argsort(-logits[0][3])[4]]  # a true tie
    engine = swapped(swapped(ids, logits, 0, 3), logits, 1, 8)
    trainer = {f"router_logits.{layer}": each for layer, each in enumerate(logits)}
    found = compared(tmp_path, trainer, ids_alone(engine))
    assert agreement(found) == {"alike": 78, "ties": 1, "unexplained": 1}
    assert found.found.agreement.listed["unexplained"] == [(1, 8)]
    assert found.exit_code == 1


def test_each_by_its_own_logits_is_apart_and_may_be_allowed(tmp_path: Path) -> None:
    logits, ids, weights = small()
    other = [each.copy() for each in logits]
    other[0][2] = np.roll(other[0][2], 1)
    ids_b = [np.argsort(-each, axis=1, kind="stable")[:, :4] for each in other]
    weights_b = [weights_at(z, each) for z, each in zip(other, ids_b, strict=True)]
    found = compared(tmp_path, keyed(logits, ids, weights), keyed(other, ids_b, weights_b))
    assert agreement(found) == {"alike": 79, "apart": 1}
    assert found.exit_code == 1
    allowed = Judged(plan=found.plan, known=found.known, found=found.found, may_differ=0.0125)
    assert allowed.exit_code == 0


def test_what_rounding_of_a_record_explains_is_rounding(tmp_path: Path) -> None:
    """A's logits are bfloat16's, so that B's choice is one of theirs."""
    logits, _, _ = small(1)
    logits[0][0, :6] = [4, 3, 2, 1.0, 1.001, -1]
    logits[0][0, 6:] = -3
    exact = [each.copy() for each in logits]
    rounded = [(each.view(np.uint32) & 0xFFFF0000).view(np.float32) for each in logits]
    rounded[0][0, 3] = 1.0078125  # the least step of bfloat16 above 1
    ids_a = [np.argsort(-each, axis=1, kind="stable")[:, :4] for each in rounded]
    ids_b = [np.argsort(-each, axis=1, kind="stable")[:, :4] for each in exact]
    one = {"router_logits.0": rounded[0], "expert_ids.0": ids_a[0]}
    other = {"expert_ids.0": ids_b[0]}
    found = compared(tmp_path, one, other)
    assert found.found.agreement.listed["rounding"][0] == (0, 0)


def test_without_logits_a_difference_is_unknown(tmp_path: Path) -> None:
    logits, ids, _ = small()
    one, other = ids_alone(ids), ids_alone(swapped(ids, logits, 0, 3))
    paths = [save_npz(tmp_path / f"{name}.npz", x) for name, x in (("a", one), ("b", other))]
    found = judged([paths[0]], NOBODY, [paths[1]])
    assert (agreement(found), found.exit_code) == ({"alike": 79, "unknown": 1}, 1)


def test_replayed_experts_must_be_those_of_the_record(tmp_path: Path) -> None:
    logits, ids, _ = small()
    forced = swapped(ids, logits, 0, 3)
    weights = [weights_at(z, each) for z, each in zip(logits, forced, strict=True)]
    engine = ids_alone(ids)
    found = compared(tmp_path, keyed(logits, forced, weights), engine, replayed=True)
    assert agreement(found) == {"alike": 79, "forced": 1}
    assert (found.wrong("A"), found.exit_code) == (0, 1)
    weights = [weights_at(z, each) for z, each in zip(logits, ids, strict=True)]
    assert compared(tmp_path, keyed(logits, ids, weights), engine, replayed=True).exit_code == 0


@pytest.mark.parametrize("shift", [1, -1, 3])
def test_a_shifted_layer_is_told_as_such(tmp_path: Path, shift: int) -> None:
    _, ids, _ = small(3, tokens=500)
    moved = [*ids[:1], np.roll(ids[1], shift, axis=0), *ids[2:]]
    found = compared(tmp_path, ids_alone(ids), ids_alone(moved))
    row = f"t - {shift}" if shift > 0 else f"t + {-shift}"
    tokens = "one token" if abs(shift) == 1 else "3 tokens"
    assert found.misplaced == [
        f"layer 1 of B equals A's shifted by {tokens}: row t has what belongs in row {row}"
    ]
    assert agreement(found) == {"alike": 1500 - abs(shift), "no place": abs(shift)}
    assert found.exit_code == 1


@pytest.mark.parametrize("tokens", [1, 2, 3, 9])
def test_few_tokens_prove_no_shift(tmp_path: Path, tokens: int) -> None:
    _, ids, _ = small(1, tokens=tokens)
    _, others, _ = small(1, tokens=tokens, seed=1)
    found = compared(tmp_path, ids_alone(ids), ids_alone(others))
    assert (found.misplaced, agreement(found)) == ([], {"unknown": tokens})


def test_swapped_layers_are_told_as_such(tmp_path: Path) -> None:
    _, ids, _ = small(4, tokens=300)
    moved = [ids[0], ids[3], ids[2], ids[1]]
    found = compared(tmp_path, ids_alone(ids), ids_alone(moved))
    assert found.misplaced == ["layer 1 of B equals A's layer 3", "layer 3 of B equals A's layer 1"]
    assert agreement(found) == {"alike": 1200}


def test_a_record_of_another_layer_is_found_among_a_traces_own_logits(tmp_path: Path) -> None:
    logits, ids, weights = small(3, tokens=300)
    moved = [ids[1], ids[0], ids[2]], [weights[1], weights[0], weights[2]]
    path = save_npz(tmp_path / "t.npz", keyed(logits, *moved))
    found = judged([path], of_file(claim_file(tmp_path)))
    assert found.misplaced == [
        "layer 0 of A is not routed by its own logits, but by A's layer 1",
        "layer 1 of A is not routed by its own logits, but by A's layer 0",
    ]
    assert (found.wrong("A"), found.exit_code) == (0, 1)


def test_layers_whose_tokens_all_route_alike_are_in_place(tmp_path: Path) -> None:
    _, ids, _ = small(2, tokens=300)
    same = [np.broadcast_to(each[:1], each.shape).copy() for each in ids]
    found = compared(tmp_path, ids_alone(same), ids_alone(same))
    assert (found.misplaced, agreement(found)) == ([], {"alike": 600})


def test_dense_layers_of_an_engine_are_left_out(tmp_path: Path) -> None:
    logits, ids, weights = small(2)
    engine = ids_alone([np.zeros_like(ids[0]), *ids])
    found = compared(tmp_path, keyed(logits, ids, weights), engine)
    assert found.plan.traces[1].notes[0].startswith("layers without routes, left out: 0 ")
    assert (agreement(found), found.exit_code) == ({"alike": 80}, 0)


def test_other_numbers_of_layers_or_tokens_are_refused(tmp_path: Path) -> None:
    _, ids, _ = small()
    with pytest.raises(TraceError, match=r"A has 2 layers, 0-1, and B 1, 0: record the same"):
        compared(tmp_path, ids_alone(ids), ids_alone(ids[:1]))
    with pytest.raises(TraceError, match=r"A has 40 tokens and B 39: .* no row for the last"):
        compared(tmp_path, ids_alone(ids), ids_alone([each[:-1] for each in ids]))
