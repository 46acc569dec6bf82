"""A backend in C in another process: it passes, and fails once one character is broken."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.cli import main
from moe_routing.implementations import ProcessAdapter, wire
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, route

DATA = Path(__file__).parents[1] / "data"
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
CONFIG = RouterConfig(num_experts=4, top_k=2, renormalize=Renormalize())

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc, gcc, clang) is here")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compiled(folder: Path, source: str) -> Path:
    (folder / "router.c").write_text(source)
    command = [COMPILER, "-O2", "-std=c11", "-o", "router", "router.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return folder / "router"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C router, compiled."""
    return compiled(tmp_path_factory.mktemp("c"), (DATA / "router.c").read_text())


def check(reference: str, *more: str) -> tuple[int, dict[str, Any]]:
    code = main(["check", reference, "--profile=smoke", "--json=report.json", *more])
    (adapter,) = json.loads(Path("report.json").read_text())["adapters"]
    return code, {each["id"]: each for each in adapter["clauses"]}


class TestInC:
    def test_passes_on_all_that_it_claims(self, router: Path) -> None:
        code, clauses = check(f"process:{router}")
        messages = {each["id"]: each["message"] for each in clauses.values()}
        assert code == 0, messages
        assert sum(each["status"] == "pass" for each in clauses.values()) == 31

    @pytest.mark.parametrize(
        ("right", "broken", "clause"),
        [
            ("logits[e] > logits[best]", "logits[e] < logits[best]", "selection.valid-top-k"),
            ("weights[k] /= sum", "weights[k] *= sum", "weights.match"),
            ("top_k > experts", "top_k < experts", "robustness.answers"),
            (
                '"\\"per_expert_scale\\":"',
                '"\\"per_expert_scald\\":"',
                "robustness.rejects-unclaimed",
            ),
        ],
    )
    def test_fails_once_one_character_is_broken(
        self, right: str, broken: str, clause: str, tmp_path: Path
    ) -> None:
        source = (DATA / "router.c").read_text()
        assert source.count(right) == 1
        compiled(tmp_path, source.replace(right, broken))
        code, clauses = check("process:./router", f"--clause={clause}")
        assert (code, clauses[clause]["status"]) == (1, "fail"), clauses[clause]["message"]
        assert main(["replay", clauses[clause]["case"], "process:./router"]) == 1

    def test_nine_digits_give_every_bit_of_a_float32_back(self, router: Path) -> None:
        logits = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        adapter = ProcessAdapter([str(router)])
        answer, wanted = (
            each(CONFIG, RouterInputs.from_logits(logits)) for each in (adapter.route, route)
        )
        np.testing.assert_array_equal(answer.expert_ids, wanted.expert_ids)
        assert answer.weights.dtype == np.float32
        np.testing.assert_array_equal(answer.weights, wanted.weights.astype(np.float32))
        adapter.close()


@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")
def test_the_page_of_the_protocol_shows_what_the_router_says(router: Path) -> None:
    page, _, _ = PAGE.read_text().partition("A backend that permutes")  # this router does not
    said = [x.strip() for x in page.splitlines() if x.startswith(("    > ", "    < "))]
    requests = "".join(f"{x[2:]}\n" for x in said if x.startswith(">"))
    done = subprocess.run([router], input=requests, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [x[2:] for x in said if x.startswith("<")]
    first, second, _ = (json.loads(x[2:]) for x in said if x.startswith(">"))
    inputs = RouterInputs(hidden=[[1.0, 0.5]], gate_weight=[[0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]])
    config = RouterConfig(num_experts=3, top_k=2, renormalize=Renormalize())
    assert first == {"id": 1, **wire.hello_request("cpu")}
    assert second == {"id": 2, **wire.route_request(config, inputs)}
