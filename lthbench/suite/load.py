"""From a YAML file to a validated `Suite`: includes, `extends`, merging, and errors that name file, line and key.

A suite file has

    title: ...
    include: [other.yaml, ...]        # pairs (and experiments) of other files, which this file may change
    replicates: 3
    first_replicate: 0                # the number of the first of them
    selection_replicates: 2           # further ones that only choose, and are in no test
    experiments: {...}                # for every pair
    claims: [claims, ...]             # claims files, or folders of them; `claims` are the paper's, unless this
                                      # file has a folder of that name beside it
    looks: 1                          # how often verdicts may be taken
    pairs:
      NAME:
        model: {...}, data: {...}, pruning: {...}
        recipe: {...}                 # what the arms share
        arms:
          NAME: {class: late, extends: ARM, recipe: {...}, search: {...}}  # a class is its own arm's alone
        experiments: {...}            # laid over the suite's
        claim_levels: {range: [...]}  # the levels at which claims are tested
    micro: {steps: 24, batch_size: 8, num_train: 64, num_test: 64, pairs: {NAME: {steps: 4}}}
                                      # all pairs in small (lthbench.suite.micro), with this file's experiments and no
                                      # claims
    slurm: {...}                      # what its jobs ask of a cluster
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ValidationError

from lthbench.experiments import EXPERIMENTS, Experiment
from lthbench.options import Option
from lthbench.registry import unknown_name
from lthbench.suite.claim_names import claim_faults
from lthbench.suite.claims import read_claims
from lthbench.suite.imported_tickets import with_digests
from lthbench.suite.micro import Micro, shrink_pair
from lthbench.suite.relations import experiment_faults, suite_faults
from lthbench.suite.schema import Suite
from lthbench.suite.shipped import shipped_suites
from lthbench.suite.validation_errors import check_keys, explain, nearest, read_as, told
from lthbench.suite.yaml_tree import Located, SuiteError, read_yaml
from lthbench.tasks.paths import TICKETS

_SUITE_KEYS = (
    "title", "include", "replicates", "first_replicate", "selection_replicates", "experiments", "claims", "looks",
    "pairs", "micro", "slurm",
)  # fmt: skip
Folders = tuple[Path, ...] | None
"""Where included files may lie; None is everywhere."""

_PAIR_KEYS = ("model", "data", "pruning", "recipe", "arms", "experiments", "claim_levels")
_ARM_KEYS = ("class", "extends", "recipe", "search")


@dataclass(frozen=True, kw_only=True)
class IncludeOptions:
    """Which files a suite may include."""

    allow_outside: Annotated[
        bool,
        Option(
            "Allow includes and claims files outside the suite's folder and those that ship with the package.",
            "--allow-outside",
        ),
    ] = False


def load_suite(path: Path, *, allow_outside: bool = False, store: Path | None = None) -> Suite:
    """Read and validate a suite.

    Args:
        allow_outside: whether it may include suites, and name claims, that lie neither in or under its own folder nor
            among those that ship with the package.
        store: whose imported tickets it may name; None takes them for known, for who plans nothing.

    Raises:
        SuiteError: with one line per fault.
    """
    inside = None if allow_outside else (path.parent.resolve(), shipped_suites().resolve())
    tree = _with_includes(path, (), inside)
    pairs = {}
    micro = tree.get("micro")
    for name, pair in tree.child("pairs", {}).value.items():
        pairs[name] = _resolve_pair(name, pair, tree.child("experiments", {}), only_shared=micro is not None)
    resolved = Located({**tree.value, "pairs": Located(pairs, tree.file, tree.line)}, tree.file, tree.line)
    for key in ("include", "experiments", "micro"):
        resolved.value.pop(key, None)
    plain = resolved.plain()
    # Claims are about networks trained to the end.
    claims, written = read_claims(dict.fromkeys(plain.get("claims", ())) if micro is None else ())
    plain["claims"] = claims
    faults: list[str] = []
    for name, pair in pairs.items():
        experiments = plain["pairs"][name].pop("experiments")
        for label in experiments:
            try:
                where = ("pairs", name, "experiments", label)
                experiments[label] = _experiment(label, pair.at(("experiments", label)), where)
            except SuiteError as error:
                faults += str(error).splitlines()
                experiments[label] = Experiment()  # so that the rest is validated too
        plain["pairs"][name]["experiments"] = experiments
    try:
        suite = Suite.model_validate(plain, strict=True)
    except ValidationError as error:
        raise SuiteError("\n".join([*faults, *explain(error, resolved, (), Suite)])) from error
    if store is not None:
        suite, unfit = with_digests(suite, store / TICKETS)
        faults = faults or told(unfit, resolved)
    faults = faults or told(suite_faults(suite), resolved)
    if not faults:
        suite = suite if micro is None else _in_small(suite, micro)
        faults = told(experiment_faults(suite), resolved)
    if faults := faults or claim_faults(claims, written, suite.pairs):
        raise SuiteError("\n".join(faults))
    return suite


def _in_small(suite: Suite, node: Located) -> Suite:
    """The suite with every pair in small, as `micro` says for all pairs and, under its `pairs`, for some."""
    if not isinstance(node.value, dict):
        raise SuiteError(f"{node.place}: micro: expected a mapping with {', '.join(Micro.model_fields)}")
    own = node.child("pairs", {})
    for name, child in own.value.items():
        if name not in suite.pairs:
            raise SuiteError(f"{child.place}: micro.pairs: no pair is called '{name}'{nearest(name, suite.pairs)}")
    shared = Located({key: child for key, child in node.value.items() if key != "pairs"}, node.file, node.line)
    pairs, faults = {}, []
    for name, pair in suite.pairs.items():
        try:
            pairs[name] = shrink_pair(pair, read_as(Micro, shared.merged(own.child(name, {})), ("micro",)))
        except SuiteError as error:
            faults += str(error).splitlines()
    if faults:
        raise SuiteError("\n".join(dict.fromkeys(faults)))
    return suite.model_copy(update={"pairs": pairs})


def _experiment(label: str, node: Located, where: tuple[str, ...]) -> Experiment:
    if not isinstance(node.value, dict):
        raise SuiteError(
            f"{node.place}: {label}: expected a mapping of the experiment's settings, found {node.written}"
        )
    options = dict(node.value)
    kind = options.pop("kind", None)
    name = kind.value if kind is not None else label
    if not isinstance(name, str) or name not in EXPERIMENTS:
        place = node.place if kind is None else kind.place
        raise SuiteError(f"{place}: {label}: {unknown_name('experiment', str(name), EXPERIMENTS)}")
    return read_as(EXPERIMENTS[name], Located(options, node.file, node.line), where)


def _with_includes(path: Path, parents: tuple[Path, ...], inside: Folders) -> Located:
    """The tree of a file laid over the trees it includes."""
    resolved = path.resolve()
    if resolved in parents:
        chain = " -> ".join(p.name for p in (*parents[parents.index(resolved) :], resolved))
        raise SuiteError(f"{path}: include: circular reference: {chain}")
    tree = read_yaml(path)
    if not isinstance(tree.value, dict):
        raise SuiteError(f"{tree.place}: expected a mapping with title, replicates and pairs")
    check_keys(tree, _SUITE_KEYS)
    own = {key: child for key, child in tree.value.items() if key != "include"}
    result = Located(own, tree.file, tree.line)
    claims = _claim_files(tree, inside)
    for entry in reversed(tree.child("include", []).value):
        if not isinstance(entry.value, str):
            raise SuiteError(f"{entry.place}: include: expected a path, found {entry.written}")
        _check_inside(path.parent / entry.value, entry, "include", inside)
        if not (path.parent / entry.value).exists():
            raise SuiteError(f"{entry.place}: include: {entry.value}: cannot be read, there is no such file")
        included = _with_includes(path.parent / entry.value, (*parents, resolved), inside)
        # An included suite's own experiments belong to its pairs; the including suite's are for all.
        shared = included.child("experiments", {})
        pairs = {
            name: Located(
                {**pair.value, "experiments": shared.merged(pair.child("experiments", {}))},
                pair.file,
                pair.line,
            )
            for name, pair in included.child("pairs", {}).value.items()
            if isinstance(pair.value, dict)
        }
        below = {"pairs": Located(pairs, included.file, included.line)}
        result = Located(below, tree.file, tree.line).merged(result)
        claims = [*included.child("claims", []).value, *claims]
    result.value["claims"] = Located(claims, tree.file, tree.line)
    return result


def _check_inside(path: Path, entry: Located, key: str, inside: Folders) -> None:
    """Refuse a file outside of some folders: a foreign suite could otherwise have it read, and shown in error
    messages."""
    if inside is not None and not any(path.resolve().is_relative_to(folder) for folder in inside):
        raise SuiteError(
            f"{entry.place}: {key}: {entry.value}: lies neither in the suite's folder nor among the suites that ship "
            "with the package; move it there, or give --allow-outside"
        )


def _claim_files(tree: Located, inside: Folders) -> list[Located]:
    """The claims files that a suite names itself, those of folders in the order of their names.

    What is not beside the suite is looked up among the shipped suites, so that `claims` means the paper's anywhere.
    """
    files = []
    for entry in tree.child("claims", []).value:
        if not isinstance(entry.value, str):
            raise SuiteError(f"{entry.place}: claims: expected the path of a claims file, found {entry.written}")
        path = (tree.file.parent / entry.value).resolve()
        if not path.exists() and (shipped := shipped_suites() / entry.value).exists():
            path = shipped
        _check_inside(path, entry, "claims", inside)
        if not path.exists():
            raise SuiteError(f"{entry.place}: claims: {entry.value}: cannot be read, there is no such file or folder")
        if path.is_dir() and not list(path.glob("*.yaml")):
            raise SuiteError(f"{entry.place}: claims: the folder {entry.value} has no .yaml file")
        for file in path.glob("*.yaml") if path.is_dir() else ():
            _check_inside(file, entry, "claims", inside)  # by a link
        files += [
            Located(file, entry.file, entry.line) for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])
        ]
    return files


def _resolve_pair(name: str, pair: Located, shared: Located, *, only_shared: bool = False) -> Located:
    """A pair whose arms have whole recipes, and whose experiments are laid over the suite's, or are those alone."""
    if not isinstance(pair.value, dict):
        raise SuiteError(f"{pair.place}: {name}: expected a mapping with model, data and arms")
    check_keys(pair, _PAIR_KEYS)
    base = pair.child("recipe", {})
    arms = pair.child("arms", {}).value
    resolved: dict[str, Located] = {}

    def resolve(arm_name: str, children: tuple[str, ...]) -> Located:
        if arm_name in resolved:
            return resolved[arm_name]
        arm = arms[arm_name]
        if arm_name in children:
            chain = " -> ".join((*children[children.index(arm_name) :], arm_name))
            raise SuiteError(f"{arm.place}: {arm_name}: extends: circular reference: {chain}")
        if not isinstance(arm.value, dict):
            raise SuiteError(f"{arm.place}: {arm_name}: expected a mapping with recipe or extends")
        check_keys(arm, _ARM_KEYS)
        recipe, search = base, Located({}, arm.file, arm.line)
        if (parent := arm.get("extends")) is not None:
            if not isinstance(parent.value, str) or parent.value not in arms:
                raise SuiteError(
                    f"{parent.place}: extends: no arm is called {parent.written}{nearest(str(parent.value), arms)}"
                )
            above = resolve(parent.value, (*children, arm_name))
            recipe, search = above.value["recipe"], above.value["overrides"]
        recipe = recipe.merged(arm.child("recipe", {}))
        search = search.merged(arm.child("search", {}))
        resolved[arm_name] = Located({"recipe": recipe, "overrides": search}, arm.file, arm.line)
        return resolved[arm_name]

    whole = {}
    for arm_name in arms:
        arm = resolve(arm_name, ())
        recipe = arm.value["recipe"]
        search = recipe.merged(arm.value["overrides"])
        own = {key: child for key, child in arms[arm_name].value.items() if key == "class"}
        whole[arm_name] = Located({"recipe": recipe, "search": search, **own}, arm.file, arm.line)
    value = {key: child for key, child in pair.value.items() if key != "recipe"}
    value["arms"] = Located(whole, pair.file, pair.line)
    value["experiments"] = shared if only_shared else shared.merged(pair.child("experiments", {}))
    return Located(value, pair.file, pair.line)
