"""Opening a model's folder: with its weights, or small and random where it has none."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from moe_routing.implementations.experts.registered import transformers_module
from moe_routing.implementations.models.passing import CannotAudit, said
from moe_routing.implementations.models.randomness import fill, torch_seed
from moe_routing.implementations.models.shrinking import shrunk
from moe_routing.implementations.transformers.blocks import keep_in_float32

SMALL = 2**26
"""The parameters up to which a model without weights is made as it is."""

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a folder is opened: see ``moe-routing audit --help``."""

    shrink: bool = False
    seed: int = 0
    dtype: str | None = None
    device: str = "cpu"
    experts_implementation: str | None = None


def open_model(folder: Path, wishes: Wishes) -> tuple[Any, str]:
    """Return the model of a folder, and what it is in words.

    Errors: ``CannotAudit``; ``BackendMissing`` where transformers or torch is not installed.
    """
    config = _config(folder)
    has_weights = any(next(folder.glob(each), None) for each in _WEIGHTS)
    if has_weights and not wishes.shrink:
        model, words = _loaded(folder, config, wishes), "with its weights"
    else:
        model, words = _random(folder, config, wishes)
    _implement(model, wishes.experts_implementation)
    return _moved(model, wishes.device), words


def _config(folder: Path) -> Any:
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "no folder"
        raise CannotAudit(f"Cannot audit {folder}: it is {kind}; name one with a config.json")
    if not (folder / "config.json").is_file():
        raise CannotAudit(f"Cannot audit {folder}: it has no config.json")
    auto: Any = transformers_module("models.auto.configuration_auto")
    with said(f"{folder / 'config.json'}, read by transformers,"):
        return auto.AutoConfig.from_pretrained(folder)


def _class_of(folder: Path, config: Any) -> Any:
    """Return the class of the model: the one that it was saved as, or that of language models."""
    whole: Any = sys.modules["transformers"]
    for name in config.architectures or ():
        if (found := getattr(whole, name, None)) is not None:
            return found
    for mapping in _mappings():
        if type(config) in mapping.keys():  # noqa: SIM118 - a lazy mapping without `in`
            return mapping[type(config)]
    named = ", ".join(config.architectures or ()) or "none"
    raise CannotAudit(
        f"Cannot audit {folder}: transformers has no class for model type {config.model_type!r} "
        f"(architectures: {named}); load it yourself and call audit(model, batch)"
    )


def _dtype(wishes: Wishes, otherwise: Any) -> Any:
    import torch

    return getattr(torch, wishes.dtype) if wishes.dtype else otherwise


def _loaded(folder: Path, config: Any, wishes: Wishes) -> Any:
    made = _class_of(folder, config)
    with said(f"{made.__name__}, loaded from {folder},"):
        return made.from_pretrained(folder, dtype=_dtype(wishes, "auto")).eval()


def _random(folder: Path, config: Any, wishes: Wishes) -> tuple[Any, str]:
    if wishes.shrink:
        return _shrunk(folder, config, wishes)
    made = _class_of(folder, config)
    with said(f"{made.__name__}, made of {folder},"):
        if (count := _parameters(made, config)) > SMALL:
            raise CannotAudit(
                f"{folder} has no weights, and a random model of its size has {_short(count)} "
                "parameters: pass --shrink for a small one that routes alike"
            )
        return random_model(made, config, _dtype(wishes, _own(config)), wishes.seed), "random"


def _shrunk(folder: Path, config: Any, wishes: Wishes) -> tuple[Any, str]:
    """Return a small random model: of a model of several parts, its language model alone."""
    text = config.get_text_config()
    alone = _language_model(config, text) if text is not config else None
    made = alone or _class_of(folder, config)
    with said(f"A small {made.__name__}, made of {folder},"):
        small = shrunk(text if alone else config)
        model = random_model(made, small, _dtype(wishes, _own(config)), wishes.seed)
    part = "its language model alone, " if alone else ""
    return model, f"random, {part}shrunk to {_short(_count(model))}"


def _language_model(config: Any, text: Any) -> Any:
    """Return the class of a model of ``text``, a part of a configuration, or None."""
    for mapping in _mappings():
        if type(text) in mapping.keys():  # noqa: SIM118 - a lazy mapping without `in`
            return mapping[type(text)]
    family = type(text).__module__.rpartition(".")[0]
    module: Any = import_module(f"{family}.modeling_{family.rpartition('.')[2]}")
    found = [
        each
        for name, each in vars(module).items()
        if getattr(each, "config_class", None) is type(text) and name.endswith("Model")
    ]
    return next((each for each in found if not each.__name__.endswith("PreTrainedModel")), None)


def _mappings() -> tuple[Any, ...]:
    package: Any = transformers_module("models.auto.modeling_auto")
    return package.MODEL_FOR_CAUSAL_LM_MAPPING, package.MODEL_MAPPING


def random_model(made: Any, config: Any, dtype: Any, seed: int) -> Any:
    """Return a random model whose tensors have the dtypes that loading would give them."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(seed))
        model = made._from_config(config, dtype=dtype).eval()
    name = str(dtype).rpartition(".")[2]
    keep_in_float32(model, sys.modules[made.__module__], name, "")
    fill(model, seed)
    return model


def _own(config: Any) -> Any:
    import torch

    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return found or torch.float32


def _parameters(made: Any, config: Any) -> int:
    import torch

    with torch.device("meta"):
        return _count(made._from_config(config))


def _count(model: Any) -> int:
    return sum(each.numel() for each in model.parameters())


def _short(count: int) -> str:
    for unit, words in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if count >= unit:
            return f"{count / unit:.3g} {words}"
    return str(count)


def _implement(model: Any, name: str | None) -> None:
    if name is None:
        return
    try:
        model.set_experts_implementation(name)
    except (ValueError, KeyError, ImportError) as error:
        raise CannotAudit(f"Cannot use --experts-implementation {name}: {_line(error)}") from error


def _moved(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise CannotAudit(f"Cannot use --device {device}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
