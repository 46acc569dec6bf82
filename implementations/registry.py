"""Finding adapters: a registered name, ``module:attr``, ``file.py:attr``, a command, a group.

A name may stand for many adapters: a family's, or a glob such as ``transformers:glm*``.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import shlex
import shutil
from collections.abc import Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from moe_routing.implementations.loading import AdapterError, adapter_of, attribute_of
from moe_routing.implementations.nearest_file import adapters_like, files_like
from moe_routing.implementations.process import ProcessAdapter
from moe_routing.implementations.protocol import Adapter

ENTRY_POINT_GROUP = "moe_routing.adapters"

PROCESS = "process"
"""The prefix, before the colon, of a command that starts the backend."""

SHIPPED = {
    "reference": "moe_routing.implementations.reference:ReferenceAdapter",
    "torch": "moe_routing.implementations.torch_eager:TorchAdapter",
    "scattermoe": "moe_routing.implementations.scattermoe:ScatterMoeAdapter",
    "scattermoe@gpt_oss": "moe_routing.implementations.scattermoe_experts:gpt_oss",
    "scattermoe@lora": "moe_routing.implementations.scattermoe_lora:ScatterMoeLora",
    "sonicmoe": "moe_routing.implementations.sonicmoe:sonicmoe",
    "sonic-moe": "moe_routing.implementations.sonic_moe:SonicMoe",
    "liger": "moe_routing.implementations.liger:LigerMoe",
    "torchtitan": "moe_routing.implementations.torchtitan:TorchtitanAdapter",
    "torchtitan-experts": "moe_routing.implementations.torchtitan_experts:TorchtitanExperts",
    "transformers-loss": "moe_routing.implementations.load_balancing:LoadBalancingLoss",
    "megatron-core": "moe_routing.implementations.megatron_core:MegatronCoreAdapter",
    "megatron-bias": "moe_routing.implementations.megatron_bias:MegatronBias",
    "mistral-inference": "moe_routing.implementations.few_routers:mistral_inference",
    "olmo-core": "moe_routing.implementations.few_routers:olmo_core",
    "diffusers": "moe_routing.implementations.few_routers:diffusers",
    "megablocks": "moe_routing.implementations.megablocks:learned_router",
    "llama-models": "moe_routing.implementations.llama_blocks:llama_models",
    "fairseq2": "moe_routing.implementations.llama_blocks:fairseq2",
    "xtuner": "moe_routing.implementations.xtuner:xtuner",
}
"""The adapters of this distribution, by name."""

NEED_GPU = ("sonic-moe", "liger")
"""Those of ``SHIPPED`` that run kernels which no CPU can run; families have a list of theirs."""

FAMILIES = {
    "transformers": "moe_routing.implementations.transformers",
    "deepspeed": "moe_routing.implementations.deepspeed",
    "experts": "moe_routing.implementations.experts",
    "drops": "moe_routing.implementations.capacity_rules",
    "mlx-lm": "moe_routing.implementations.mlx_lm",
    "vllm": "moe_routing.implementations.vllm",
    "sglang": "moe_routing.implementations.sglang",
    "flashinfer": "moe_routing.implementations.flashinfer",
    "transformer-engine": "moe_routing.implementations.transformer_engine",
    "litgpt": "moe_routing.implementations.litgpt",
    "nemo-automodel": "moe_routing.implementations.nemo_automodel",
    "lmdeploy": "moe_routing.implementations.lmdeploy",
    "ibm-fms": "moe_routing.implementations.ibm_fms",
    "llm-compressor": "moe_routing.implementations.llm_compressor",
    "optimum-habana": "moe_routing.implementations.optimum_habana",
    "unsloth-zoo": "moe_routing.implementations.unsloth_zoo",
    "exllamav3": "moe_routing.implementations.exllama",
    "keras-hub": "moe_routing.implementations.keras_hub",
    "tpu-inference": "moe_routing.implementations.tpu_inference",
    "maxtext": "moe_routing.implementations.maxtext",
    "easydel": "moe_routing.implementations.easydel",
    "mlx-vlm": "moe_routing.implementations.mlx_vlm",
}
"""The modules that hold many adapters each, by the name that stands for all of them.

``transformers:qwen3_moe`` is one. A module has ``MEMBERS``, the names of its adapters,
``OUT_OF_SCOPE``, why there is none for some others, and each adapter as an attribute. One that
has others as well, of plug-ins, says so with ``finds`` and ``matching``.
"""

ON_RANKS = {"ep": "moe_routing.implementations.expert_parallel"}
"""The modules that hold adapters of one rank each, which ``--ranks`` runs, by their prefix."""

UNSERVED = {
    "scattermoe-upstream": "the kernels of shawntan/scattermoe have no router: they are given "
    "expert ids and weights",
}
"""Why there is no adapter for some packages, by the name that it would have."""


def registered() -> dict[str, str]:
    """Return where each registered adapter lives, by name: shipped, then entry points."""
    return _registered_of(FAMILIES)


def ranked() -> dict[str, str]:
    """Return where each adapter of one rank lives, by name."""
    return _members(ON_RANKS)


def _registered_of(families: Mapping[str, str]) -> dict[str, str]:
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**found, **SHIPPED, **_members(families)}


def _members(families: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{family}:{name}": f"{module}:{name}"
        for family, module in families.items()
        for name in importlib.import_module(module).MEMBERS
    }


def _that_may_have(reference: str, families: Mapping[str, str]) -> dict[str, str]:
    """Return the families that ``reference`` can be of, so that no other module is imported.

    All modules together take as long as NumPy, in every process that looks for an adapter.
    """
    family = reference.partition(":")[0]
    own = {family: families[family]} if family in families else {}
    return dict(families) if set(family) & set("*?[") else own


def out_of_scope() -> dict[str, str]:
    """Return why there is no adapter for some routers, by the name that it would have."""
    members = {
        f"{family}:{name}": reason
        for family, module in FAMILIES.items()
        for name, reason in importlib.import_module(module).OUT_OF_SCOPE.items()
    }
    return {**members, **UNSERVED}


def expand(reference: str, *, device: str = "cpu") -> list[str]:
    """Return the references that ``reference`` stands for: a family's members, a glob's matches.

    Kernels that need a GPU are left out on a CPU, unless there is nothing else. Any other
    reference is returned as it is, whether or not there is such an adapter.
    """
    pattern = f"{reference}:*" if reference in {**FAMILIES, **ON_RANKS} else reference
    known = _registered_of(_that_may_have(pattern, FAMILIES))
    ranks = partial(_members, _that_may_have(pattern, ON_RANKS))
    found = fnmatch.filter(known, pattern) or fnmatch.filter(ranks(), pattern)
    every = len(found) == 1 or device != "cpu"
    able = found if every else [each for each in found if not needs_gpu(each)]
    return able or found or _plugged_in(reference) or [reference]


def needs_gpu(reference: str) -> bool:
    """Return whether a registered adapter runs a kernel that no CPU can run."""
    family, _, member = reference.partition(":")
    return reference in NEED_GPU or member in (_of_family(family, "NEEDS_GPU") or ())


def _plugged_in(reference: str) -> list[str]:
    """Return what a glob stands for among a family's plug-ins."""
    family, _, member = reference.partition(":")
    matching = _of_family(family, "matching")
    return [f"{family}:{each}" for each in matching(member)] if matching else []


def _of_family(family: str, name: str) -> Any:
    """Return what a family's module itself has by ``name``, or None where there is neither.

    Asked for any other attribute, some of these modules make an adapter of that name.
    """
    module = FAMILIES.get(family)
    return None if module is None else vars(importlib.import_module(module)).get(name)


def is_shipped(reference: str) -> bool:
    """Return whether ``reference`` names an adapter of this distribution.

    Errors: ``AdapterError``.
    """
    return f"{find_adapter(reference)[0]}.".startswith(f"{__package__}.")


def shipped_known() -> list[Path]:
    """Return the known-divergences files of the shipped adapters."""
    return sorted((Path(__file__).parent / "known").glob("*.toml"))


def load_adapter(reference: str, *, device: str = "cpu") -> Adapter:
    """Return the adapter that ``reference`` names.

    ``reference`` is a registered name, ``package.module:attribute``,
    ``path/to/file.py:attribute`` or ``process:command``. The attribute is an adapter, or a
    class or function that makes one; one that takes ``device`` is given it. A file can
    import the other modules in its folder. Errors: ``AdapterError``, in one line.
    """
    location, attribute = find_adapter(reference)
    if location == PROCESS:
        made = partial(ProcessAdapter, shlex.split(attribute))
        return adapter_of(made, reference, device=device)
    return adapter_of(attribute_of(location, attribute), reference, device=device)


def load_rank(reference: str, *, device: str = "cpu") -> Adapter:
    """Return the adapter of one rank that ``reference`` names. Errors: as ``load_adapter``."""
    location, attribute = find_adapter(reference)
    if location == PROCESS:
        raise AdapterError(f"{reference} cannot run on ranks: it is a process of its own")
    return adapter_of(attribute_of(location, attribute), reference, device=device, of_rank=True)


def load_registered(name: str, where: str) -> Adapter:
    """Return an adapter of ``registered``, without looking for its name among all of them again.

    Errors: ``AdapterError``, in one line.
    """
    location, _, attribute = where.rpartition(":")
    return adapter_of(attribute_of(location, attribute), name)


def find_adapter(reference: str) -> tuple[str, str]:
    """Return the module or file that ``reference`` names, and the attribute, without importing.

    Errors: ``AdapterError`` for a name that is not registered, or a file that does not exist.
    """
    if reference in UNSERVED:
        raise AdapterError(f"{reference} is out of scope: {UNSERVED[reference]}")
    family, _, member = reference.partition(":")
    if family == PROCESS:
        return family, _command(member)
    ranks = _members(_that_may_have(reference, ON_RANKS))
    known = {**_registered_of(_that_may_have(reference, FAMILIES)), **ranks}
    if family in ON_RANKS and reference not in known:
        lacks = importlib.import_module(ON_RANKS[family]).OUT_OF_SCOPE.get(member)
        words = f"{reference} is out of scope: {lacks}" if lacks else ""
        listed = ", ".join(ranked())
        raise AdapterError(words or f"Unknown adapter {reference!r}: there are {listed}")
    if family in FAMILIES and reference not in known:
        finds = _of_family(family, "finds")
        if finds is None or not finds(member):
            raise AdapterError(_no_member(family, member))
        return FAMILIES[family], member
    location, _, attribute = known.get(reference, reference).rpartition(":")
    is_file = location.endswith(".py")
    found = is_file or reference in known or _may_be_module(location)
    if not attribute or not location or not found:
        raise AdapterError(_unknown(reference))
    if is_file and not Path(location).is_file():
        near = files_like(location)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AdapterError(
            f"Cannot find the adapter file {location}; looked from {Path.cwd()}{hint}"
        )
    return location, attribute


def _may_be_module(location: str) -> bool:
    return not location.startswith(".") and not set("/\\:") & set(location)


def _command(command: str) -> str:
    """Return ``command`` if its program exists and can be run. Errors: ``AdapterError``."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise AdapterError(f"Cannot read the command of process:{command}: {error}") from error
    if not words:
        raise AdapterError(f"{PROCESS}: names no command; write, for example, {PROCESS}:./router")
    if shutil.which(words[0]) is None:
        if Path(words[0]).is_file():
            raise AdapterError(f"Cannot start {words[0]}: not executable; run chmod +x {words[0]}")
        raise AdapterError(f"Cannot find the command {words[0]}; looked from {Path.cwd()}")
    return command


def _no_member(family: str, name: str) -> str:
    module, reference = importlib.import_module(FAMILIES[family]), f"{family}:{name}"
    if name in module.OUT_OF_SCOPE:
        return f"{reference} is out of scope: {module.OUT_OF_SCOPE[name]}"
    near = difflib.get_close_matches(name, module.MEMBERS, n=3) or module.MEMBERS[:3]
    return (
        f"Unknown adapter {reference!r}: {family} stands for {len(module.MEMBERS)} adapters, "
        f"{', '.join(f'{family}:{each}' for each in near)} among them"
    )


def _unknown(reference: str) -> str:
    if near := adapters_like(reference):
        return f"Unknown adapter {reference!r}: did you mean {' or '.join(near)}?"
    known = sorted({name.partition(":")[0] for name in registered()})
    near = difflib.get_close_matches(reference, known, n=1)
    hint = f": did you mean {near[0]}?" if near else "."
    return (
        f"Unknown adapter {reference!r}{hint} `moe-routing adapters` lists all; others are "
        "package.module:attribute, path/to/file.py:attribute or process:command"
    )
