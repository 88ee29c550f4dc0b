"""The JSON Schema of suites lets pass what is valid and no more than it can tell, and the reference has every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lthbench.experiments import EXPERIMENTS
from lthbench.suite import load
from lthbench.suite.json_schema import claims_schema, suite_schema
from lthbench.suite.key_reference import page, sections
from lthbench.suite.schema import Suite
from lthbench.suite.shipped import shipped_suites
from lthbench.suite.yaml_tree import read_yaml

SUITES = sorted(shipped_suites().glob("*.yaml"))
CLAIMS = sorted(shipped_suites().glob("claims/*.yaml"))


def as_json(file: Path) -> Any:
    return json.loads(json.dumps(read_yaml(file).plain()))


def faults(document: Any, schema: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("schema", [suite_schema, claims_schema])
def test_they_are_json_schemas(schema: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_the_schema_lets_every_shipped_suite_pass(file: Path) -> None:
    assert faults(as_json(file), suite_schema()) == []


@pytest.mark.parametrize("file", CLAIMS, ids=lambda file: file.stem)
def test_the_schema_lets_the_papers_claims_pass(file: Path) -> None:
    assert faults(as_json(file), claims_schema()) == []


@pytest.mark.parametrize(
    "path, value",
    [
        (("replicats",), 3),
        (("replicates",), 0),
        (("pairs", "lenet-garments", "recipes"), {}),
        (("pairs", "lenet-garments", "model", "name"), "lenet-300"),
        (("pairs", "lenet-garments", "data", "name"), "mnits"),
        (("pairs", "lenet-garments", "recipe", "steps"), "10 epochs"),
        (("pairs", "lenet-garments", "recipe", "steps"), "20%"),
        (("pairs", "lenet-garments", "recipe", "optimizer", "momentun"), 0.9),
        (("pairs", "lenet-garments", "recipe", "schedule", "milestones"), ["5"]),
        (("pairs", "lenet-garments", "arms", "late", "class"), "later"),
        (("pairs", "lenet-garments", "experiments", "imp"), {"level": 3}),
        (("pairs", "lenet-garments", "experiments", "mine"), {"kind": "impp", "levels": 3}),
        (("pairs", "lenet-garments", "experiments", "mine"), {"kind": "imp", "level": 3}),
        (("slurm",), {"time": 90}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else repr(value),
)
def test_the_schema_refuses_what_loading_would(path: tuple[str, ...], value: Any) -> None:
    document = as_json(shipped_suites() / "quick.yaml")
    node = document
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    assert faults(document, suite_schema())


def test_the_keys_of_suite_files_are_those_that_loading_knows() -> None:
    schema = suite_schema()
    assert set(schema["properties"]) == set(load._SUITE_KEYS)
    assert set(schema["$defs"]["Pair"]["properties"]) == set(load._PAIR_KEYS)
    assert set(schema["$defs"]["Arm"]["properties"]) == set(load._ARM_KEYS)
    assert set(Suite.model_fields) <= set(load._SUITE_KEYS)
    assert {f"experiment: {name}" for name in EXPERIMENTS} <= set(sections())


def test_every_key_is_described_with_a_type_and_a_default_or_an_example() -> None:
    bare = [
        f"{section.name}.{key.name}"
        for section in sections().values()
        for key in section.keys
        if not (key.about and key.type and (key.default or key.example))
    ]
    assert bare == []


def test_every_example_is_yaml_that_a_suite_takes() -> None:
    schemas = {"suite": suite_schema(), **suite_schema()["$defs"]}
    recipe = {key.name: key.example for key in sections()["recipe"].keys if "..." not in key.example}
    wrong = {name: text for name, text in recipe.items() if yaml.safe_load(f"{name}: {text}") is None}
    assert wrong == {}
    document = {"$ref": "#/$defs/Recipe", "$defs": schemas}
    parsed = {name: yaml.safe_load(text) for name, text in recipe.items() if name not in ("optimizer",)}
    assert faults(parsed, document) == []


def test_the_page_beside_the_suites_is_up_to_date() -> None:
    file = shipped_suites() / "README.md"
    assert file.read_text() == page(), "run `python -m lthbench.suite.key_reference > suites/README.md`"
