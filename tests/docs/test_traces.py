"""The code of docs/traces.md runs: what transformers records is read as it writes it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from moe_routing.conformance.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "traces.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_what_vllm_returns_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = np.argsort(np.random.default_rng(0).random((9, 3, 8)), axis=2)[..., :4]
    outputs = [
        SimpleNamespace(outputs=[SimpleNamespace(routed_experts=each.astype(np.uint8))])
        for each in (rows[:5], rows[5:])
    ]
    llm = SimpleNamespace(generate=lambda prompts, params: outputs)
    exec(snippets()[2], {"llm": llm, "prompts": [], "params": None})
    assert main(["judge", "engine.npz"]) == 0
    assert "A: 27 routed tokens, nothing to judge but the ids" in capsys.readouterr().out


def test_what_transformers_records_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("safetensors")
    transformers = pytest.importorskip("transformers")
    import torch
    from safetensors.torch import save_file

    config = transformers.Qwen3MoeConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=True,
    )
    torch.manual_seed(0)
    model = transformers.Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    config.save_pretrained(tmp_path)
    logits, hooks = snippets()[:2]
    scope = {
        "model": model,
        "input_ids": torch.randint(0, 50, (2, 30)),
        "path": str(tmp_path / "trainer.safetensors"),
    }
    exec(hooks, scope)
    with torch.no_grad():
        exec(logits, scope)
    save_file(scope["found"], str(tmp_path / "engine.safetensors"))
    options = ["--config", str(tmp_path / "config.json")]
    traces = [str(tmp_path / f"{each}.safetensors") for each in ("trainer", "engine")]
    assert main(["judge", traces[1], *options]) == 0
    assert "A: 120 routed tokens, " in capsys.readouterr().out
    assert main(["judge", traces[0], "--against", traces[1], *options]) == 0
    assert "A and B: " in capsys.readouterr().out
