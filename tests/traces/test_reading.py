"""Traces are read as engines and trainers write them, and what cannot be read is said in a line."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_traces import bfloat16_bits
from small_traces import keyed, save_npz, save_safetensors, small

from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.known_router import NOBODY, Known
from moe_routing.conformance.traces.names import meaning
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.trace import Trace, open_trace
from moe_routing.reference import RouterConfig

FOUR = Known(name="a router", config=RouterConfig(num_experts=16, top_k=4))


def opened(*paths: Path) -> Trace:
    return open_trace(paths, FOUR)


def read(trace: Trace, layer: int, part: str, start: int = 0, stop: int | None = None) -> Any:
    files = Files()
    try:
        field = trace.layers[layer].fields[part]
        return field.read(files, start, field.tokens if stop is None else stop)
    finally:
        files.close()


@pytest.mark.parametrize("kind", ["safetensors", "npz", "compressed"])
def test_the_arrays_of_a_file_are_read_by_rows(tmp_path: Path, kind: str) -> None:
    logits, ids, weights = small()
    arrays = keyed(logits, ids, weights)
    if kind == "safetensors":
        path = save_safetensors(tmp_path / "t.safetensors", arrays)
    else:
        path = save_npz(tmp_path / "t.npz", arrays, compressed=kind == "compressed")
    trace = opened(path)
    assert (trace.tokens, [each.number for each in trace.layers]) == (40, [0, 1])
    np.testing.assert_array_equal(read(trace, 1, "logits", 7, 19), logits[1][7:19])
    np.testing.assert_array_equal(read(trace, 0, "expert_ids"), ids[0])
    np.testing.assert_array_equal(read(trace, 0, "weights", 39, 40), weights[0][39:])


def test_a_compressed_file_is_read_backwards_too(tmp_path: Path) -> None:
    logits, ids, weights = small()
    trace = opened(save_npz(tmp_path / "t.npz", keyed(logits, ids, weights), compressed=True))
    files, field = Files(), trace.layers[0].fields["logits"]
    for start in (30, 32, 0, 10, 9, 9, 12, 35):
        np.testing.assert_array_equal(
            field.read(files, start, start + 5), logits[0][start : start + 5]
        )
    files.close()


def test_bfloat16_is_read_without_torch(tmp_path: Path) -> None:
    logits, ids, _ = small(1)
    bits = bfloat16_bits(logits[0])
    path = save_safetensors(
        tmp_path / "t.safetensors", {"router_logits.0": bits, "expert_ids.0": ids[0]}
    )
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(read(opened(path), 0, "logits"), expected)


def test_bfloat16_that_numpy_saved_as_two_bytes_is_read(tmp_path: Path) -> None:
    logits, ids, _ = small(1)
    bits = bfloat16_bits(logits[0])
    path = save_npz(tmp_path / "t.npz", {"router_logits.0": bits.view("V2"), "ids.0": ids[0]})
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(read(opened(path), 0, "logits"), expected)


def test_shards_are_joined_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    logits, ids, _ = small(1)
    for number, rows in ((2, slice(0, 15)), (10, slice(15, 40))):
        arrays = {"router_logits.0": logits[0][rows], "expert_ids.0": ids[0][rows]}
        save_safetensors(tmp_path / f"shard-{number}.safetensors", arrays)
    np.testing.assert_array_equal(read(opened(tmp_path), 0, "logits", 10, 20), logits[0][10:20])


def test_layers_may_lie_in_files_of_their_own(tmp_path: Path) -> None:
    logits, ids, weights = small(2)
    for name, value in keyed(logits, ids, weights).items():
        save_npz(tmp_path / f"{name}.npz", {name: value})
    np.testing.assert_array_equal(read(opened(tmp_path), 1, "logits"), logits[1])


def test_batches_and_stacked_layers_are_flattened(tmp_path: Path) -> None:
    """[B, S, E] of a layer, [L, B, S, K] of all of them, [tokens, layers, K] of an engine."""
    logits, ids, weights = small(2)
    arrays = {
        "router_logits.0": logits[0].reshape(2, 20, 16),
        "router_logits.1": logits[1].reshape(2, 20, 16),
        "weights": np.stack(weights).reshape(2, 2, 20, 4),
        "routed_experts": np.stack(ids, axis=1).astype(np.int16),
    }
    trace = opened(save_npz(tmp_path / "t.npz", arrays))
    np.testing.assert_array_equal(read(trace, 1, "logits", 5, 30), logits[1][5:30])
    np.testing.assert_array_equal(read(trace, 1, "weights", 5, 30), weights[1][5:30])
    np.testing.assert_array_equal(read(trace, 1, "expert_ids", 5, 30), ids[1][5:30])


def test_an_array_of_an_engine_is_read_alone(tmp_path: Path) -> None:
    _, ids, _ = small(2)
    np.save(tmp_path / "routed_experts.npy", np.stack(ids, axis=1))
    np.testing.assert_array_equal(
        read(opened(tmp_path / "routed_experts.npy"), 1, "expert_ids"), ids[1]
    )


def test_fortrans_order_is_read(tmp_path: Path) -> None:
    logits, ids, _ = small(1)
    arrays = {"router_logits.0": np.asfortranarray(logits[0]), "expert_ids.0": ids[0]}
    np.testing.assert_array_equal(
        read(opened(save_npz(tmp_path / "t.npz", arrays)), 0, "logits"), logits[0]
    )


def sglang(ids: Any, prompt: int) -> dict[str, Any]:
    """A response of sglang's /generate: all tokens but the last one sampled have a row."""
    held = base64.b64encode(ids.astype("<i4").tobytes()).decode()
    meta = {"prompt_tokens": prompt, "completion_tokens": len(ids) + 1 - prompt}
    return {"text": "", "meta_info": {**meta, "routed_experts": held}}


def vllm(ids: Any) -> dict[str, Any]:
    """A completion of vLLM's server."""
    file = io.BytesIO()
    np.save(file, ids.astype(np.uint8))
    held = base64.b64encode(file.getvalue()).decode()
    return {"choices": [{"index": 0, "text": "", "routed_experts": held}]}


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_responses_of_engines_follow_one_another(tmp_path: Path, engine: str, kind: str) -> None:
    _, ids, _ = small(3)
    whole = np.stack(ids, axis=1)
    parts = [whole[:25], whole[25:]]
    made = [sglang(each, 5) if engine == "sglang" else vllm(each) for each in parts]
    path = tmp_path / f"r.{kind}"
    path.write_text(json.dumps(made) if kind == "json" else "\n".join(map(json.dumps, made)))
    trace = opened(path)
    assert (trace.tokens, len(trace.layers)) == (40, 3)
    np.testing.assert_array_equal(read(trace, 2, "expert_ids", 20, 30), ids[2][20:30])


def test_responses_of_sglang_need_a_router_that_says_k(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(sglang(np.zeros((3, 2, 4)), 1)))
    with pytest.raises(TraceError, match="name the router"):
        open_trace([path], NOBODY)


MEANINGS = {
    "router_logits.3": ("logits", 3),
    "router_logits_3": ("logits", 3),
    "layers.3.topk_ids": ("expert_ids", 3),
    "layer_3/weights": ("weights", 3),
    "model.layers.3.mlp.gate.weight": ("gate_weight", 3),
    "model.layers.3.mlp.gate.e_score_correction_bias": ("selection_bias", 3),
    "routed_experts": ("expert_ids", None),
    "model.layers.3.mlp.experts.5.gate_proj.weight": None,
    "model.layers.3.mlp.experts.gate.weight": None,
    "model.layers.3.mlp.shared_expert_gate.weight": None,
    "attention_mask": None,
}


@pytest.mark.parametrize("key", MEANINGS)
def test_keys_mean_a_part_of_a_layer(key: str) -> None:
    found = meaning(key)
    assert (None if found is None else (found.part, found.layer)) == MEANINGS[key]


def test_a_compressed_member_that_is_damaged_is_said_when_it_is_read(tmp_path: Path) -> None:
    logits, ids, weights = small(1, tokens=4000)
    arrays = keyed(logits, ids, weights)
    path = save_npz(tmp_path / "t.npz", arrays, compressed=True)
    whole = bytearray(path.read_bytes())
    whole[5000:5100] = bytes(100)
    path.write_bytes(whole)
    with pytest.raises(TraceError, match=r"is damaged at router_logits.0.npy"):
        read(opened(path), 0, "logits")


def bad(tmp_path: Path, name: str) -> Path:
    logits, ids, weights = small(1)
    arrays = keyed(logits, ids, weights)
    path = tmp_path / f"{name}.npz"
    if name == "no-layers":
        return save_npz(path, {"attention_mask": logits[0]})
    if name == "mixed-lengths":
        return save_npz(path, {**arrays, "weights.0": weights[0][:-1]})
    if name == "unknown-dtype":
        return save_npz(path, {**arrays, "weights.0": weights[0].astype(complex)})
    if name == "floats-for-ids":
        return save_npz(path, {**arrays, "expert_ids.0": weights[0]})
    if name == "wrong-shape":
        return save_npz(path, {**arrays, "router_logits.0": np.zeros((1, 1, 1, 2, 2))})
    if name == "no-tokens":
        return save_npz(path, {key: value[:0] for key, value in arrays.items()})
    if name == "objects":
        return save_npz(path, {**arrays, "weights.0": np.array([None, {}])})
    if name == "empty":
        path.write_bytes(b"")
    elif name == "missing":
        return path
    elif name == "no-zip":
        path.write_bytes(b"hello, world")
    elif name == "folder":
        path = tmp_path / "empty"
        path.mkdir()
    elif name == "pickle":
        path = tmp_path / "trace.pt"
        path.write_bytes(b"x")
    elif name == "truncated-npz":
        save_npz(path, arrays)
        path.write_bytes(path.read_bytes()[:-500])
    elif name == "json":
        path = tmp_path / "r.json"
        path.write_text("{}")
    elif name == "broken-json":
        path = tmp_path / "r.jsonl"
        path.write_text('{"meta_info": ')
    elif name == "no-base64":
        path = tmp_path / "r.json"
        path.write_text('{"choices": [{"routed_experts": "no, no"}]}')
    else:
        path = save_safetensors(tmp_path / "t.safetensors", arrays)
        whole = path.read_bytes()
        cut = {"truncated": whole[:-10], "cut-header": whole[:50], "no-header": b"\xff" * 100}
        path.write_bytes(cut[name])
    return path


BAD = {
    "no-layers": "has no layers: expected arrays such as router_logits.0",
    "mixed-lengths": "Mixed lengths: .*weights.0 has 39 tokens",
    "unknown-dtype": "unknown dtype complex128: expected one of",
    "floats-for-ids": "is float32, but expert_ids are integers",
    "wrong-shape": r"has shape \[1, 1, 1, 2, 2\], expected \[tokens, width\]",
    "no-tokens": "has no tokens",
    "objects": "unknown dtype object",
    "empty": "is empty",
    "missing": "no such file or folder",
    "no-zip": "is no npz file, or truncated",
    "folder": "has no file to read: expected some of",
    "pickle": "Cannot read .*trace.pt: .*save its tensors with safetensors",
    "truncated-npz": "is no npz file, or truncated",
    "json": "has no routed_experts",
    "broken-json": "is no JSON at byte 0",
    "no-base64": "is no base64",
    "truncated": "is truncated: .* ends 10 bytes beyond it",
    "cut-header": "is truncated: its header has",
    "no-header": "is no safetensors file",
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match=BAD[name]) as raised:
        opened(bad(tmp_path, name))
    assert "\n" not in str(raised.value)
