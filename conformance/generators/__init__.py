"""Generators: Hypothesis strategies and recipes for routing cases."""

from moe_routing.conformance.generators.strategies import (
    router_configs,
    router_inputs,
    routing_cases,
    shared_expert_cases,
)

__all__ = ["router_configs", "router_inputs", "routing_cases", "shared_expert_cases"]
