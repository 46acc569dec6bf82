"""The batch that a model is run on: the caller's, or random token ids."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from moe_routing.implementations.models.passing import CannotAudit
from moe_routing.implementations.models.randomness import torch_seed


def batch_of(model: Any, batch: Any, *, tokens: int, seed: int) -> dict[str, Any]:
    """Return what the model is called with: tensors on its device.

    Errors: ``CannotAudit``.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise CannotAudit(
            f"Expected model to be a torch module but got {model!r:.60}: load it first, as with "
            "AutoModelForCausalLM.from_pretrained; a folder is what `moe-routing audit` takes"
        )
    first = next(model.parameters(), None)
    device = "cpu" if first is None else first.device
    if batch is None:
        made = _random(model, tokens, seed)
    elif isinstance(batch, torch.Tensor):
        made = {"input_ids": batch}
    elif isinstance(batch, Mapping):
        made = dict(batch)
    else:
        raise CannotAudit(
            f"Expected batch to be a mapping, a tensor of token ids or None but got a "
            f"{type(batch).__name__}: pass what model(**batch) takes"
        )
    return {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in made.items()}


def _random(model: Any, tokens: int, seed: int) -> dict[str, Any]:
    import torch

    if tokens < 1:
        raise CannotAudit(f"Expected tokens to be 1 or more but got {tokens}")
    if "input_ids" not in _takes(model):
        raise CannotAudit(
            f"{type(model).__name__} takes no token ids: call audit(model, batch) with a batch"
        )
    made = torch.Generator().manual_seed(torch_seed(seed))
    size = getattr(model.config.get_text_config(), "vocab_size", 0)
    ids = torch.randint(0, max(size, 1), (1, tokens), generator=made)
    found = {"input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = ids.flip(1)
    return found


def _takes(model: Any) -> Mapping[str, Any]:
    plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    return inspect.signature(plain.forward).parameters
