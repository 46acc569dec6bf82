"""The command ``judge``: what it prints, what it writes, how it ends."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_traces import Sizes, make
from schemas import mistakes
from small_traces import claim_file, keyed, save_npz, small

from moe_routing.conformance.cli import main

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "trace.schema.json"


def against_schema(form: dict[str, Any]) -> list[str]:
    """What keeps a form from the schema; nothing where the docs are not here."""
    if not SCHEMA_FILE.is_file():
        return []
    schema = json.loads(SCHEMA_FILE.read_text())
    return mistakes(form, schema, schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    make(folder, Sizes(layers=3, tokens=2000, near=20, wrong=4, experts=32, top_k=4))
    claim_file(folder, logits_dtype=["input"])
    return folder


def judge(folder: Path, *options: str) -> int:
    return main(["judge", "--config", str(folder / "claim.json"), *options])


def test_two_traces_end_with_a_verdict_within_80_columns(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    engine, trainer = (str(folder / f"{each}.safetensors") for each in ("engine", "trainer"))
    assert judge(folder, engine, "--against", trainer, "--json", str(report)) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if len(line) > 80 and str(folder) not in line] == []
    assert printed[-2] == "not explained: 4, 0.067% of the tokens"
    assert "A and B: 5975 alike, 24 differ (20 ties, 4 wrong)" in printed
    form = json.loads(report.read_text())
    assert against_schema(form) == []
    planted = json.loads((folder / "planted.json").read_text())
    assert form["agreement"]["listed"]["ties"] == sorted(planted["near"])
    assert form["traces"][1]["listed"]["wrong selection"] == sorted(planted["wrong"])
    assert form["agreement"]["misplaced"] == [{"layer": 1, "expected": 1, "found": 1, "shift": 1}]


def test_an_honest_trace_ends_with_0(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    assert judge(folder, str(folder / "engine.safetensors"), "--json", str(report)) == 0
    assert "none wrong" in capsys.readouterr().out
    form = json.loads(report.read_text())
    assert against_schema(form) == []
    assert (form["exit_code"], form["agreement"]) == (0, None)


LINES = {
    ("nothing.npz",): "nothing.npz: no such file or folder",
    ("trace.npz", "--preset", "qwen4_moe"): "Unknown preset 'qwen4_moe': did you mean qwen",
    ("trace.npz", "--preset", "mixtral"): "has rows of 16, but preset mixtral has num_experts=8",
    ("trace.npz", "--config", "trace.npz"): "is no JSON",
    ("trace.npz", "--config", "two.json"): "score has 2 values, but a trace is of one router",
    ("trace.npz", "--config", "odd.json"): "unknown key 'scores': expected some of num_experts",
    ("trace.npz", "--config", "model.json"): "Unknown model_type 'gpt2' in model.json",
    ("trace.npz", "--replayed"): "--replayed judges weights: name the router",
    ("trace.npz", "--against", "other.npz"): "Mixed lengths",
    ("trace.npz", "--declare", "sigmoid"): "--declare sigmoid is none of multiply=..., sigmoid=",
    ("trace.npz", "--declare", "sigmoid=odd"): "Expected Numerics.sigmoid to be one of relative",
    ("trace.npz", "--may-differ", "200%"): "200% is no share: write 2% or 0.02",
    ("trace.npz", "--json", "trace.npz"): "which is read",
}


@pytest.mark.parametrize("words", LINES)
def test_bad_input_is_said_in_one_line(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    logits, ids, weights = small()
    save_npz(tmp_path / "trace.npz", keyed(logits, ids, weights))
    save_npz(tmp_path / "other.npz", {"expert_ids.0": ids[0], "expert_ids.1": ids[1][:3]})
    (tmp_path / "two.json").write_text('{"score": ["softmax", "sigmoid"]}')
    (tmp_path / "odd.json").write_text('{"scores": "softmax"}')
    (tmp_path / "model.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(SystemExit) if "--may-differ" in words else np.errstate():
        assert main(["judge", *words]) == 2
    error = capsys.readouterr().err
    assert LINES[words] in error
    assert error.count("\n") == 1


def test_a_models_config_names_its_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_npz(tmp_path / "trace.npz", keyed(*small()))
    sizes = {"num_experts": 16, "num_experts_per_tok": 4, "hidden_size": 64}
    model = {"model_type": "qwen3_moe", "norm_topk_prob": True, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(model))
    assert main(["judge", str(tmp_path / "trace.npz"), "--config", str(tmp_path)]) == 0
    assert "none wrong" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_is_named_where_it_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(folder, str(folder / "engine.safetensors"), "--ray") == 2
    assert "--ray needs Ray: python -m pip install" in capsys.readouterr().err
