"""The few words of JSON Schema that the schemas of this project use."""

from __future__ import annotations

from typing import Any

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def mistakes(value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str = "") -> list[str]:
    """What keeps ``value`` from the schema; nothing where it keeps to it."""
    if "$ref" in schema:
        return mistakes(value, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, at)
    if "anyOf" in schema:
        tried = [mistakes(value, each, whole, at) for each in schema["anyOf"]]
        return [] if [] in tried else tried[0]
    if "const" in schema and value != schema["const"]:
        return [f"{at}: {value!r} is not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(isinstance(value, TYPES[kind]) for kind in kinds):
        return [f"{at}: {value!r} is no {' or '.join(kinds)}"]
    found = [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
    if isinstance(value, dict):
        others = schema.get("additionalProperties", {})
        for name, each in value.items():
            known = schema.get("properties", {}).get(name, others)
            found += [f"{at}: unknown {name}"] if known is False else []
            found += mistakes(each, known, whole, f"{at}.{name}") if known else []
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            found += mistakes(each, schema["items"], whole, f"{at}[{number}]")
    return found
