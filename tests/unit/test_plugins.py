"""Own models, criteria, optimizers, schedules, augmentations, experiments of plugins, and messages of their faults."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, run_here
from torch import nn

from lthbench import plugins, registry
from lthbench.data.augmentations import AUGMENTATIONS
from lthbench.data.loading import load
from lthbench.data.spec import Augment, DataSpec
from lthbench.engine.linear_path import evaluate_linear_path
from lthbench.experiments import EXPERIMENTS
from lthbench.models.measured import model_facts
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.ops import MaskedSGD
from lthbench.ops.masking import mask_optimizer
from lthbench.plugins import load_plugins
from lthbench.registry import LOADED, PluginError
from lthbench.runner.settings import RunOptions, Settings
from lthbench.runner.slurm.lane_job import JobSpec
from lthbench.runner.slurm.lanes import LaneOwner
from lthbench.suite.load import load_suite
from lthbench.suite.model_cost import model_cost
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.criteria import CRITERIA, Layer, scores_of
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.tasks.spec import TrainSpec, parse_spec
from lthbench.training.batches import Batches
from lthbench.training.distributed import Ranks
from lthbench.training.loop import Trainer
from lthbench.training.recipe import OPTIMIZERS, Recipe
from lthbench.training.schedule import SCHEDULES

EXAMPLE = Path(__file__).parents[1] / "example"
OWN = """\
import torch
from torch import nn
from lthbench.plugins import *

@register_model("own-net", width=4)
class Net(nn.Module):
    def __init__(self, image_shape, num_classes, width):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[0], width, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        return self.fc(self.drop(x))

@register_criterion("farthest")
def farthest(layer):
    return -(layer.weight - layer.start).abs()

@register_optimizer("heavy-ball")
class HeavyBall(torch.optim.Optimizer):
    def __init__(self, params, lr, decay=0.5):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["count"] = state.get("count", 0) + 1
                state["buffer"] = group["decay"] * state.get("buffer", torch.zeros_like(p)) + p.grad
                p.sub_(state["buffer"], alpha=group["lr"] / state["count"])

register_optimizer("own-sgd")(torch.optim.SGD)

@register_schedule("halves")
def halves(place):
    return 0.5 ** (place.iteration // place.steps_per_epoch)

@register_augmentation("noise")
def noise(levels, rng):
    return levels + torch.from_numpy(rng.normal(0, 5, levels.shape)).to(levels)
"""
WITH_OWN = (
    TINY.replace("name: lenet-300-100, width: 10", "name: own-net")
    .replace("rates: {head: 0.18}", "criterion: farthest")
    .replace("{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}", "{name: heavy-ball, lr: 0.05, decay: 0.25}")
    .replace("steps: 3ep", "steps: 3ep\n      schedule: {name: halves}\n      augment: {own: [noise]}")
)


@pytest.fixture(autouse=True)
def no_plugin_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    tables: list[dict[Any, Any]] = [
        MODELS, CRITERIA, OPTIMIZERS, SCHEDULES, AUGMENTATIONS, EXPERIMENTS, LOADED, registry._owners, plugins._loaded,
    ]  # fmt: skip
    before, modules, path = [dict(table) for table in tables], set(sys.modules), list(sys.path)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in ("own", "other", "my_models", "kit", "kit.models", "kit.parts"):
        if name not in modules:
            sys.modules.pop(name, None)
    sys.path[:] = path
    model_facts.cache_clear()
    model_cost.cache_clear()


def forget() -> None:
    """Let a plugin be loaded again, as another process would."""
    for kind, name in list(registry._owners):
        for table in (MODELS, CRITERIA, OPTIMIZERS, SCHEDULES, AUGMENTATIONS, EXPERIMENTS):
            table.pop(name, None)  # type: ignore[attr-defined]
        del registry._owners[kind, name]
    for plugin in LOADED:
        sys.modules.pop(plugin, None)
    LOADED.clear()
    plugins._loaded.clear()


def load_source(folder: Path, source: str = OWN, name: str = "own.py") -> tuple[str, ...]:
    (folder / name).write_text(source)
    return load_plugins([str(folder / name)])


def suite(folder: Path, text: str) -> Plan:
    (folder / "suite.yaml").write_text(text)
    return make_plan(load_suite(folder / "suite.yaml"))


def test_keys_of_what_uses_no_plugin_stay_and_those_of_what_does_hold_its_digest(tmp_path: Path) -> None:
    before = set(suite(tmp_path, TINY).tasks)
    load_source(tmp_path, OWN + '__version__ = "2"\n')
    assert set(suite(tmp_path, TINY).tasks) == before
    plan = suite(
        tmp_path,
        TINY.replace("rates: {head: 0.18}", "criterion: farthest").replace("0.36, ", "0.36, rates: {head: 0.18}, "),
    )
    for task in plan.tasks.values():
        content = json.loads(task.canonical)
        if content["kind"] == "mask" and content.get("criterion") == "farthest":
            assert content["plugins"] == {"own": {"sha256": LOADED["own"].digest, "version": "2"}}
        else:
            assert "plugins" not in content
    dense = {key for key, task in plan.tasks.items() if isinstance(task.spec, TrainSpec) and not task.inputs}
    assert dense <= before


def test_another_source_is_another_key_and_no_task_of_the_one_is_run_by_the_other(tmp_path: Path) -> None:
    load_source(tmp_path)
    task = next(iter(suite(tmp_path, WITH_OWN).tasks.values()))
    assert parse_spec(task.canonical) == task.spec
    forget()
    with pytest.raises(PluginError, match="needs plugin own, which is not loaded; did you forget --plugin"):
        parse_spec(task.canonical)
    load_source(tmp_path, OWN + "# a remark\n")
    assert next(iter(suite(tmp_path, WITH_OWN).tasks)) != task.key
    with pytest.raises(PluginError, match=r"made with plugin own \(.*own.py is \(.*go back to that version"):
        parse_spec(task.canonical)


def test_what_a_plugin_imports_from_its_folder_is_in_its_digest_and_nothing_else_is(tmp_path: Path) -> None:
    package = tmp_path / "kit"
    package.mkdir()
    (package / "__init__.py").write_text("import json\n")
    (package / "parts.py").write_text("NAME = 'x'\n")
    (package / "idle.py").write_text("")
    (package / "models.py").write_text(
        "from . import parts\nfrom lthbench.plugins import *\nregister_schedule(parts.NAME)(lambda place: 1.0)\n"
    )
    digests = []
    for change in ("", "parts", "idle"):
        if change:
            with (package / f"{change}.py").open("a") as file:
                file.write("\n")
        (reference,) = load_plugins([f"{tmp_path}/kit.models"])
        digests.append(LOADED["kit.models"].digest)
        assert load_plugins([reference], exactly=True) == (reference,)
        forget()
    assert digests[0] != digests[1] == digests[2]


def test_the_environment_names_plugins_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "other.py").write_text(OWN.split("@register_model")[0] + "register_schedule('flat')(lambda place: 1.0)")
    monkeypatch.setenv(plugins.VARIABLE, f"{tmp_path}/own.py,{tmp_path}/other.py")
    assert len(load_plugins()) == 2 and {"own", "other"} == set(LOADED)


def test_an_installed_distribution_names_plugins_by_its_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "own_kit-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-kit\nVersion: 1.2\n")
    (about / "top_level.txt").write_text("own\n")
    (about / "entry_points.txt").write_text("[lthbench.plugins]\nkit = own\n")
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_plugins() == ("own",), "the reference by which a worker process finds it, too"
    assert (LOADED["own"].version, LOADED["own"].place) == ("1.2", str(tmp_path / "own.py"))
    forget()
    assert load_plugins(["own"], exactly=True) == ("own",), "as a job loads it"
    forget()
    assert load_plugins([], exactly=True) == () and not LOADED, "and no other"
    (about / "entry_points.txt").write_text("[lthbench.plugins]\nkit = own_gone\n")
    with pytest.raises(PluginError, match="plugin own_gone: there is no such module, installed or in"):
        load_plugins()


HEAD = "from lthbench.plugins import *\n"


@pytest.mark.parametrize(
    ("source", "message"),
    {
        "import nothing_such\n": "own.py: cannot be imported: .*own.py, line 1: ModuleNotFoundError: .*mend it",
        "x = (\n": "cannot be read: .*own.py, line 1: SyntaxError",
        "x = 1\n": "registers nothing; call register_model",
        HEAD + "register_model('resnet20', width=1)(int)": "own: lthbench has a model called 'resnet20' already;",
        HEAD + "for i in (1, 2): register_model('a', width=1)(int)": "plugin own has a model called 'a'",
        HEAD + "register_criterion('a b')(abs)": "'a b' is not a valid name of a criterion; use letters",
        HEAD + "register_experiment('a')(Experiment)": "must be a class of Experiment that has `measurements`",
        HEAD + "import torch\nregister_optimizer('a')(torch.optim.LBFGS)": "LBFGS needs a closure",
    }.items(),
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_reported_with_its_name_and_a_cure(
    tmp_path: Path, source: str, message: str
) -> None:
    before = [set(table) for table in (MODELS, CRITERIA, OPTIMIZERS)]
    with pytest.raises(PluginError, match=message) as told:
        load_source(tmp_path, source)
    assert "\n" not in str(told.value)
    assert [set(table) for table in (MODELS, CRITERIA, OPTIMIZERS)] == before and not LOADED


def test_a_name_of_two_plugins_and_a_file_that_is_not_there_are_reported(tmp_path: Path) -> None:
    load_source(tmp_path)
    with pytest.raises(PluginError, match="plugin other: plugin own has a model called 'own-net' already"):
        load_source(tmp_path, name="other.py")
    with pytest.raises(PluginError, match=r"gone\.py: there is no such file"):
        load_plugins([str(tmp_path / "gone.py")])
    with pytest.raises(PluginError, match="there is no such module, installed or in"):
        load_plugins(["gone.module"])
    with pytest.raises(PluginError, match="is registered outside a plugin: name its file by --plugin"):
        plugins.register_model("x", width=1)(nn.Identity)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("lenet-300-100, width: 10", "own-net", "model"),
        ("rates: {head: 0.18}", "criterion: farthest", "pruning criterion"),
        ("name: sgd", "name: heavy-ball", "optimizer"),
        ("steps: 3ep", "steps: 3ep\n      schedule: {name: halves}", "schedule"),
        ("steps: 3ep", "steps: 3ep\n      augment: {own: [noise]}", "augmentation"),
        ("imp: {levels: 2}\n", "mine: {levels: 2}\n", "experiment"),
    ],
)
def test_a_suite_that_needs_a_missing_plugin_asks_for_it(tmp_path: Path, old: str, new: str, kind: str) -> None:
    with pytest.raises(SuiteError, match=rf"no {kind} is called '[\w-]+'.*forget --plugin\?"):
        suite(tmp_path, TINY.replace(old, new, 1))


def net(init: str, forward: str, options: str = "") -> str:
    return (
        "import torch\nfrom torch import nn\nfrom lthbench.plugins import *\n"
        f"@register_model('own-net', width=4{options})\nclass Net(nn.Module):\n"
        f"    def __init__(self, image_shape, num_classes, width):\n        super().__init__()\n        {init}\n"
        f"    def forward(self, x):\n        {forward}\n"
    )


LINEAR = "self.fc = nn.Linear(784, num_classes)"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (net("self.fc = nn.Linear(784, 7)", "return self.fc(x.flatten(1))"), "ends in fc with 7 outputs"),
        (net(LINEAR, "return self.fc(x.flatten(1))[:1]"), r"makes \(1, 10\) of 2 images, expected logits \(2, 10\)"),
        (net(LINEAR, "return self.fc(x)"), "fails on 2 images of .1, 28, 28.*RuntimeError"),
        (net("self.x = nn.Parameter(torch.ones(3))", "return x"), "has no weight of a convolution or linear layer"),
        (net(LINEAR + "; self.scale = nn.Parameter(torch.ones(1))", "return self.fc(x.flatten(1))"),
         "no rule initialises scale of a Net; give one by initial="),
        (net(LINEAR, "return self.fc(x.flatten(1))", ", head='out'"), "has no weight out.weight that can be pruned"),
        (net(LINEAR, "return self.fc(x.flatten(1))", ", prunable=('conv*',)"), "has no weight that can be pruned"),
        (net(LINEAR + "; self.norm = nn.BatchNorm2d(1, track_running_stats=False)", "return self.fc(x.flatten(1))"),
         "a batch normalisation without running statistics"),
        (net(LINEAR, "y = self.fc(x.flatten(1)); y.sum().item(); return y + torch.rand(1)"),
         "gives other logits for the same images"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_a_ticket_is_a_fault_of_the_suite_that_names_plugin_and_cure(
    tmp_path: Path, source: str, message: str
) -> None:
    load_source(tmp_path, source)
    text = TINY.replace("lenet-300-100, width: 10", "own-net").replace(", rates: {head: 0.18}", "")
    with pytest.raises(SuiteError, match=rf"model.name: model 'own-net' of plugin own .*{message}"):
        suite(tmp_path, text)


def test_what_is_pruned_and_what_is_the_head_can_be_said(tmp_path: Path) -> None:
    init = (
        "self.out = nn.Linear(784, num_classes); self.gate = nn.Parameter(torch.ones(784)); self.side = nn.Linear(2, 2)"
    )
    options = (
        ", head='out', prunable=('out.weight', 'gate'), initial=lambda n, s, r: r.random(s) if n == 'gate' else None"
    )
    load_source(tmp_path, net(init, "return self.out(x.flatten(1) * self.gate)", options))
    spec, info = ModelSpec(name="own-net"), DataSpec(name="fashion-mnist-10k").info
    assert spec.layers(info) == ["gate", "out.weight"]
    network = make_network(spec, DataSpec(name="fashion-mnist-10k"), torch.device("cpu"))
    set_initial_weights(network, spec, 0)
    assert 0 <= float(network.get_parameter("gate").min()) < 0.1


def test_a_criterion_of_a_wrong_shape_or_with_nan_is_reported_with_plugin_and_layer(tmp_path: Path) -> None:
    load_source(
        tmp_path,
        HEAD + "register_criterion('sums')(lambda layer: layer.weight.sum())\n"
        "register_criterion('ratios')(lambda layer: layer.weight / layer.start)\n",
    )
    ones, mask = torch.ones(2, 3), torch.tensor([[True, False, True]] * 2)
    layer = Layer("fc.weight", ones, ones.clone(), mask, None)
    with pytest.raises(ValueError, match=r"criterion 'sums' of plugin own: its scores of fc.weight have shape \(\)"):
        scores_of("sums", layer)
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"'ratios' of plugin own: .* are NaN for 4 surviving weights"):
        scores_of("ratios", layer._replace(weight=zeros, start=zeros))
    assert torch.equal(scores_of("ratios", layer), ones)


def test_everything_of_a_plugin_at_once_runs_and_prunes_what_its_criterion_says(tmp_path: Path) -> None:
    (reference,) = load_source(tmp_path)
    plan = suite(tmp_path, WITH_OWN.split("      rewound:")[0].replace("late: {recipe: {optimizer: {lr: 0.2}}}", ""))
    _, store = run_here(plan, tmp_path / "store")
    masks = [store.result(key) for key, task in plan.tasks.items() if task.spec.kind == "mask"]
    assert len(masks) == 2
    for result in masks:
        assert result is not None and result["status"] == "ok"
        # The farthest are pruned first.
        assert result["metrics"]["distance_rms_pruned"] > result["metrics"]["distance_rms_kept"]
    order = JobSpec(
        tmp_path, Subset(), LaneOwner("a", "b", 0, "imp"), {}, tmp_path, RunOptions(plugins=(reference,)), 1.0
    )
    assert JobSpec.parse(order.text()) == order
    settings = Settings(tmp_path, plugins=(reference,))
    assert Settings.loads(settings.dumps()) == settings


def trainer(**recipe: Any) -> Trainer:
    data = DataSpec(name="fashion-mnist-10k", num_train=60)
    whole = Recipe.model_validate(
        {"steps": "3ep", "batch_size": 20, "optimizer": {"name": "heavy-ball", "lr": 0.1}, **recipe}
    )
    spec = ModelSpec(name="own-net")
    network = make_network(spec, data, torch.device("cpu"))
    set_initial_weights(network, spec, 0)
    mask = {"conv.weight": torch.arange(36).reshape(4, 1, 3, 3) % 2 == 0}
    return Trainer(network, load(data).train, whole, num_classes=10, seed=0, mask=mask, may_draw=True)


def test_a_model_that_drops_out_and_an_optimizer_that_counts_go_on_from_a_checkpoint_to_the_same_bits(
    tmp_path: Path,
) -> None:
    load_source(tmp_path)
    whole, first, second = trainer(), trainer(), trainer()
    torch.manual_seed(1)
    whole.run()
    for _ in range(4):
        first.model.train()
        first.one_step()
    tensors, note = first.state()
    assert note["optimizer_numbers"]["0.count"] == 4
    torch.manual_seed(2)
    second.restore({name: t.clone() for name, t in tensors.items()}, json.loads(json.dumps(note)))
    second.run()
    for name, weight in weights_of(whole.model).items():
        assert torch.equal(weight, second.model.state_dict()[name])
    pruned = whole.model.get_parameter("conv.weight").detach().reshape(-1)[1::2]
    assert not pruned.any() and whole.model.get_parameter("conv.weight").any()


def test_an_optimizer_that_is_masked_from_without_does_what_the_masked_one_does() -> None:
    found = []
    for make in (
        lambda p, m, a: MaskedSGD([p], lr=0.1, momentum=0.9, weight_decay=0.1, masks={p: m}, anchors={p: a}, pull=0.5),
        lambda p, m, a: mask_optimizer(
            torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1), {p: m}, {p: a}, 0.5
        ),
    ):
        generator = torch.Generator().manual_seed(0)
        p = nn.Parameter(torch.randn(40, generator=generator))
        mask, anchor = torch.rand(40, generator=generator) < 0.5, torch.randn(40, generator=generator)
        optimizer = make(p, mask, anchor)  # type: ignore[no-untyped-call]
        for _ in range(3):
            p.grad = torch.randn(40, generator=generator)
            optimizer.step()
        assert not p.detach()[~mask].any()
        found.append(p.detach().clone())
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_an_augmentation_is_the_same_however_a_batch_is_divided_and_must_keep_the_shape(
    tmp_path: Path, kind: str
) -> None:
    load_source(tmp_path, OWN + "register_augmentation('flat')(lambda levels, rng: levels.flatten(1))\n")
    images = load(DataSpec(name="fashion-mnist-10k", num_train=60)).train
    recipe = Recipe.model_validate(
        {"steps": "1ep", "batch_size": 20, "augment": {"own": [kind]}, "optimizer": {"name": "sgd", "lr": 0.1}}
    )

    def batch(ranks: Ranks) -> torch.Tensor:
        return Batches(images, recipe, 10, 0, 0, nn.Identity(), ranks).at(0)[1][0].images

    if kind == "flat":
        with pytest.raises(
            ValueError, match=r"'flat' of plugin own made shape \(20, 784\) of levels \(20, 1, 28, 28\)"
        ):
            batch(Ranks())
        return
    whole = batch(Ranks())
    assert torch.equal(whole, torch.cat([batch(Ranks(rank, 2)) for rank in (0, 1)]))
    assert not torch.equal(whole, images.batch(torch.arange(20), Augment()))


def test_a_schedule_that_gives_no_rate_is_a_fault_of_the_suite(tmp_path: Path) -> None:
    load_source(tmp_path, HEAD + "register_schedule('odd')(lambda place: 1 / (place.iteration - 7))\n")
    with pytest.raises(
        SuiteError, match=r"schedule.name: schedule 'odd' of plugin own is -0\.\d+ at iteration 0 of 15"
    ):
        suite(tmp_path, TINY.replace("steps: 3ep", "steps: 3ep\n      schedule: {name: odd}"))


def test_a_network_that_cannot_be_traced_or_run_without_numbers_is_planned_and_evaluated_along_a_line(
    tmp_path: Path,
) -> None:
    forward = "x = x.flatten(1); x = x if float(x.detach().sum()) > -1e9 else -x; return self.fc(x)"
    load_source(tmp_path, net(LINEAR, forward))
    spec, data = ModelSpec(name="own-net"), DataSpec(name="fashion-mnist-10k", num_train=60)
    assert model_cost(spec, data).forward_flops == 2 * 784 * 10
    ends, network = [], make_network(spec, data, torch.device("cpu"))
    for seed in (0, 1):
        set_initial_weights(network, spec, seed)
        ends.append(weights_of(network))
    line = evaluate_linear_path(network, *ends, np.linspace(0, 1, 3), load(data).test.sample(50).batches(50))
    assert line.num_images == 50 and bool(line.loss.isfinite().all())


def test_unknown_options_of_an_own_optimizer_are_reported_with_the_nearest_known_one(tmp_path: Path) -> None:
    load_source(tmp_path)
    with pytest.raises(
        SuiteError, match=r"decey: unknown option of optimizer 'heavy-ball' of plugin own; did you mean 'decay'"
    ):
        suite(
            tmp_path,
            TINY.replace(
                "name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3", "name: heavy-ball, lr: 1, decey: 2"
            ),
        )
