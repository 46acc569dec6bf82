"""The scripts that measure: one line says what they cannot do, and ``--help`` measures nothing."""

from __future__ import annotations

from collections.abc import Callable

import bench_page
import device_judge
import fused_kernels
import gradient_cost
import gradient_table
import layer_ratios
import pytest
import ratios
import torch

MAINS: dict[str, Callable[[list[str]], object]] = {
    "bench_page": bench_page.main,
    "fused_kernels": fused_kernels.main,
    "gradient_cost": gradient_cost.main,
    "gradient_table": gradient_table.main,
    "layer_ratios": layer_ratios.main,
    "ratios": ratios.main,
    "device_judge": device_judge.main,
}


def told(name: str, *given: str) -> int:
    """Run a script with what is given, which ends it, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        MAINS[name]([*given])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("name", MAINS)
def test_help_says_what_is_measured(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(name, "--help") == 0
    assert f"python {'tests/helpers' if name == 'device_judge' else 'benchmarks'}/{name}.py" in (
        " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("ratios", ["mixtral"], "unrecognized arguments: mixtral"),
        ("layer_ratios", ["mixtral"], "unrecognized arguments: mixtral"),
        ("gradient_cost", ["soon"], "Expected seconds above 0, such as 2, but got 'soon'"),
        ("gradient_cost", ["nan"], "Expected seconds above 0, such as 2, but got 'nan'"),
        ("gradient_table", ["mixtrall"], "No row begins with 'mixtrall'; rows are qwen2_moe and"),
        ("gradient_table", ["dbrx", "x"], "No row begins with 'x'; rows are qwen2_moe and"),
        ("device_judge", ["ten", "0", "cpu"], "invalid int value: 'ten'"),
        ("device_judge", ["10"], "the following arguments are required: SEED, DEVICE"),
        ("bench_page", [], "the following arguments are required: FOLDER"),
        (
            "bench_page",
            ["no/folder"],
            "Expected a folder with performance*.json, but got no/folder",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(name, *given) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "given"), [("fused_kernels", []), ("device_judge", ["10", "0", "cuda"])]
)
def test_without_a_gpu_one_line_says_so(
    name: str,
    given: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert told(name, *given) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        f"It needs a GPU that torch {torch.__version__} can use, and there is none"
    )


def test_a_glob_that_no_kernel_has_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert told("fused_kernels", "vlm:*") == 2
    words = "No router matches 'vlm:*'; they are those of vllm, sglang, flashinfer, lmdeploy"
    assert words in capsys.readouterr().err
