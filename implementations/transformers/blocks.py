"""Building a model's own MoE block around a case, running it, and recording what it decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import TorchInputs, leaf
from moe_routing.implementations.transformers.rows import Row
from moe_routing.implementations.transformers.settings import spelled
from moe_routing.reference import RouterConfig, RouterInputs

if TYPE_CHECKING:
    import torch

VERSION = "5.23.0"
"""The release that the table was made from."""


class StandIn:
    """Replaces a module around the router: records its arguments, returns the first."""

    def __init__(self) -> None:
        self.heard: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """Return a copy, since a block may add to it in place."""
        self.heard = arguments
        return arguments[0].clone()


def build_block(row: Row, config: RouterConfig, inputs: RouterInputs, device: str) -> Any:
    """Build the block of a tiny model with only its router in memory, its tensors unset.

    Its tensors have the dtypes that ``from_pretrained`` gives them.
    """
    import torch

    made, module, block_class = block_classes(row)
    settings = settings_of(row, config, inputs)
    with default_dtype(getattr(torch, inputs.dtype)), torch.device("meta"):
        block = block_class(made(**settings), **row.arguments).eval()
    router = row.router.partition(".")[0]
    for name, _ in list(block.named_children()) if router else ():
        if name != router:
            delattr(block, name)
            setattr(block, name, StandIn())
    keep_in_float32(block.to_empty(device=device), module, inputs.dtype, row.at)
    return block


def settings_of(row: Row, config: RouterConfig, inputs: RouterInputs) -> dict[str, Any]:
    """Return the settings of a tiny model of a row that routes so."""
    settings = {**spelled(config, inputs), **row.settings}
    return {**settings, row.nested: dict(settings)} if row.nested else settings


def fill_block(row: Row, block: Any, given: TorchInputs) -> None:
    """Copy the case's arrays into the block; what the case lacks is 0, a scale is 1."""
    state = state_of(block)
    for name, source in row.arrays.items():
        if name not in state:  # a part that the settings leave out
            continue
        value = getattr(given, source)
        if value is None:
            state[name].fill_(1.0 if source.endswith("scale") else 0.0)
        else:
            state[name].copy_(value.view_as(state[name]))
            leaf(source, state[name])


def run_block(row: Row, block: Any, given: TorchInputs) -> tuple[Any, tuple[Any, ...]]:
    """Run the block, or just its router; return what the router and the experts were given.

    The first is what the router returned, the second what the block handed to its experts.
    """
    router, returned = block.get_submodule(row.router), []
    with router.register_forward_hook(lambda module, given_, output: returned.append(output)):
        if row.calls == "router":
            router(given.hidden)
            return returned[0], ()
        token_ids = {} if given.token_ids is None else {"input_ids": given.token_ids[None]}
        block(given.hidden[None], **token_ids)
    return returned[0], block.experts.heard


def state_of(block: Any) -> dict[str, torch.Tensor]:
    """Return the block's parameters and buffers by name."""
    return dict(chain(block.named_parameters(), block.named_buffers()))


def keep_in_float32(block: Any, module: Any, dtype: str, at: str) -> None:
    """Widen the tensors that loading keeps in float32: one list for float16, one for both."""
    kept: set[str] = set()
    for model in vars(module).values():
        if isinstance(model, type) and model.__module__ == module.__name__:
            kept |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
            if dtype == "float16":
                kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, tensor in state_of(block).items():
        if any(part in f"{at}.{name}" for part in kept):
            tensor.data = tensor.data.float()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of ``dtype`` by default inside the block."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def block_classes(row: Row) -> tuple[Callable[..., Any], Any, type]:
    """Return the configuration class, the modelling module and the block class."""
    file, _, class_name = row.block.partition(".")
    try:
        auto = import_module("transformers.models.auto.configuration_auto")
        module = import_module(f"transformers.models.{file}.modeling_{file}")
        return auto.CONFIG_MAPPING[row.config_type], module, getattr(module, class_name)
    except (ImportError, AttributeError, KeyError) as error:
        raise BackendMissing(
            f"transformers has no {row.name} router ({type(error).__name__}): "
            f"python -m pip install transformers=={VERSION}"
        ) from error
