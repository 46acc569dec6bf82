"""The table of backends: its words, its command, and the page that is committed."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.cli import main
from moe_routing.conformance.report.backends import Backend, backends_table, supports_in_words
from moe_routing.conformance.report.claim_words import (
    capabilities_in_words,
    claim_in_words,
    computes_in_words,
    limits_in_words,
    permutes_in_words,
    takes_in_words,
)
from moe_routing.implementations import (
    ANY,
    Capabilities,
    Claim,
    Computes,
    GroupRule,
    Limits,
    Numerics,
    Permutes,
    load_adapter,
    out_of_scope,
    registered,
)
from moe_routing.implementations.protocol import offered
from moe_routing.implementations.registry import FAMILIES, SHIPPED, needs_gpu
from moe_routing.reference import Renormalize

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
ABSENT = ("logit_softcap", "logit_multiplier", "input_norm", "gate_bias", "gate_delta")
PLAIN: dict[str, Any] = {
    **dict.fromkeys((*ABSENT, "per_expert_scale", "expert_table"), (False,)),
    "score": ("softmax",),
    "weights_from": ("scores",),
    "groups": (None,),
    "renormalize": (None,),
    "scale": (1.0,),
    "selection_bias": ("none",),
    "logits_dtype": ("float32",),
    "scores_dtype": ("float32",),
    "weights_dtype": ("float32",),
}


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({}, "softmax, not renormalised"),
        ({"renormalize": (Renormalize(), None)}, "softmax, renormalised or not"),
        ({"renormalize": ANY}, "softmax, any norm"),
        ({"renormalize": (Renormalize(eps=1e-20),)}, "softmax, renormalised + 1e-20"),
        ({"renormalize": (Renormalize(floor=1e-12),)}, "softmax, renormalised, at least 1e-12"),
        ({"renormalize": (Renormalize(order=2.0),)}, "softmax, renormalised by the 2-norm"),
        ({"scale": ANY}, "softmax, not renormalised, scaled"),
        ({"selection_bias": ("gate",)}, "softmax, bias on the gate, not renormalised"),
        (
            {"selection_bias": ("none", "gate")},
            "softmax, bias on the gate or none, not renormalised",
        ),
        (
            {"selection_bias": ("none", "gate", "block", "statics")},
            "softmax, bias on the gate, block or statics or none, not renormalised",
        ),
        (
            {"groups": (GroupRule(top=(2,), fill=(-math.inf,)), None)},
            "softmax, groups (best 2, fill -inf) or none, not renormalised",
        ),
        ({"weights_from": ("masked_scores",)}, "masked softmax, not renormalised"),
        (
            {"score": ("identity",), "weights_from": ("softmax_of_selected",)},
            "softmax of the selected logits",
        ),
        ({"gate_bias": (False, True)}, "softmax, not renormalised, linear bias or none"),
        ({"logit_softcap": (True,)}, "softmax, not renormalised, soft cap"),
        (
            {"logits_dtype": ("input",), "weights_dtype": ("input",)},
            "softmax, not renormalised, logits and weights in the input's dtype",
        ),
        ({"top_k": (1,)}, "softmax, not renormalised, K = 1"),
        ({"top_k": (1, 2)}, "softmax, not renormalised, K = 1 or 2"),
        ({"top_k": range(2, 9)}, "softmax, not renormalised, K = 2 to 8"),
        ({"top_k": range(2, sys.maxsize)}, "softmax, not renormalised, K from 2 on"),
    ],
)
def test_a_claim_is_described_in_words(axes: dict[str, Any], words: str) -> None:
    assert claim_in_words(Claim(**{**PLAIN, **axes})) == words


def test_capabilities_are_described_claim_by_claim() -> None:
    assert capabilities_in_words(Capabilities()) == "the whole specification"
    two = (Claim(**PLAIN), Claim(**PLAIN), Claim(**{**PLAIN, "scale": ANY}))
    described = capabilities_in_words(Capabilities(claims=two))
    assert described == "softmax, not renormalised; or softmax, not renormalised, scaled"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "hidden states in float32, bfloat16 or float16"),
        ({"takes": "logits", "dtypes": ("float32",)}, "logits in float32"),
        ({"dtypes": ()}, "hidden states in no dtype"),
        (
            {"layouts": ("contiguous",), "dtypes": ("float32",)},
            "hidden states in float32, contiguous",
        ),
        (
            {"dtypes": ("float32", "bfloat16"), "numerics": Numerics(multiply="tf32")},
            "hidden states in float32 or bfloat16, multiply='tf32'",
        ),
    ],
)
def test_what_a_backend_takes_is_described_in_words(settings: dict[str, Any], words: str) -> None:
    assert takes_in_words(Capabilities(**settings)) == words


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({}, "any"),
        ({"max_top_k": 1}, "K at most 1"),
        ({"max_experts": 256, "max_tokens": 65536}, "E at most 256, T at most 65,536"),
        ({"experts_multiple_of": 8}, "E a multiple of 8"),
        ({"experts": (8, 16), "top_k": range(2, 99, 2)}, "E one of 8 or 16, K one of 2, 4 ... 98"),
        ({"min_tokens": 4, "min_group_size": 2}, "T at least 4, at least 2 experts a group"),
        (
            {"max_groups": 8, "max_kept_groups": 4, "max_group_size": 32, "max_kept_experts": 128},
            "at most 8 groups, at most 4 groups kept, at most 32 experts a group, "
            "at most 128 experts in kept groups",
        ),
    ],
)
def test_limits_are_described_in_words(sizes: dict[str, int], words: str) -> None:
    assert limits_in_words(Limits(**sizes)) == words


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        (
            {"activations": ("silu",), "gated": (True,), "biases": (False,), "absent": (False,)},
            "gated, silu, weight on the output or input",
        ),
        (
            {
                "activations": ("clamped-swiglu",),
                "gated": (True,),
                "weight_on": ("output",),
                "limits": (7.0,),
                "alphas": (1.702, 1.0),
            },
            "gated, clamped-swiglu, limit 7, alpha 1.702 or 1, biases or none, absent routes",
        ),
        (
            {
                "activations": ("silu", "gelu", "relu"),
                "weight_on": ("output",),
                "repeats": (False,),
                "hidden_multiple_of": 8,
                "max_tokens": 64,
                "products": "tf32",
            },
            "silu, gelu or relu, biases or none, absent routes, no repeated experts, "
            "H a multiple of 8, T at most 64, tf32",
        ),
    ],
)
def test_experts_are_described_in_words(claims: dict[str, Any], words: str) -> None:
    assert computes_in_words(Computes(**claims)) == words


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, "stable, rows aligned, absent routes"),
        ({"align": (1,), "order": ("free",), "absent": (False,)}, "in any order"),
        (
            {"align": (16, 128), "empty_takes": ("align",), "repeats": (False,)},
            "stable, rows aligned to 16 or 128, a block for an empty expert, absent routes, "
            "no repeated experts",
        ),
    ],
)
def test_a_permutation_is_described_in_words(claims: dict[str, Any], words: str) -> None:
    assert permutes_in_words(Permutes(**claims)) == words


def test_what_was_checked_is_what_a_backend_wraps(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    made["adapters"][0]["wraps"] = {"package": "router", "version": "1.0"}
    checked, other = (
        Backend(name=name, wraps="router 2.0", capabilities=Capabilities())
        for name in ("reference", "other")
    )
    page = backends_table([checked, other], [made], {})
    assert "| `reference` | router 1.0 |" in page
    assert "| `other` | router 2.0 |" in page


def report(tmp_path: Path, **clauses: tuple[str, str]) -> Path:
    path = tmp_path / "report.json"
    arguments = ["check", "reference", "--max-examples", "1", "--clause", "weights.dtype"]
    assert main([*arguments, "--json", str(path), "--cases", str(tmp_path)]) == 0
    return path


def test_the_command_writes_the_table_with_the_conformance_of_a_report(tmp_path: Path) -> None:
    page = tmp_path / "made" / "backends.md"
    path = report(tmp_path)
    assert main(["adapters", "reference", "--markdown", str(page), "--report", str(path)]) == 0
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert row.startswith("| `reference` | moe-routing-conformance ")
    supports = "hidden states in float32, bfloat16 or float16 | any | the whole specification"
    assert f"| {supports} | stable, rows aligned, absent routes | silu, gelu, " in row
    assert row.endswith(" | 1 pass |  |  |  |")


def test_known_divergences_are_named_and_linked(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    (clause,) = made["adapters"][0]["clauses"]
    other = {**clause, "status": "known", "message": "a-bug; another"}
    made["adapters"][0]["clauses"] = [clause, other]
    row = Backend(name="reference", wraps="", capabilities=Capabilities())
    page = backends_table([row], [made], {"my:other": "it drops tokens"})
    links = "[a-bug](findings.md#a-bug), [another](findings.md#another)"
    assert f"| 1 pass, 1 known: {links} |" in page
    assert "- `my:other`: it drops tokens\n" in page


def test_each_part_of_the_specification_has_a_column(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    (clause,) = made["adapters"][0]["clauses"]
    sorts = {**clause, "id": "permutation.grouped", "chapter": "permutation", "status": "known"}
    made["adapters"][0]["clauses"] = [clause, {**sorts, "message": "a-bug"}]
    row = Backend(name="reference", wraps="", capabilities=Capabilities(), methods=("permute",))
    page = backends_table([row], [made], {})
    permutes = "stable, rows aligned, absent routes"
    assert (
        f"|  |  |  | {permutes} |  | 1 pass | 1 known: [a-bug](findings.md#a-bug) |  |  |" in page
    )


def test_each_device_has_a_column(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    on_cuda = {**made, "adapters": [{**made["adapters"][0], "device": "cuda"}]}
    row = Backend(name="reference", wraps="", capabilities=Capabilities())
    page = backends_table([row], [made, on_cuda], {})
    declared = "adapter | wraps | takes | sizes | claims | permutes | runs"
    assert f"| {declared} | routing | permutation | experts | training | on cuda |" in page
    assert page.count("| 1 pass |  |  |  | 1 pass |") == 1
    assert ", on cpu" in page
    assert ", on cuda" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("adapters nothing-like-it*", "No adapter matches nothing-like-it*"),
        ("adapters --report x.json", "--report requires --markdown"),
        ("adapters --keep", "--keep requires --markdown"),
    ],
)
def test_what_cannot_be_listed_exits_2(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (None, "it is not there"),
        (b"# Notes\n", "it has no table of backends"),
        (b"\xff\xfe\x00", "it has no table of backends"),
    ],
)
def test_what_cannot_be_kept_exits_2_and_is_left_as_it_is(
    page: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "page.md"
    if page is not None:
        file.parent.mkdir()
        file.write_bytes(page)
    assert main(["adapters", "reference", "--markdown", str(file), "--keep"]) == 2
    said = f"Cannot keep what --markdown {file} has: {words}; leave out --keep, or name the page"
    assert said in capsys.readouterr().err
    assert file.read_bytes() == page if page else not file.parent.exists()


COMPLETE = (
    *("experts", "litgpt", "nemo-automodel", "lmdeploy", "ibm-fms", "drops"),
    *("llm-compressor", "keras-hub", "transformer-engine"),
)
"""The families that leave out nothing: the first where a GPU and its kernels are."""


def test_the_listing_gives_the_reason_where_there_is_no_adapter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for family in FAMILIES:
        left_out = [each for each in out_of_scope().items() if each[0].startswith(family)]
        if not left_out and family in COMPLETE:
            continue
        name, reason = left_out[0]
        assert main(["adapters", name]) == 0
        assert f"out of scope: {name}: {reason}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
class TestPage:
    ROWS = re.findall(
        r"^\| `(.+?)` " + r"\| (.*?) " * 11 + r"\|$",
        PAGE.read_text() if PAGE.is_file() else "",
        re.M,
    )

    def test_lists_every_shipped_adapter_with_what_it_supports(self) -> None:
        shipped = [n for n in registered() if n in SHIPPED or n.partition(":")[0] in FAMILIES]
        assert [name for name, *_ in self.ROWS] == shipped
        for name, wraps, *supports, _, _, _, _, _ in self.ROWS:
            adapter = load_adapter(name)
            capabilities, methods = adapter.capabilities(), offered(adapter)
            backend = Backend(name=name, wraps=wraps, capabilities=capabilities, methods=methods)
            assert [wraps, *supports] == supports_in_words(backend), name

    def test_shows_each_as_pass_or_known_and_none_missing(self) -> None:
        for name, *_, routing, permutation, experts, training, on_cuda in self.ROWS:
            methods = offered(load_adapter(name))
            cells = {
                ("route",): routing,
                ("permute",): permutation,
                ("experts", "layer", "shard"): experts,
                ("drop", "balance"): training,
            }
            on_cpu = not needs_gpu(name)
            for of, cell in cells.items():
                counted = re.fullmatch(
                    r"\d+ pass(, \d+ known: \[.*\))?( \(smoke\))?( \(with .*\))?", cell
                )
                assert counted if on_cpu and {*of} & {*methods} else not cell, (name, of)
            assert re.fullmatch(
                r"(\d+ pass(, \d+ known)?( \(smoke\))?( \(with .*\))?)?", on_cuda
            ), name
            assert on_cpu or on_cuda, name

    def test_gives_every_reason(self) -> None:
        for name, reason in out_of_scope().items():
            assert f"- `{name}`: {reason}\n" in PAGE.read_text()


def test_a_clause_without_a_chapter_has_that_of_its_id(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    row = Backend(name="reference", wraps="", capabilities=Capabilities())
    page = backends_table([row], [made], {})
    del made["adapters"][0]["clauses"][0]["chapter"]
    assert backends_table([row], [made], {}) == page


def test_a_page_keeps_what_no_report_has(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    (adapter,) = made["adapters"]
    backends = [Backend(name=n, wraps="", capabilities=Capabilities()) for n in ("mine", "other")]
    mine, other = ({**made, "adapters": [{**adapter, "name": n}]} for n in ("mine", "other"))
    page = backends_table(backends, [mine, other], {})
    other["profile"] = "smoke"
    other["adapters"][0]["clauses"] = adapter["clauses"] * 2
    again = backends_table(backends, [other], {}, kept=page)
    rows = {line.split("`")[1]: line for line in again.splitlines() if line.startswith("| `")}
    assert rows["mine"].endswith(" | 1 pass |  |  |  |")
    assert rows["other"].endswith(" | 2 pass (smoke) |  |  |  |")
    assert [line for line in again.splitlines() if line in page and "Checked" in line]


def test_a_page_keeps_what_another_device_showed_and_versions_that_are_not_here(
    tmp_path: Path,
) -> None:
    made = json.loads(report(tmp_path).read_text())
    (adapter,) = made["adapters"]
    adapter |= {"name": "mine", "wraps": {"package": "theirs", "version": "1.2"}}
    page = backends_table([_theirs("theirs 1.2")], [made], {})
    on_gpu = {**made, "adapters": [{**adapter, "device": "cuda"}]}
    again = backends_table([_theirs("theirs")], [on_gpu], {}, kept=page)
    assert _cells(again)["routing"] == "1 pass"
    assert _cells(again)["on cuda"] == "1 pass"
    later = backends_table([_theirs("theirs")], [], {}, kept=again)
    assert _cells(later) == _cells(again)
    assert _cells(later)["wraps"] == "theirs 1.2"


def test_a_page_keeps_the_row_of_another_version_than_the_installed_one(tmp_path: Path) -> None:
    made = json.loads(report(tmp_path).read_text())
    (adapter,) = made["adapters"]
    adapter |= {"name": "mine", "wraps": {"package": "theirs", "version": "1.3"}}
    page = backends_table([_theirs("theirs 1.3")], [made], {})
    older = Backend(name="mine", wraps="theirs 1.2", capabilities=Capabilities(), methods=())
    assert backends_table([older], [], {}, kept=page) == page, "1.2 was not measured"
    adapter["wraps"]["version"] = "1.2"
    measured = backends_table([older], [made], {}, kept=page)
    assert _cells(measured)["wraps"] == "theirs 1.2"
    assert not _cells(measured)["takes"], "1.2 routes nothing"
    narrow = "| adapter | wraps | routing |\n|---|---|---|\n| `mine` | theirs 1.3 | 1 pass |\n"
    assert _cells(backends_table([older], [], {}, kept=narrow))["wraps"] == "theirs 1.3"
    renamed = _theirs("ours 1.3")
    assert _cells(backends_table([renamed], [], {}, kept=page))["wraps"] == "ours 1.3"


def test_a_kept_cell_names_its_version_where_its_row_was_measured_with_another(
    tmp_path: Path,
) -> None:
    made = json.loads(report(tmp_path).read_text())
    (adapter,) = made["adapters"]
    adapter |= {"name": "mine", "wraps": {"package": "theirs", "version": "1.2"}}
    page = backends_table([_theirs("theirs 1.3")], [made], {})
    newer = {**adapter, "device": "cuda", "wraps": {"package": "theirs", "version": "1.3"}}
    on_gpu = {**made, "adapters": [newer]}
    mixed = backends_table([_theirs("theirs 1.3")], [on_gpu], {}, kept=page)
    expected = {"wraps": "theirs 1.3", "routing": "1 pass (with theirs 1.2)", "on cuda": "1 pass"}
    assert _cells(mixed).items() >= expected.items()
    assert backends_table([_theirs("theirs 1.3")], [on_gpu], {}, kept=mixed) == mixed
    adapter["wraps"]["version"] = "1.3"
    whole = backends_table([_theirs("theirs 1.3")], [made], {}, kept=mixed)
    assert _cells(whole).items() >= {**expected, "routing": "1 pass"}.items()


def _theirs(wraps: str) -> Backend:
    return Backend(name="mine", wraps=wraps, capabilities=Capabilities())


def _cells(page: str) -> dict[str, str]:
    """The cells of the page's one row, by head."""
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    return dict(zip(*[[cell.strip() for cell in line] for line in lines[:2]], strict=True))
