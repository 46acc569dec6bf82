"""What an adapter says where its backend is missing, needs a GPU, or was lost in a call."""

from __future__ import annotations

from typing import Any, Literal


class BackendMissing(ImportError):
    """The wrapped package is not installed; the message holds the command that installs it."""


def require_gpu(name: str, device: str) -> None:
    """Raise ``BackendMissing`` for a kernel that is called on a CPU."""
    if device == "cpu":
        raise BackendMissing(f"{name} is a kernel that needs a GPU: add --device cuda")


def require_device(device: str) -> None:
    """Raise ``BackendMissing`` for a GPU that torch does not have."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendMissing(
            f"--device {device} needs a GPU that torch {torch.__version__} can use, and there is "
            "none: leave out --device, or install a torch that has your GPU"
        )


Lost = Literal["crash", "timeout", "error"]
"""The verdict on a call in which a backend was lost."""


class BackendLost(Exception):
    """A backend in another process has ended, or violated its protocol.

    ``status`` is the verdict on the call: ``crash``, ``timeout`` or ``error``; ``costly`` says
    that another such call costs seconds, so that few are made to find a smaller case.
    """

    def __init__(self, message: str, status: Lost = "error", *, costly: bool = False) -> None:
        super().__init__(message)
        self.status: Lost = status
        self.costly = costly

    def __reduce__(self) -> tuple[Any, ...]:
        return BackendLost, (str(self), self.status)


def missing(package: str, root: str, error: ModuleNotFoundError, install: str) -> BackendMissing:
    """Return what to raise after a failed import of ``package``, whose top module is ``root``."""
    lacking = (error.name or "a module").partition(".")[0]
    if lacking == root:
        return BackendMissing(f"{package} is not installed: {install}")
    return BackendMissing(f"{package} needs {lacking}, which is missing: {install}")
