"""my-router, checked against the specification of MoE routing: one test per clause."""

from pathlib import Path

from my_router import MyRouterAdapter

from moe_routing.conformance import conformance_tests

test_routing = conformance_tests(
    MyRouterAdapter(),
    known=Path(__file__).with_name("known") / "my-router.toml",
    profile="smoke",  # a few seconds; `--moe-routing-profile=ci` runs more cases
)
