"""What is right in a trace, what rounding of the record explains, and what nothing does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_traces import judged
from make_traces import Sizes, make
from small_traces import claim_file, keyed, save_npz, save_safetensors, small, weights_at

from moe_routing.conformance.traces.form import form
from moe_routing.conformance.traces.judged import Judged
from moe_routing.conformance.traces.known_router import Known, declared, of_file, of_preset
from moe_routing.conformance.traces.written import closing
from moe_routing.reference import RouterInputs, preset, route


def total(found: Judged, letter: str = "A") -> dict[str, int]:
    tally = found.found.of[letter]
    causes = {cause for counts in tally.counts.values() for cause in counts}
    return {cause: tally.total([cause]) for cause in causes if tally.total([cause])}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("planted")
    sizes = Sizes(layers=4, tokens=3000, near=40, wrong=9, experts=32, top_k=4)
    return folder, make(folder, sizes)


def test_what_was_planted_in_a_trace_is_found_exactly(planted: tuple[Path, Any]) -> None:
    folder, made = planted
    config = replace(preset("qwen3_moe").config, num_experts=32, top_k=4)
    known = Known(name="a small qwen3_moe", config=config)
    found = judged([folder / "engine.safetensors"], known, [folder / "trainer.safetensors"])
    assert found.wrong("A") == 0
    tallies = found.found
    assert sorted(tallies.of["B"].listed["wrong selection"]) == sorted(made.wrong)
    assert sorted(tallies.agreement.listed["ties"]) == sorted(made.near)
    assert sorted(tallies.agreement.listed["wrong"]) == sorted(made.wrong)
    assert found.differ == 49
    assert found.unexplained == 9
    assert found.misplaced == [
        "layer 2 of B is not routed by its own logits, but by B's shifted by one token: row t "
        "has what belongs in row t - 1",
        "layer 2 of B equals A's shifted by one token: row t has what belongs in row t - 1",
    ]
    assert tallies.agreement.of_layer(2, ["alike"]) == 2999
    assert found.exit_code == 1


def test_an_honest_trace_is_right(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "t.npz", keyed(*small()))
    found = judged([path], of_file(claim_file(tmp_path)))
    assert total(found).keys() <= {"right", "rounding"}
    assert (sum(total(found).values()), found.exit_code) == (80, 0)


def test_a_sigmoid_by_tanh_is_right_only_where_it_is_declared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((200, 16)) - 9).astype(np.float32)
    scores = (np.float32(1) + np.tanh(logits / np.float32(2))) / np.float32(2)
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :4]
    arrays = {"router_logits": logits, "expert_ids": ids}
    arrays["weights"] = np.take_along_axis(scores, ids, axis=1)
    path = save_npz(tmp_path / "t.npz", arrays)
    known = of_file(claim_file(tmp_path, score=["sigmoid"], renormalize=[None]))
    assert judged([path], known).wrong("A") > 100
    assert judged([path], replace(known, numerics=declared(["sigmoid=absolute"]))).exit_code == 0


def test_shares_that_stand_for_logits_are_told(tmp_path: Path) -> None:
    logits, ids, weights = small()
    shares = [np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in logits]
    path = save_npz(tmp_path / "t.npz", keyed(shares, ids, weights))
    (note,) = judged([path], of_file(claim_file(tmp_path))).plan.traces[0].notes
    assert note.startswith("the logits of layers 0-1 are no logits, as it seems, but shares")


def test_where_most_is_wrong_the_router_is_in_doubt(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "t.npz", keyed(*small()))
    found = judged([path], of_file(claim_file(tmp_path, score=["sigmoid"])))
    assert closing(found)[0].endswith(
        f"80 wrong: most of it; is it {tmp_path}/claim.json, and are these its logits?"
    )


def test_one_weight_and_one_expert_that_nothing_explains_are_found(tmp_path: Path) -> None:
    logits, ids, weights = small()
    weights[1][7, 2] *= 1.001
    ids[0][11, 0] = np.argmin(logits[0][11])
    weights[0] = weights_at(logits[0], ids[0])
    path = save_npz(tmp_path / "t.npz", keyed(logits, ids, weights))
    found = judged([path], of_file(claim_file(tmp_path)))
    tally = found.found.of["A"]
    assert (tally.listed["wrong weights"], tally.listed["wrong selection"]) == ([(1, 7)], [(0, 11)])
    lines = tally.first["wrong weights"].lines
    assert lines[0].startswith("weights[2]=")
    assert "but should be in [" in lines[0]
    assert "competes with" in tally.first["wrong selection"].lines[2]
    assert found.exit_code == 1


@pytest.mark.parametrize("ids", [[1, 1, 2, 3], [1, 2, 3, 16]])
def test_experts_that_repeat_or_are_out_of_range_are_wrong(tmp_path: Path, ids: list[int]) -> None:
    logits, recorded, weights = small()
    recorded[0][3] = ids
    path = save_npz(tmp_path / "t.npz", keyed(logits, recorded, weights))
    found = judged([path], of_file(claim_file(tmp_path)))
    assert found.found.of["A"].listed["wrong ids"] == [(0, 3)]
    assert "distinct and in range: 0 to 15" in found.found.of["A"].first["wrong ids"].lines[0]


def test_where_only_ids_were_recorded_only_they_are_judged(tmp_path: Path) -> None:
    _, ids, _ = small()
    path = save_npz(tmp_path / "t.npz", {"routed_experts": np.stack(ids, axis=1)})
    found = judged([path], of_file(claim_file(tmp_path)))
    assert total(found) == {"unjudged": 80}
    assert found.plan.traces[0].notes == (
        "layers 0-1 have no logits: only that their ids are distinct and in range",
    )
    assert found.exit_code == 0


def test_a_token_without_defined_scores_is_undefined_and_the_rest_is_judged(
    tmp_path: Path,
) -> None:
    logits, ids, weights = small()
    logits[1][5, 3] = np.nan
    weights[1][5] = np.nan
    path = save_npz(tmp_path / "t.npz", keyed(logits, ids, weights))
    found = judged([path], of_file(claim_file(tmp_path)))
    assert total(found)["undefined"] == 1
    assert found.exit_code == 0
    assert found.found.of["A"].listed["undefined"] == [(1, 5)]


def test_absent_routes_are_counted_and_not_judged(tmp_path: Path) -> None:
    logits, ids, weights = small()
    ids[0][:3] = -1
    weights[0][:3] = 0
    path = save_npz(tmp_path / "t.npz", keyed(logits, ids, weights))
    found = judged([path], of_file(claim_file(tmp_path)))
    assert (total(found)["absent"], found.exit_code) == (3, 0)


def test_hidden_states_and_a_gate_do_without_logits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((40, 24)).astype(np.float32)
    gate = rng.standard_normal((16, 24)).astype(np.float32)
    ids = np.argsort(-(hidden @ gate.T), axis=1, kind="stable")[:, :4]
    weights = weights_at(hidden @ gate.T, ids)
    wrong = ids.copy()
    wrong[9, 0] = np.argmin(hidden[9] @ gate.T)
    for name, chosen, code in (("right", ids, 0), ("wrong", wrong, 1)):
        arrays = {"hidden_states.0": hidden, "topk_ids.0": chosen, "topk_weights.0": weights}
        path = save_npz(tmp_path / f"{name}.npz", {**arrays, "layers.0.gate.weight": gate})
        assert judged([path], of_file(claim_file(tmp_path))).exit_code == code


def test_logits_are_held_against_hidden_states_where_both_were_recorded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((40, 24)).astype(np.float32)
    gate = rng.standard_normal((16, 24)).astype(np.float32)
    logits = hidden @ gate.T
    logits[7] *= 2
    arrays = {"hidden_states": hidden, "gate_weight": gate, "router_logits": logits}
    arrays["expert_ids"] = np.argsort(-logits, axis=1, kind="stable")[:, :4]
    found = judged([save_npz(tmp_path / "t.npz", arrays)], of_file(claim_file(tmp_path)))
    assert found.found.of["A"].listed["wrong logits"] == [(0, 7)]
    assert total(found)["wrong logits"] == 1


def test_replayed_experts_are_not_chosen_and_their_weights_are_judged(tmp_path: Path) -> None:
    logits, ids, _ = small()
    forced = [np.argsort(each, axis=1)[:, :4] for each in logits]
    weights = [weights_at(z, each) for z, each in zip(logits, forced, strict=True)]
    weights[1][4] = weights_at(logits[1], ids[1])[4]
    path = save_npz(tmp_path / "t.npz", keyed(logits, forced, weights))
    found = judged([path], of_file(claim_file(tmp_path)), replayed=True)
    assert found.found.of["A"].listed["wrong weights"] == [(1, 4)]
    assert total(found)["wrong weights"] == 1


def deepseek(tmp_path: Path, *, bias: bool = True) -> Path:
    """A grouped router with a selection bias, answered by the reference."""
    config, rng = preset("deepseek_v3").config, np.random.default_rng(0)
    logits = rng.standard_normal((60, 256)).astype(np.float32)
    values = rng.standard_normal(256).astype(np.float32) / 8
    answer = route(config, RouterInputs.from_logits(logits, selection_bias=values))
    arrays = {
        "router_logits.3": logits,
        "expert_ids.3": answer.expert_ids,
        "weights.3": answer.weights.astype(np.float32),
    }
    if bias:
        arrays["model.layers.3.mlp.gate.e_score_correction_bias"] = values
    return save_npz(tmp_path / "t.npz", arrays)


def test_a_bias_and_groups_are_judged(tmp_path: Path) -> None:
    found = judged([deepseek(tmp_path)], of_preset("deepseek_v3"))
    assert total(found) == {"right": 60}


def test_without_its_bias_a_choice_is_not_judged_and_its_weights_are(tmp_path: Path) -> None:
    found = judged([deepseek(tmp_path, bias=False)], of_preset("deepseek_v3"))
    assert total(found) == {"right": 60}
    assert found.plan.traces[0].notes == (
        "not judged in layers 3: which experts were chosen; preset deepseek_v3 has a "
        "selection_bias, which the trace lacks",
    )


def test_rounded_logits_explain_what_they_hide_and_no_more(tmp_path: Path) -> None:
    """Two logits that bfloat16 makes equal may be chosen either way, two that differ may not."""
    logits = np.full((2, 16), -4.0, np.float32)
    logits[:, :5] = [4, 3, 2, 1.0078125, 1]
    logits[1, 4] = 1.0234375
    ids = np.array([[0, 1, 2, 4], [0, 1, 2, 3]])
    arrays = {
        "router_logits.0": (logits.view(np.uint32) >> 16).astype(np.uint16),
        "expert_ids.0": ids,
    }
    path = save_safetensors(tmp_path / "t.safetensors", arrays)
    found = judged([path], of_file(claim_file(tmp_path)))
    assert total(found) == {"rounding": 1, "wrong selection": 1}


def test_the_form_is_made_of_plain_values(planted: tuple[Path, Any]) -> None:
    folder, _ = planted
    made = form(judged([folder / "engine.safetensors"], Known(name="nobody")))
    assert made["traces"][0]["total"]["unjudged"] == 12000
