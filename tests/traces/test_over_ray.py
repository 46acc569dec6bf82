"""Over Ray, on two workers of a local cluster, the report is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged_traces import judged
from make_traces import Sizes, make
from small_traces import claim_file

from moe_routing.conformance.traces import walk as walking
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.form import form
from moe_routing.conformance.traces.judged import Judged
from moe_routing.conformance.traces.known_router import of_file
from moe_routing.conformance.traces.over_ray import walk_over_ray


def test_two_workers_find_what_one_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(walking, "UNIT", 500)
    make(tmp_path, Sizes(layers=3, tokens=2000, near=20, wrong=4, experts=32, top_k=4))
    known = of_file(claim_file(tmp_path))
    engine, trainer = (tmp_path / f"{each}.safetensors" for each in ("engine", "trainer"))
    here = judged([engine], known, [trainer])
    ray.init(num_cpus=2, log_to_driver=False, logging_level="error")
    try:
        found = walk_over_ray(here.plan)
        trainer.unlink()
        with pytest.raises(TraceError, match=r"A worker of Ray cannot read .*trainer.safetensors"):
            walk_over_ray(here.plan)
    finally:
        ray.shutdown()
    there = Judged(plan=here.plan, known=known, found=found)
    assert form(there) == form(here)
