"""The audit as a function and as a command: what it leaves alone, says and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch
from schemas import mistakes
from tiny_models import batch_for, tiny_config, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from moe_routing.conformance import audit
from moe_routing.conformance.auditing.form import SCHEMA
from moe_routing.conformance.cli import main
from moe_routing.implementations.models.passing import CannotAudit
from moe_routing.implementations.models.shrinking import shrunk

FAMILY = "qwen2_moe"
SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "audit.schema.json"


@pytest.fixture
def model() -> Any:
    return tiny_model(FAMILY)


def folder_of(config: Any, path: Path) -> Path:
    config.save_pretrained(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tiny_config(FAMILY), tmp_path / "model")


def dense() -> Any:
    return LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
    )


# The function.


def test_a_training_step_goes_on_as_before(model: Any) -> None:
    batch = batch_for(FAMILY, model, tokens=4)
    model.train()
    model(**batch).logits.sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters()}
    random = torch.get_rng_state()
    assert audit(model, batch).right
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    after = {name: each.grad for name, each in model.named_parameters()}
    assert all(torch.equal(after[name], each) for name, each in gradients.items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert model.config.use_cache


def test_without_a_batch_token_ids_are_drawn_from_the_seed(model: Any) -> None:
    one, same, other = (audit(model, tokens=5, seed=seed, backward=False) for seed in (1, 1, 2))
    assert one.right
    assert one.tokens == 5
    assert str(one) == str(same) == str(other)


def test_a_seed_may_be_any_integer(model: Any) -> None:
    assert all(audit(model, tokens=5, seed=n, backward=False).right for n in (-1, -(2**70), 2**70))


def test_a_batch_may_be_token_ids(model: Any) -> None:
    assert audit(model, torch.tensor([[1, 2, 3]])).tokens == 3


def test_a_batch_of_another_kind_is_refused(model: Any) -> None:
    with pytest.raises(CannotAudit, match=r"got a list: pass what model\(\*\*batch\) takes"):
        audit(model, [1, 2, 3])


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(CannotAudit, match="to be a torch module but got 'path/to/model': load it"):
        audit("path/to/model")
    with pytest.raises(CannotAudit, match="takes no token ids: call audit"):
        audit(torch.nn.ReLU())


def test_no_tokens_are_refused(model: Any) -> None:
    with pytest.raises(CannotAudit, match="Expected tokens to be 1 or more but got 0"):
        audit(model, tokens=0)


def test_a_model_that_raises_is_said_in_one_line(model: Any) -> None:
    with pytest.raises(CannotAudit, match="The model raised TypeError: "):
        audit(model, {"input_ids": torch.tensor([[1]]), "nonsense": object(), "labels": "x"})


def test_autocast_is_refused(model: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(CannotAudit, match="outside of it"):
        audit(model)


def test_without_a_backward_pass_gradients_are_not_judged(model: Any) -> None:
    found = audit(model, tokens=4, backward=False)
    assert found.right
    assert {each.part for each in found.judged} == {"routing", "experts", "layer"}


def test_frozen_routers_have_no_gradient_of_their_own(model: Any) -> None:
    for name, each in model.named_parameters():
        each.requires_grad_("experts" in name)
    found = audit(model, batch_for(FAMILY, model, tokens=4))
    assert found.right, str(found)


def test_padding_and_several_rows(model: Any) -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    found = audit(model, batch)
    assert found.right
    assert found.tokens == 6


def test_what_is_random_in_training_is_not_judged() -> None:
    model = tiny_model("switch_transformers").train()
    found = audit(model, batch_for("switch_transformers", model, tokens=4))
    reasons = {each.reason for each in found.findings}
    assert "its router adds noise in training (jitter_noise=0.01)" in reasons
    assert any(each.startswith("it drops out at random in training") for each in reasons)
    assert not found.failures, str(found)


def test_noise_before_the_router_is_not_an_error() -> None:
    model = tiny_model("mixtral", router_jitter_noise=0.1).train()
    assert audit(model, batch_for("mixtral", model, tokens=4)).right


def test_experts_over_several_ranks_are_not_judged(model: Any) -> None:
    model.model.layers[0].mlp.experts._is_expert_parallel = True
    found = audit(model, tokens=3)
    spread = [each.part for each in found.findings if "spread over ranks" in each.reason]
    assert spread == ["routing", "experts", "layer", "experts gradients"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(model: Any, reentrant: bool) -> None:
    model.train().gradient_checkpointing_enable({"use_reentrant": reentrant})
    found = audit(model, batch_for(FAMILY, model, tokens=4))
    assert found.right, str(found)


# What is not known.


class OwnRouter(torch.nn.Module):
    """A block that is none of transformers'."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(32, 4)

    def forward(self, hidden: Any) -> Any:
        return self.gate(hidden).softmax(-1).sum(-1, keepdim=True) * hidden


def test_what_only_looks_like_a_router_is_listed() -> None:
    model = LlamaForCausalLM(dense())
    model.model.layers[0].mlp = OwnRouter()
    found = audit(model, tokens=3)
    assert not found.right
    assert found.exit_code == 1
    listed = [(each.path, each.status) for each in found.findings]
    assert listed == [("model.layers.0.mlp", "unjudged")]
    assert "OwnRouter: none of the 70 blocks" in str(found)
    assert "nothing was judged" in str(found)


def test_a_router_that_cannot_be_expressed_is_listed_with_its_reason() -> None:
    made = shrunk(AutoConfig.for_model("phimoe"), layers=1)
    found = audit(AutoModelForCausalLM.from_config(made), tokens=3)
    (listed,) = found.findings
    assert listed.path == "model.layers.0.mlp"
    assert "it picks two experts one after the other" in listed.reason


def test_a_wrapped_gate_is_not_passed_over(model: Any) -> None:
    block = model.model.layers[0].mlp
    weight = block.gate.weight
    del block.gate.weight
    block.gate.base_layer = torch.nn.ParameterDict({"weight": weight})
    type(block.gate).weight = property(lambda self: self.base_layer["weight"])
    try:
        found = audit(model, tokens=3, backward=False)
    finally:
        del type(block.gate).weight
    unjudged = [each for each in found.findings if each.status == "unjudged"]
    assert [each.reason for each in unjudged if each.part == "routing"] == [
        "its router has no tensor gate.weight: is it wrapped?"
    ]


def test_a_model_without_experts_says_so() -> None:
    found = audit(LlamaForCausalLM(dense()), tokens=3)
    assert (found.exit_code, found.findings) == (2, ())
    assert str(found).splitlines()[1:] == ["no MoE block: nothing in it routes tokens to experts"]


# The command.


def test_a_small_folder_without_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder.parent / "report.json"
    assert main(["audit", str(folder), "--tokens", "4", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "all right" in shown
    assert ", random" in shown
    whole = json.loads(report.read_text())
    assert (whole["schema"], whole["kind"], whole["exit_code"]) == (1, "audit", 0)
    assert len(whole["findings"]) == whole["judged"] == 12
    assert whole["failed"] == 0
    assert whole["findings"][0]["path"] == "model.layers.0.mlp.gate"


def test_a_folder_with_weights_in_16_bits(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path)
    options = ["--tokens", "4", "--dtype", "bfloat16", "--experts-implementation", "eager"]
    assert main(["audit", str(tmp_path), *options, "--forward-only"]) == 0
    shown = capsys.readouterr().out
    assert "in bfloat16 on cpu, evaluation, experts: eager, with its weights" in shown


def test_a_large_folder_is_refused_unless_it_is_shrunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(AutoConfig.for_model("mixtral"), tmp_path)
    assert main(["audit", str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has no weights" in line
    assert "46.7 billion parameters: pass --shrink" in line
    assert main(["audit", str(folder), "--shrink", "--tokens", "4"]) == 0
    assert "shrunk to" in capsys.readouterr().out


def test_of_several_parts_the_language_model_is_audited_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(AutoConfig.for_model("qwen3_vl_moe"), tmp_path)
    assert main(["audit", str(folder), "--shrink", "--tokens", "3", "--forward-only"]) == 0
    assert "random, its language model alone, shrunk to" in capsys.readouterr().out


def test_shrinking_keeps_the_routing() -> None:
    whole = AutoConfig.for_model("deepseek_v3")
    small = shrunk(whole)
    kept = ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group", "norm_topk_prob")
    for name in (*kept, "routed_scaling_factor"):
        assert getattr(small, name) == getattr(whole, name)
    assert (small.hidden_size, small.num_hidden_layers) == (64, 4)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("nowhere", "it is no folder"),
        ("empty", "it has no config.json"),
        ("file", "it is a file"),
        ("broken", "config.json, read by transformers, raised"),
        ("unknown", "config.json, read by transformers, raised"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(
    made: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    if made == "file":
        path.touch()
    elif made != "nowhere":
        path.mkdir()
    if made in ("broken", "unknown"):
        text = "{" if made == "broken" else '{"model_type": "nothing_known"}'
        (path / "config.json").write_text(text)
    assert main(["audit", str(path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_a_dense_folder_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(folder_of(dense(), tmp_path)), "--tokens", "3"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no MoE block in it" in line


@pytest.mark.parametrize("option", [["--device", "foo"], ["--experts-implementation", "foo"]])
def test_an_option_that_cannot_be(
    option: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(folder), *option]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"Cannot use {' '.join(option)}" in line


def test_a_known_divergence_is_not_red() -> None:
    model = tiny_model("deepseek_v2", norm_topk_prob=True)
    found = audit(model, batch_for("deepseek_v2", model, tokens=4))
    assert found.right
    assert {each.status for each in found.findings if each.part == "routing"} == {"known"}
    assert "norm-flag-unread" in str(found)


def test_a_report_fits_80_columns(model: Any) -> None:
    gate = model.model.layers[0].mlp.gate
    forward = gate.forward
    gate.forward = lambda hidden: (
        tuple(2 * each for each in forward(hidden)[:2]) + forward(hidden)[2:]
    )
    found = audit(model, tokens=4)
    assert found.exit_code == 1
    assert max(map(len, str(found).splitlines())) <= 80


@pytest.mark.skipif(not SCHEMA_FILE.is_file(), reason="the docs are not here")
def test_the_json_keeps_to_its_schema(model: Any) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    gate = model.model.layers[0].mlp.gate
    forward = gate.forward
    gate.forward = lambda hidden: (lambda found: (*found[:1], found[1] * 2, found[2]))(
        forward(hidden)
    )
    model.model.layers[1].mlp.experts._is_expert_parallel = True
    whole = json.loads(json.dumps(audit(model, tokens=4).json()))
    assert {each["status"] for each in whole["findings"]} == {"pass", "fail", "unjudged"}
    assert mistakes(whole, schema, schema) == []
    assert schema["properties"]["schema"]["const"] == SCHEMA


def test_long_paths_leave_room_for_the_table(model: Any) -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_model = torch.nn.ModuleDict({"a_model_of_models": model})

        def forward(self, **batch: Any) -> Any:
            return self.base_model["a_model_of_models"](**batch)

    found = audit(Wrapper(), batch_for(FAMILY, model, tokens=3))
    words = str(found).splitlines()
    assert words[1] == "blocks below base_model.a_model_of_models.model.layers:"
    assert max(map(len, words)) <= 80
    assert words[3].split()[:3] == ["0.mlp", "3", "pass"]
