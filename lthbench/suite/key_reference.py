"""Every key of suites and claims, as a page: `python -m lthbench.suite.key_reference > suites/README.md` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from lthbench.data.spec import DATASETS
from lthbench.experiments import EXPERIMENTS
from lthbench.models.spec import MODELS
from lthbench.suite.json_schema import FILE_KEYS, Schema, claims_schema, suite_schema
from lthbench.suite.shipped import shipped_suites
from lthbench.suite.yaml_tree import read_yaml

_SHORT = 60
# Of what the shipped suites do not have, or have at length.
_EXAMPLES = {
    "suite.looks": "2", "suite.first_replicate": "1000", "suite.slurm": "{partition: gpu, time: 12h, gpus_per_task: 1}",
    "suite.experiments": "{imp: {levels: 16}}", "suite.title": "Tickets of Conv-4 on CIFAR-10",
    "suite.pairs": "{conv4-cifar10: {model: {name: conv-4}, ...}}",
    "suite.micro": "{steps: 24, batch_size: 8, num_train: 64, num_test: 64}",
    "pair.recipe": "{steps: 160ep, batch_size: 128, ...}", "pair.arms": "{early: {class: early}, late: {...}}",
    "pair.experiments": "{imp: {levels: 16}}", "arm.search": "{steps: 80ep}",
    "model.width": "32", "data.num_train": "10000", "data.class_list": "1f0a3c5e", "data.num_test": "2000",
    "data.like": "cifar10", "data.image_size": "16", "data.digest": f"'{'3f' * 16}'",
    "recipe.precision": "bfloat16", "recipe.micro_batch": "32", "recipe.ema": "0.999",
    "recipe.pull": "0.001", "optimizer: sgd.dampening": "0.1", "optimizer: adamw.betas": "[0.9, 0.95]",
    "optimizer: adamw.eps": "1e-6", "augment.randaugment": "[2, 9]", "augment.colour_jitter": "[0.4, 0.4, 0.4, 0.1]",
    "recipe.engine": "blocked", "micro.pairs": "{swin-tinyimagenet: {steps: 4}}",
    "slurm.partition": "gpu", "slurm.gpus_per_task": "1",
    "slurm.cpus_per_task": "8", "slurm.mem": "32G", "slurm.account": "vision", "slurm.qos": "long",
    "slurm.constraint": "a100", "slurm.nodelist": "node[01-04]", "slurm.exclude": "node07", "slurm.nodes": "2",
    "slurm.tasks_per_node": "4", "slurm.max_running": "20", "slurm.max_requeues": "3", "slurm.signal_before": "120",
    "slurm.setup": "[module load cuda]", "slurm.extra": "{exclusive: true, licenses: 'a:1'}",
    "experiment: imported.tickets": "[snip-0, snip-1]", "experiment: imported.level": "5",
    "experiment: imported.weights": "own", "experiment: imported.digests": f"[{'3f' * 32}]",
    "experiment: imp.criterion": "movement",
    "experiment: controls.rewind": "500it", "experiment: crossed-masks.masks": "[early]",
    "experiment: level-barriers.rewind": "500it", "experiment: onset.verify": "true",
    "experiment: few-shot.draws": "5", "experiment: transfer.targets": "[{data: {name: cifar100}, steps: 30ep}]",
    "experiment: sensitivity.vary": "{optimizer.lr: [0.01, 0.1]}", "target.steps": "30ep",
    "experiment: regulariser.places": "[search]", "experiment: transfer.budgets": "[1, 0.5]",
    "experiment: transfer.ways": "[probe]", "experiment: convergence.share": "0.9",
    "experiment: distance.points": "40", "arm.extends": "early", "slurm.time": "12h",
    **{f"experiment: {kind}.arms": "[late]" for kind in EXPERIMENTS},
    **{f"experiment: {kind}.children": "3" for kind in EXPERIMENTS},
    **{f"experiment: {kind}.points": "11" for kind in EXPERIMENTS},
    **{f"experiment: {kind}.threshold": "0.05" for kind in EXPERIMENTS},
    **{f"experiment: {kind}.statistics": "[interpolate, recompute]" for kind in EXPERIMENTS},
}  # fmt: skip
_KINDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True)
class Key:
    """A key of a suite: what it may be, what it is unless given, and one that is valid."""

    name: str
    type: str
    default: str
    about: str
    example: str


@dataclass(frozen=True)
class Section:
    """A mapping of a suite: its keys, and what is to be said of the whole."""

    name: str
    about: str
    keys: tuple[Key, ...]


@cache
def sections() -> dict[str, Section]:
    """All mappings of suites and claims by name, in the order of reading."""
    suite, claims = suite_schema(), claims_schema()
    defs = {**claims["$defs"], **suite["$defs"]}
    given = _examples(suite, claims, defs)

    def section(name: str, title: str, schema: Schema, said: str | None = None) -> Section:
        keys = tuple(
            Key(
                key,
                type_of(one, defs),
                "" if one.get("default") in (None, {}) else _in_yaml(one["default"]),
                one.get("description", ""),
                _EXAMPLES.get(f"{title}.{key}") or given.get((name, key)) or _in_yaml(one.get("const")),
            )
            for key, one in _keys(schema).items()
        )
        return Section(title, schema.get("description", "") if said is None else said, keys)

    experiments = {_definition(suite["properties"]["experiments"]["properties"][kind]): kind for kind in EXPERIMENTS}
    named = {
        "ModelSpec": "model", "DataSpec": "data", "Pruning": "pruning", "Recipe": "recipe",
        **{name: title for name, one in defs.items() if (title := _optimizer(one))},
        "Schedule": "schedule", "Augment": "augment", "Micro": "micro", "SlurmOptions": "slurm", "Claim": "claim",
        "Choice": "choose", "Selection": "selection",
    }  # fmt: skip
    found = [
        section("", "suite", suite, "The file itself."),
        section("Pair", "pair", defs["Pair"], FILE_KEYS["pairs"]),
        section("Arm", "arm", defs["Arm"], FILE_KEYS["arms"]),
        *(section(name, title, defs[name]) for name, title in named.items() if name not in ("Claim", "Choice")),
        *(section(name, f"experiment: {kind}", defs[name]) for name, kind in experiments.items()),
        *(section(name, named[name], defs[name]) for name in ("Claim", "Choice")),
    ]
    done = {*named, *experiments, "Pair", "Arm"}
    for name, schema in defs.items():
        if name not in done and (keys := _keys(schema)):
            test = keys.get("test", {}).get("const")
            found.append(section(name, f"test: {test}" if test else name.lower(), schema))
    return {one.name: one for one in found}


def page() -> str:
    """The reference in Markdown."""
    lines = [
        "# What a suite says",
        "",
        "<!-- written by `python -m lthbench.suite.key_reference > suites/README.md` -->",
        "",
        "Every key of a suite and of claims, as `lthbench schema` prints them too. `lthbench schema --json` prints a "
        "JSON Schema, by which editors complete and check a suite (in VS Code and others by a first line "
        "`# yaml-language-server: $schema=suite.schema.json`). Points of training are `500it` (iterations, one update "
        "each), `160ep` (epochs), `3ep50it`, or, where a training is there to be a share of, `2%`.",
        "",
        "Arms may `extends` one another, suites may `include` others of their own folder, of one below or of ours (any "
        "with `--allow-outside`). An experiment may appear twice under names of your own, with its `kind`; tasks that "
        "several have in common are done once. Scalars are YAML 1.2's: `010` is ten, `yes` and `1:30` are text. A "
        "fault of one key or of several (a milestone beyond the end, a level without a weight) is reported before "
        "anything runs, with file, line, key and the nearest valid name.",
        "",
    ]
    for one in sections().values():
        lines += [f"## {one.name}", "", *_markdown_about(one.about), *_extra(one.name)]
        lines += ["| key | type | default | what it is | example |", "|---|---|---|---|---|"]
        for key in one.keys:
            cells = [f"`{key.name}`", key.type, _code(key.default), key.about, _code(key.example)]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _markdown_about(text: str) -> list[str]:
    return [line for part in text.split("\n\n") for line in (" ".join(part.split()), "")]


def _extra(section: str) -> Iterator[str]:
    """What a section has beside its keys: the models and data sets, and what an experiment measures."""
    if section == "model":
        yield from ("| name | width | initialisation | source |", "|---|---|---|---|")
        for name, info in MODELS.items():
            yield f"| `{name}` | {info.width} | {info.init} | {info.source} |"
        yield ""
    elif section == "data":
        yield from ("| name | train + test images | shape | classes | origin |", "|---|---|---|---|---|")
        for name, data in DATASETS.items():
            images, shape = f"{data.num_train:,} + {data.num_test:,}", " x ".join(map(str, data.image_shape))
            yield f"| `{name}` | {images} | {shape} | {data.num_classes} | {data.origin} |"
        yield ""
    elif section.startswith("experiment: "):
        kind = EXPERIMENTS[section.removeprefix("experiment: ")]
        yield f"Measured of: {', '.join(f'`{variant}`' for variant in kind.variants)}."
        yield ""
        yield f"Metrics: {', '.join(f'`{metric}`' for metric in kind.metrics)}."
        yield ""


def type_of(schema: Schema, defs: dict[str, Schema]) -> str:
    """What values a schema lets pass, in words."""
    if "$ref" in schema:
        name = _definition(schema)
        found = defs[name]
        return _mapping_name(name, found) if _keys(found) else type_of(found, defs)
    if "const" in schema:
        return f"`{_in_yaml(schema['const'])}`"
    if "enum" in schema:
        if schema["enum"] in (list(MODELS), list(DATASETS)):
            return "a name of the table"
        return ", ".join(f"`{_in_yaml(one)}`" for one in schema["enum"])
    if several := schema.get("anyOf") or schema.get("oneOf"):
        words = [type_of(one, defs) for one in several if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if schema.get("format") in ("steps", "length"):
        return "points of training" if schema["format"] == "steps" else "length of a training"
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "list of " + ", ".join(type_of(one, defs) for one in schema["prefixItems"])
        return f"list of {type_of(schema['items'], defs)}"
    if schema.get("type") == "object":
        below = schema.get("additionalProperties")
        return f"mapping of names to {type_of(below, defs)}" if isinstance(below, dict) else "mapping"
    if "type" not in schema:
        return "values"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(_KINDS[kind] for kind in kinds) + _bounds(schema)


def _keys(schema: Schema) -> dict[str, Schema]:
    """The keys of a mapping, of the long form where it has a short one too."""
    return schema.get("properties") or next((k for one in schema.get("anyOf", ()) if (k := _keys(one))), {})


def _mapping_name(name: str, schema: Schema) -> str:
    test = _keys(schema).get("test", {}).get("const")
    if test:
        return f"test: {test}"
    return _optimizer(schema) or name.removesuffix("Spec").removesuffix("Options").lower()


def _optimizer(schema: Schema) -> str:
    """The title of an optimizer that ships with the package, which alone has one possible name; else empty."""
    name = _keys(schema).get("name", {}).get("const")
    return f"optimizer: {name}" if name else ""


def _bounds(schema: Schema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{word} {schema[bound]:g}" for bound, word in words.items() if bound in schema]
    return " " + ", ".join(found) if found else ""


def _definition(schema: Schema) -> str:
    return schema.get("$ref", "").rpartition("/")[2]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _in_yaml(value: Any) -> str:
    """A value on one line, as a suite has it."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n")


def _examples(suite: Schema, claims: Schema, defs: dict[str, Schema]) -> dict[tuple[str, str], str]:
    """(name of a definition, key) -> what the shipped suites and claims have there: the first short text, or the
    shortest."""
    found: dict[tuple[str, str], list[str]] = {}

    def visit(schema: Schema, name: str, value: Any) -> None:
        if "$ref" in schema:
            return visit(defs[_definition(schema)], _definition(schema), value)
        for one in schema.get("anyOf") or schema.get("oneOf") or ():
            below = defs.get(_definition(one), one)
            if isinstance(value, list) == (below.get("type") == "array"):
                visit(one, name, value)
        if isinstance(value, list) and isinstance(schema.get("items"), dict):
            for each in value:
                visit(schema["items"], name, each)
        if not isinstance(value, dict):
            return None
        keys = schema.get("properties", {})
        if any("const" in one and key in value and value[key] != one["const"] for key, one in keys.items()):
            return None  # another kind of optimizer, test or experiment
        for key, below in value.items():
            if key in keys:
                found.setdefault((name, key), []).append(_in_yaml(below))
                visit(keys[key], name, below)
            elif isinstance(more := schema.get("additionalProperties"), dict):
                kind = below.get("kind") if isinstance(below, dict) else None
                visit(schema["properties"][kind] if kind in keys else more, name, below)
        return None

    for document, files in ((suite, "*.yaml"), (claims, "claims/*.yaml")):
        for file in sorted(shipped_suites().glob(files)):
            visit(document, "", json.loads(json.dumps(read_yaml(file).plain())))
    return {where: next((t for t in texts if len(t) <= _SHORT), min(texts, key=len)) for where, texts in found.items()}


if __name__ == "__main__":
    print(page(), end="")
