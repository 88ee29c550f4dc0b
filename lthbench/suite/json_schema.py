"""The JSON Schema of suite and claims files, by which editors complete and check them.

It is made from the classes that validate suites, whose docstrings describe each key. A pair may take any part of its
settings from an included suite, a shared recipe or another arm, so nothing within one is required. What depends on
other keys (a milestone beyond the end of a training) is checked by `lthbench plan` alone.
"""

from __future__ import annotations

import inspect
from typing import Any

from docstring_parser import DocstringStyle, parse
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from lthbench.data.spec import DATASETS, DataSpec
from lthbench.experiments import EXPERIMENTS
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.suite.claims import Claim
from lthbench.suite.micro import Micro
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.tasks.spec import Pruning
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps

Schema = dict[str, Any]

# What files have beside the fields of the validated suite.
FILE_KEYS = {
    "include": "Other suites, relative to this file: their pairs are taken over, and this file may change them.",
    "claims": "Claims files, or folders of them: `claims` are the paper's, unless a folder of that name is beside this "
    "file.",
    "experiments": "Experiments of every pair, over which those of a pair are laid.",
    "pairs": "By a name of your own: a model on a data set, the arms compared on it, and its experiments.",
    "micro": "Every pair in small: its data are replaced by the embedded images in the shape of its own data set, its "
    "recipes shortened, and no claims are tested. Model, recipe, augmentation, pruning and experiments stay.",
    "title": "What the suite is about, in a line.",
    "recipe": "What the recipes of all arms of this pair share.",
    "arms": "By a name of your own: a recipe that is compared with others.",
    "extends": "Another arm of this pair, over whose recipe and search this arm's are laid.",
    "class": "Whether the recipe is taken to be early- or late-stable, where onsets are not measured.",
    "kind": "The experiment, if the entry has a name of your own.",
}


def about(model: type[BaseModel]) -> str:
    """What a class's docstring says before its attributes."""
    found = parse(inspect.getdoc(model) or "", DocstringStyle.GOOGLE)
    return "\n\n".join(filter(None, (found.short_description, found.long_description)))


def about_keys(model: type[BaseModel]) -> dict[str, str]:
    """What docstrings say of each attribute of a class and of those that it inherits."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        for one in parse(base.__dict__.get("__doc__") or "", DocstringStyle.GOOGLE).params:
            text = " ".join((one.description or "").split()).replace("None is", "unless given,")
            found |= {name.strip(): text[:1].upper() + text[1:] for name in one.arg_name.split(",")}
    return found


class _WithDocstrings(GenerateJsonSchema):
    """Schemas whose classes and keys have the docstrings' descriptions."""

    def model_schema(self, schema: Any) -> Schema:
        model, found = schema["cls"], super().model_schema(schema)
        said = about_keys(model)
        for name, key in found.get("properties", {}).items():
            key.pop("title", None)
            if text := said.get(name):
                key["description"] = text
        return {**found, "description": about(model)}

    def encode_default(self, dft: Any) -> Any:
        """A default as a suite would have it."""
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", exclude_defaults=True)
        return str(dft) if isinstance(dft, Steps) else super().encode_default(dft)


def _definitions() -> tuple[dict[type[BaseModel], Schema], dict[str, Schema]]:
    """References to the schemas of all classes that files are read as, and the definitions that these refer to."""
    classes: tuple[Any, ...] = (
        ModelSpec,
        DataSpec,
        Pruning,
        Recipe,
        Pair,
        Suite,
        Micro,
        SlurmOptions,
        Claim,
        *EXPERIMENTS.values(),
    )
    wanted: Any = [(one, "validation") for one in classes]
    references, whole = models_json_schema(wanted, schema_generator=_WithDocstrings)
    return {one: references[one, "validation"] for one in classes}, whole["$defs"]


def claims_schema() -> Schema:
    """The JSON Schema of a claims file."""
    references, definitions = _definitions()
    return _document("The claims that a suite tests", {"additionalProperties": references[Claim]}, definitions)


def suite_schema() -> Schema:
    """The JSON Schema of a suite file."""
    references, definitions = _definitions()
    for one in definitions.values():
        one.pop("required", None)
        for key in one.get("properties", {}).values():
            if "oneOf" in key:  # the key that distinguishes them may be in another file
                key["anyOf"] = key.pop("oneOf")
                del key["discriminator"]

    def properties(model: type[BaseModel]) -> Schema:
        return definitions[references[model]["$ref"].rpartition("/")[2]]["properties"]

    properties(ModelSpec)["name"] = {"description": "Which model.", "enum": list(MODELS)}
    properties(DataSpec)["name"] = {"description": "Which data set.", "enum": list(DATASETS)}
    properties(DataSpec)["like"] = {"description": properties(DataSpec)["like"]["description"], "enum": list(DATASETS)}
    for name, kind in EXPERIMENTS.items():
        properties(kind)["kind"] = {"const": name, "description": FILE_KEYS["kind"]}
    experiments = _experiments(references)
    pair = _pair(references, properties(Pair), experiments)
    definitions |= {"Pair": pair, "Arm": _arm(references)}
    micro = references[Micro]
    properties(Micro)["pairs"] = {
        "type": "object",
        "description": "Other numbers for some pairs.",
        "additionalProperties": micro,
    }
    paths = {"type": "array", "items": {"type": "string"}}
    own = {
        name: properties(Suite)[name]
        for name in ("title", "replicates", "first_replicate", "selection_replicates", "looks", "slurm")
    }
    own["title"] = {"type": "string", "description": FILE_KEYS["title"]}
    keys = own | _described(
        include=paths,
        claims=paths,
        experiments=experiments,
        pairs={"type": "object", "additionalProperties": {"$ref": "#/$defs/Pair"}},
        micro=micro,
    )
    body = {"properties": keys, "additionalProperties": False, "required": ["title", "replicates"]}
    return _document("A suite of lthbench", body, definitions)


def _experiments(references: dict[type[BaseModel], Schema]) -> Schema:
    """The experiments of a suite or of a pair: by their kind's name, or by one of the user's with `kind` in it."""
    return {
        "type": "object",
        "properties": {name: references[kind] for name, kind in EXPERIMENTS.items()},
        "additionalProperties": {
            "type": "object",
            "properties": {"kind": {"enum": list(EXPERIMENTS)}},
            "allOf": [
                {"if": {"properties": {"kind": {"const": name}}, "required": ["kind"]}, "then": references[kind]}
                for name, kind in EXPERIMENTS.items()
            ],
        },
    }


def _pair(references: dict[type[BaseModel], Schema], properties: Schema, experiments: Schema) -> Schema:
    """A pair as files have it; `properties` are those of the validated one."""
    arms = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Arm"}}
    return _mapping(
        {
            **{name: properties[name] for name in ("model", "data", "pruning")},
            **_described(recipe=references[Recipe], arms=arms),
            "experiments": {"description": "Laid over those of all pairs.", **experiments},
            "claim_levels": properties["claim_levels"],
        }
    )


def _arm(references: dict[type[BaseModel], Schema]) -> Schema:
    """An arm as files have it, where recipes may be parts of one."""
    recipe = references[Recipe]
    said = about_keys(Pair.model_fields["arms"].annotation.__args__[1])  # type: ignore[union-attr]
    return _mapping(
        _described(
            **{"class": {"enum": ["early", "late"]}},
            extends={"type": "string"},
            recipe={**recipe, "description": said["recipe"]},
        )
        | {"search": {**recipe, "description": said["search"]}}
    )


def _described(**keys: Schema) -> Schema:
    """Keys that only files have, with what `FILE_KEYS` says of each."""
    return {name: {"description": FILE_KEYS[name], **key} for name, key in keys.items()}


def _mapping(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _document(title: str, body: Schema, definitions: dict[str, Schema]) -> Schema:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, "type": "object", **body}
    return document | {"$defs": _reached(document, definitions)}


def _reached(node: Any, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """Those of the definitions that a schema refers to, and those that these refer to."""
    reached: dict[str, Schema] = {}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            name = one.get("$ref", "").rpartition("/")[2]
            if name and name not in reached:
                reached[name] = definitions[name]
                waiting.append(reached[name])
            waiting += [value for key, value in one.items() if key not in ("examples", "default")]
        elif isinstance(one, list):
            waiting += one
    return dict(sorted(reached.items()))
