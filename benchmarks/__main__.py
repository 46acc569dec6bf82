"""Run the benchmarks and write what they measured into a folder: JSON, and the page's tables.

``python benchmarks docs`` measures the CPU, ``python benchmarks docs --device cuda`` the
backends on a GPU. Further options are pytest's. ``docs/performance.md`` says how to read it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_page import measured, write_page

HERE = Path(__file__).parent
QUICK = ("--benchmark-max-time=0.3", "--benchmark-min-rounds=3")


def main() -> int:
    """Run, write, and return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("folder", type=Path, help="where performance.md and its JSON are written")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments, options = parser.parse_known_args()
    on_gpu = [str(HERE / "test_backends.py")]
    files = on_gpu if arguments.device == "cuda" else sorted(map(str, HERE.glob("test_*.py")))
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw.json")
        command = [sys.executable, "-m", "pytest", *files, f"--benchmark-json={raw}", *QUICK]
        code = subprocess.call([*command, f"--device={arguments.device}", *options])
        if raw.exists() and raw.stat().st_size:  # of what failed, the other rows are left
            _write(arguments, json.loads(raw.read_text(encoding="utf-8")))
    return code


def _write(arguments: argparse.Namespace, raw: dict) -> None:
    name = "performance.json" if arguments.device == "cpu" else "performance-gpu.json"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(measured(raw), indent=1) + "\n"
    (arguments.folder / name).write_text(text, encoding="utf-8")
    write_page(arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
