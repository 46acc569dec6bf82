"""Run the benchmarks and write what they measured into a folder: JSON, and the page's tables.

``python benchmarks docs`` measures the CPU, ``python benchmarks docs --device cuda`` the
backends on a GPU, and with ``--kernels`` the kernels that need one. ``--jobs N`` shares the
benchmarks out to N processes, each on a core of its own. Interrupted, it writes what it has.
Further options are pytest's. ``docs/performance.md`` says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_page import measured, of_all, write_page

HERE = Path(__file__).parent
QUICK = ("--benchmark-max-time=0.3", "--benchmark-min-rounds=3")
NAMES = {"cpu": "performance.json", "cuda": "performance-gpu.json"}
KERNELS = "performance-kernels.json"

_NOTHING = 5  # pytest's exit code where a share has no benchmarks


def main() -> int:
    """Run, write, and return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("folder", type=Path, help="where performance.md and its JSON are written")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--kernels", action="store_true", help="time kernels that need a GPU")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    arguments, options = parser.parse_known_args()
    most = len(cores())
    if not 1 <= arguments.jobs <= most:
        parser.error(f"Expected --jobs from 1 to {most}, the cores here, but got {arguments.jobs}")
    if arguments.kernels and arguments.device == "cpu":
        parser.error("Expected --device cuda with --kernels: they run on a GPU alone")
    if arguments.device == "cuda" and (lacks := no_gpu()):
        parser.error(f"--device cuda needs a GPU that {lacks}")
    with tempfile.TemporaryDirectory() as folder:
        codes = run(arguments, options, Path(folder))
        found = [json.loads(each.read_text("utf-8")) for each in saved(Path(folder))]
        if found:  # of what failed, the other rows are left
            write(arguments, of_all(found))
    return max(codes - {_NOTHING}, default=_NOTHING)


def run(arguments: argparse.Namespace, options: list[str], folder: Path) -> set[int]:
    """Run every benchmark, each in one of the processes, and return their exit codes."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *files(arguments),
        *QUICK,
        f"--device={arguments.device}",
    ]
    command += ["--kernels"] * arguments.kernels + [f"--turns={folder / 'turns'}"]
    started = []
    for k in range(arguments.jobs):
        share = [f"--share={k}/{arguments.jobs}", f"--benchmark-json={folder / f'{k}.json'}"]
        with (folder / f"{k}.txt").open("w") as said:  # that of the first is shown as it comes
            one = subprocess.Popen([*command, *share, *options], stdout=said if k else None)
        if arguments.jobs > 1:
            pin(one.pid, k)
        started.append(one)
    try:
        codes = [each.wait() for each in started]
    except KeyboardInterrupt:  # which ends them as well: what was measured is kept
        codes = [each.wait() for each in started]
    for k, code in enumerate(codes):
        if k and code not in (0, _NOTHING):
            print((folder / f"{k}.txt").read_text("utf-8"), end="")
    return set(codes)


def files(arguments: argparse.Namespace) -> list[str]:
    """Return the files of what is timed there."""
    if arguments.device == "cpu":
        return sorted(map(str, HERE.glob("test_*.py")))
    names = ["test_backends.py"] + ["test_large_calls.py"] * (not arguments.kernels)
    return [str(HERE / each) for each in names]


def no_gpu() -> str:
    """Return what has no GPU here, or nothing where torch has one."""
    import torch

    if torch.cuda.is_available():
        return ""
    return f"torch {torch.__version__} can use, and there is none"


def cores() -> list[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(process: int, k: int) -> None:
    """Have a process run on the k-th core alone, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, {cores()[k]})


def saved(folder: Path) -> list[Path]:
    """Return what the processes wrote, in their order; one that found nothing wrote nothing."""
    found = [each for each in folder.glob("*.json") if each.stat().st_size]
    return sorted(found, key=lambda path: int(path.stem))


def write(arguments: argparse.Namespace, raw: dict[str, Any]) -> None:
    """Write the numbers, and the page with their tables."""
    name = KERNELS if arguments.kernels else NAMES[arguments.device]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    raw["environment"]["cpus"] = len(cores())
    text = json.dumps(measured(raw), indent=1) + "\n"
    (arguments.folder / name).write_text(text, encoding="utf-8")
    write_page(arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
