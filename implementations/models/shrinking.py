"""A model's configuration made small: fewer layers, narrower, the same routing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LAYERS = 4
"""The layers that a shrunk model has, at the most; one of each kind where there are more kinds."""

_HEAD, _ROPE = 16, 8

_MOST: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "adapter_in_dim", "moe_hidden_size"), 64),
    **dict.fromkeys(("num_attention_heads", "n_heads", "num_heads", "index_n_heads"), 4),
    **dict.fromkeys(("linear_num_heads", "linear_num_value_heads", "indexer_n_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "num_sliding_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("linear_num_key_heads", "kv_n_heads", "n_groups", "o_groups"), 2),
    **dict.fromkeys(("head_dim", "swa_head_dim", "d_kv", "kv_channels", "v_head_dim"), _HEAD),
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"), _HEAD),
    **dict.fromkeys(("index_head_dim", "indexer_head_dim", "qk_nope_head_dim"), _HEAD),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "hc_lowrank"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_dt_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), _ROPE),
    "qk_head_dim": _HEAD + _ROPE,
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "intermediate_size_mlp"), 32),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("shared_experts_intermediate_size", "dense_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "share_expert_dim"), 32),
    **dict.fromkeys(("expert_ffn_hidden_size", "ffn_hidden_size", "d_ff", "ple_embed_dim"), 32),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), 256),
    **dict.fromkeys(("max_position_embeddings", "max_seq_len", "model_max_length"), 512),
    **dict.fromkeys(("ngram_vocab_size_base", "index_topk"), 512),
    **dict.fromkeys(("split_ngram_parts", "make_ngram_vocab_size_divisible_by"), 4),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "num_hash_layers"), 1),
    **dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 2),
    **dict.fromkeys(("encoder_sparse_step", "decoder_sparse_step"), 1),
}
"""The settings that are cut, with the most that each keeps."""

_COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "num_decoder_layers")
_REMADE = ("per_layer_config", "id2label", "label2id", "transformers_version")
_TIED = (
    ("num_key_value_heads", "num_attention_heads"),
    ("head_dim", "qk_rope_head_dim"),
    ("head_dim", "qk_head_dim"),
    ("qk_nope_head_dim", "qk_rope_head_dim"),
)
"""Settings that stay equal where they are."""

TOKENS = 200
"""Ids below this are in the vocabulary of every shrunk model."""


def shrunk(config: Any, layers: int = LAYERS) -> Any:
    """Return a small configuration of the same class whose routers are the same."""
    made = type(config)(**_cut(config.to_dict(), config, layers))
    for name in ("dtype", "_attn_implementation", "_experts_implementation"):
        if getattr(config, name, None) is not None and name != "dtype":
            setattr(made, name, getattr(config, name))
    return made


def _cut(whole: Mapping[str, Any], config: Any, layers: int) -> dict[str, Any]:
    count = next((whole[name] for name in _COUNTS if whole.get(name)), 0)
    kept = list(_layers(whole, count, layers))
    found: dict[str, Any] = {}
    for name, value in whole.items():
        if name in _REMADE or name in ("architectures", "model_type", "dtype", "torch_dtype"):
            continue
        part = vars(config).get(name)
        if isinstance(value, dict) and hasattr(part, "to_dict"):
            found[name] = type(part)(**_cut(value, part, layers))
        else:
            found[name] = _small(name, value, count, kept)
    _tie(whole, found)
    _cut_sections(whole, found)
    return found


def _tie(whole: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Keep settings equal that were, and heads of two parts the sum of these."""
    parts = ("qk_nope_head_dim", "qk_rope_head_dim")
    for one, other in _TIED:
        if whole.get(one) and whole.get(one) == whole.get(other) and other in found:
            found[one] = found[other]
    if all(found.get(each) is not None for each in ("qk_head_dim", *parts)):
        found["qk_head_dim"] = sum(found[each] for each in parts)
        if whole.get("head_dim") == whole["qk_head_dim"]:
            found["head_dim"] = found["qk_head_dim"]


def _layers(whole: Mapping[str, Any], count: int, most: int) -> Iterator[int]:
    """Yield the layers that are kept: the first of each kind, then the last ones."""
    lists = {n: v for n, v in whole.items() if isinstance(v, (list, tuple)) and len(v) == count}
    kinds = {n: v for n, v in lists.items() if v and isinstance(v[0], (str, bool))}
    seen: set[tuple[str, Any]] = set()
    first = []
    for layer in range(count):
        new = {(name, values[layer]) for name, values in kinds.items()} - seen
        if new:
            first.append(layer)
            seen |= new
    rest = [layer for layer in reversed(range(count)) if layer not in first]
    yield from sorted([*first, *rest[: max(0, most - len(first))]])


def _small(name: str, value: Any, count: int, kept: Sequence[int]) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool)
    if name in _COUNTS and number:
        return min(value, len(kept))
    if name == "moe_layers":
        return list(range(len(kept)))
    if name == "mlp_only_layers":
        return []
    if name == "moe_layer_end_index" and number:
        return len(kept) - 1
    if name == "kv_source_layers" and value:
        return list(range(len(kept)))
    if isinstance(value, (list, tuple)) and count and len(value) == count:
        value = [value[layer] for layer in kept]
    if name.endswith("token_id") and value is not None:
        return [each % TOKENS for each in value] if isinstance(value, list) else value % TOKENS
    most = _MOST.get(name)
    if most is None:
        return value
    if isinstance(value, list):
        return [min(each, most) if isinstance(each, int) else each for each in value]
    return min(value, most) if number else value


def _cut_sections(whole: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Cut the sections of a rotary embedding over several axes to the smaller head."""
    rope, (before, after) = found.get("rope_parameters"), (_head(whole), _head(found))
    if not isinstance(rope, dict) or not before or not after:
        return
    if sections := rope.get("mrope_section"):
        small = [each * after // before for each in sections]
        for k in range(sum(sections) * after // before - sum(small)):
            small[k] += 1
        found["rope_parameters"] = {**rope, "mrope_section": small}


def _head(settings: Mapping[str, Any]) -> int:
    heads, hidden = settings.get("num_attention_heads"), settings.get("hidden_size")
    return settings.get("head_dim") or (hidden // heads if heads and hidden else 0)
