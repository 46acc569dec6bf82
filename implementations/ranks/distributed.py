"""Joining torch.distributed: gloo on a CPU, NCCL on GPUs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_routing.implementations.protocol import missing


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where the ranks of a group meet: a file of one machine, or a store of a launcher's.

    ``path`` is the file; where it is empty, ``host`` and ``port`` are the store's, and ``prefix``
    keeps its keys apart from those of groups before.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""


def preload() -> None:
    """Import what every rank needs, so that forks of this process have it. Errors: ``ImportError``.

    Errors: ``BackendMissing`` where torch is not installed.
    """
    try:
        import torch.distributed
        import torch.fx.experimental.symbolic_shapes  # which a first backward pass imports
    except ModuleNotFoundError as error:
        raise missing("torch", "torch", error, "python -m pip install torch") from error
    if not torch.distributed.is_available():
        raise missing(
            "torch with distributed",
            "torch",
            ModuleNotFoundError(name="torch"),
            "python -m pip install torch",
        )


def join(meeting: Meeting, rank: int, size: int, device: str) -> None:
    """Make this process a rank of the default group of ``size``, with the launcher's variables."""
    import torch
    from torch import distributed as dist

    local = os.environ.get("LOCAL_RANK", str(rank))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=local)
    if meeting.path:
        os.environ.update(MASTER_ADDR="127.0.0.1", LOCAL_WORLD_SIZE=str(size))
        if sys.platform == "linux" and Path("/sys/class/net/lo").exists():
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # names of hosts may not resolve
    backend = "gloo"
    if device != "cpu":
        backend = f"cpu:gloo,{device}:nccl"
        if int(local) >= (count := torch.cuda.device_count()):
            raise RuntimeError(f"it needs a GPU of its own, cuda:{local}, and there are {count}")
        torch.cuda.set_device(int(local))
    torch.set_num_threads(1)
    dist.init_process_group(backend, store=_store(meeting, size), rank=rank, world_size=size)


def _store(meeting: Meeting, size: int) -> Any:
    import torch

    dist: Any = torch.distributed
    if meeting.path:
        return dist.FileStore(meeting.path, size)
    return dist.PrefixStore(meeting.prefix, dist.TCPStore(meeting.host, meeting.port, size, False))
