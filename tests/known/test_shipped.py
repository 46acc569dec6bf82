"""The shipped known divergences: each is still there, where it is listed and only there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from moe_routing.conformance import Divergence, Plan, load_known, select_clauses
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import facts_of, kind_of, trial_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.checking.region_width import width
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.implementations import (
    Adapter,
    Capabilities,
    expand,
    is_shipped,
    load_adapter,
    registered,
    shipped_known,
)
from moe_routing.implementations.protocol import offers
from moe_routing.implementations.registry import needs_gpu
from moe_routing.reference import RouterInputs

ON_RANKS = ("ep",)
"""The lists about adapters of one rank: ``tests/ranks/test_expert_parallel.py`` holds these."""

LISTS = {path.stem: load_known(path) for path in shipped_known() if path.stem not in ON_RANKS}
SHIPPED = [entry for entries in LISTS.values() for entry in entries]
WHOLE = ("reference", "torch")
BACKENDS = {
    "axolotl": ("scattermoe", "sonicmoe"),
    "transformers": tuple(expand("transformers")),
    "megatron-core": ("megatron-core",),
    "torchtitan": ("torchtitan", "torchtitan-experts"),
    "deepspeed": tuple(expand("deepspeed")),
    "experts": tuple(expand("experts")),
    "axolotl-experts": ("scattermoe", "scattermoe@gpt_oss", "sonicmoe"),
    **{name: tuple(expand(name)) for name in ("mlx-lm", "vllm", "sglang", "litgpt")},
    "nemo-automodel": tuple(expand("nemo-automodel")),
    "lmdeploy": tuple(expand("lmdeploy:*")),
    **{
        name: tuple(expand(name))
        for name in ("optimum-habana", "llm-compressor", "unsloth-zoo", "mlx-vlm", "llama-models")
    },
    "exllamav3": tuple(expand("exllamav3:*")),
    "xtuner": ("xtuner",),
    "kernels": tuple(name for name in registered() if needs_gpu(name)),
    "easydel": tuple(expand("easydel:*")),
    **{name: tuple(expand(name)) for name in ("maxtext", "tpu-inference")},
}
"""The adapters that each list is about."""
NEEDS = {
    "axolotl": ("axolotl", "torch", "triton"),
    "transformers": ("transformers", "torch"),
    "megatron-core": ("megatron", "torch"),
    "torchtitan": ("torchtitan", "torch"),
    "deepspeed": ("deepspeed", "torch"),
    "experts": ("transformers", "torch"),
    "axolotl-experts": ("axolotl", "torch", "triton", "transformers"),
    "mlx-lm": ("mlx", "mlx_lm"),
    **{name: (name,) for name in ("vllm", "sglang", "litgpt", "lmdeploy")},
    "nemo-automodel": ("nemo_automodel",),
    "optimum-habana": ("optimum.habana",),
    "llm-compressor": ("llmcompressor",),
    "mlx-vlm": ("mlx", "mlx_vlm"),
    **{name: ("jax", name) for name in ("maxtext", "easydel")},
    "tpu-inference": ("jax", "tpu_inference"),
    **{
        name: (name.replace("-", "_"),)
        for name in ("unsloth-zoo", "llama-models", "exllamav3", "xtuner")
    },
    "kernels": ("flashinfer", "sglang", "vllm"),
}
"""The packages that they run."""

FAMILIES = ("transformers", "mlx-lm")
"""The lists about dozens of adapters, which their witnesses hold."""

WIDE = (
    "mlx-ragged-groups-answered",
    "llm-compressor-ragged-groups-answered",
    "mlx-bias-in-16-bits",
    "maxtext-bias-in-16-bits",
    "easydel-bias-unread",
    "vllm-softmax-in-input-dtype",
)
"""The entries whose region no predicate narrows: all groups are kept; values that round badly, or
that a bias happens not to move."""

MANY = 6
"""The most adapters of an entry on which the width of its region is measured."""

every_entry = pytest.mark.parametrize(
    ("stem", "known"),
    [(stem, entry) for stem, entries in LISTS.items() for entry in entries],
    ids=lambda value: value.id if isinstance(value, Divergence) else value,
)


def installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def need(stem: str) -> None:
    missing = [name for name in NEEDS[stem] if not installed(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    if stem == "kernels" and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is no GPU")
    if stem == "axolotl-experts" and not offers(adapter("scattermoe"), "experts"):
        pytest.skip("run with the newest axolotl and Triton's interpreter by test_axolotl_releases")


@cache
def adapter(name: str) -> Adapter:
    return load_adapter(name, device="cuda" if needs_gpu(name) else "cpu")


def claimed(known: Divergence, name: str) -> Iterator[AnyCase]:
    """The witnesses that an adapter claims, and can be called with."""
    if not hasattr(adapter(name), CLAUSES[known.clause].method):
        return
    for case in known.witnesses:
        if kind_of(case).claimed(case, adapter(name).capabilities()):
            yield case


def sampled(known: Divergence) -> list[str]:
    """The adapters of an entry, or, of many that do alike, the first of each witness."""
    if len(known.adapters) <= MANY:
        return list(known.adapters)
    users = [[n for n in known.adapters if case in claimed(known, n)] for case in known.witnesses]
    return list(dict.fromkeys(names[0] for names in users))


def breaks(known: Divergence, name: str, case: AnyCase) -> bool:
    clause = CLAUSES[known.clause]
    return evaluate(clause, trial_of(adapter(name), case, clause.method)).broken


def excuses(known: Divergence, name: str, case: AnyCase) -> bool:
    return name in known.adapters and known.covers(facts_of(case, Capabilities()), case)


class TestShippedLists:
    def test_there_are_some_and_their_ids_differ(self) -> None:
        assert set(LISTS) == set(BACKENDS)
        for entries in LISTS.values():
            ids = [known.id for known in entries]
            assert ids
            assert len(set(ids)) == len(ids), ids

    @every_entry
    def test_an_entry_is_about_its_own_witnesses(self, stem: str, known: Divergence) -> None:
        need(stem)
        assert set(known.adapters) <= set(BACKENDS[stem]), "adapters that are not shipped"
        assert known.link.startswith("https://")
        assert all(select_clauses([glob]) for glob in known.affects)
        for name in known.adapters:
            assert list(claimed(known, name)), f"{name} claims no witness"
        for case in known.witnesses:
            facts = facts_of(case, Capabilities())
            assert known.covers(facts, case), "a witness lies outside the region"
            users = [name for name in known.adapters if case in claimed(known, name)]
            assert users, "a witness that no listed adapter claims"

    @every_entry
    def test_an_entry_has_its_story(self, stem: str, known: Divergence) -> None:
        pages = sorted((Path(__file__).parents[2] / "docs" / "findings").glob("*.md"))
        if not pages:
            pytest.skip("the documentation is not here")
        story = f"\n## {known.id}\n\n- Clause: `{known.clause}`"
        told = [page.stem for page in pages if story in page.read_text()]
        assert told, f"docs/findings/ has no section {known.id}"

    @every_entry
    def test_a_witness_breaks_where_it_is_listed_and_nowhere_else(
        self, stem: str, known: Divergence
    ) -> None:
        need(stem)
        for name in (*BACKENDS[stem], *WHOLE):
            for case in claimed(known, name):
                broken, listed = breaks(known, name, case), name in known.adapters
                assert broken or not listed, f"{known.id} is gone from {name}: remove it"
                others = (
                    each for each in SHIPPED if each is not known and excuses(each, name, case)
                )
                assert listed or not broken or any(others), f"{name} does it as well: list it"

    @every_entry
    def test_no_region_is_wider_than_the_bug(self, stem: str, known: Divergence) -> None:
        need(stem)
        if known.id in WIDE:
            pytest.skip("its region cannot be said more narrowly")
        clause = CLAUSES[known.clause]
        plan = Plan(clauses=[clause], max_examples=PROFILES["ci"].max_examples, known=SHIPPED)
        for name in sampled(known):
            found = width(adapter(name), clause, plan, known)
            assert not found.too_wide, f"{name}: {found.finding(known)}"

    @pytest.mark.parametrize(
        ("stem", "name"),
        [(stem, name) for stem in BACKENDS if stem not in FAMILIES for name in BACKENDS[stem]],
    )
    def test_the_lists_make_their_clauses_known(self, stem: str, name: str) -> None:
        need(stem)
        for id_ in sorted({known.clause for known in LISTS[stem]}):
            plan = Plan(clauses=[CLAUSES[id_]], max_examples=3, known=SHIPPED)
            result = check_clause(adapter(name), CLAUSES[id_], plan)
            listed = any(known.clause == id_ and name in known.adapters for known in SHIPPED)
            affected = any(known.touches(name, id_) for known in SHIPPED)  # all of it, perhaps
            wanted = ("known",) if listed else ("pass", "unsupported", *["known"] * affected)
            assert result.status in wanted, f"{id_}: {result.status} {result.message}"


@pytest.mark.parametrize("seat", [[], ["--no-isolate"]], ids=["isolated", "in process"])
def test_another_adapter_of_the_same_name_is_not_measured_by_a_shipped_list(
    seat: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, (path,) = tmp_path / "mine.py", (p for p in shipped_known() if p.stem == "torchtitan")
    file.write_text(
        "from moe_routing.implementations.reference import ReferenceAdapter\n"
        "class Mine(ReferenceAdapter):\n"
        "    name = 'torchtitan'\n"
    )
    clauses = [f"--clause={clause}" for clause in {each.clause for each in LISTS[path.stem]}]
    check = ["check", f"{file}:Mine", "--max-examples=1", f"--cases={tmp_path}", *clauses, *seat]
    assert main(check) == 0
    assert "fixed" not in capsys.readouterr().out
    assert main([*check, f"--known={path}"]) == 1, "a list that is named should be heeded"
    assert "is gone: remove its entry" in capsys.readouterr().out


def test_the_shipped_lists_are_about_the_shipped_adapters() -> None:
    name = "moe_routing.implementations.torchtitan:TorchtitanAdapter"
    assert is_shipped("torchtitan")
    assert is_shipped("transformers:mixtral")
    assert is_shipped(name)
    assert not is_shipped("moe_routing.conformance.zoo:Adapter")
    assert not is_shipped("process:cat")


def test_given_logits_of_a_witness_are_those_that_its_gate_makes() -> None:
    """The reference computes them, and a backend that takes logits reads them."""
    for entry in SHIPPED:
        for case in entry.witnesses:
            given = getattr(case, "inputs", None)
            if not isinstance(given, RouterInputs) or given.logits is None:
                continue
            bias = 0 if given.gate_bias is None else given.gate_bias
            with np.errstate(invalid="ignore"):
                made = given.hidden @ given.gate_weight.T + bias
            np.testing.assert_array_equal(made, given.logits, err_msg=entry.id)
