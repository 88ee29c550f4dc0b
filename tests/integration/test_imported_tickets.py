"""Tickets of other programs: read without running theirs, matched by name and shape, and judged by our controls."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Call
from safetensors.torch import save_file
from torch import Tensor

import lthbench
from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.elsewhere import fitted, read_elsewhere
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.tasks.spec import MaskSpec, TrainSpec
from lthbench.tasks.store import TicketError
from lthbench.tasks.tensor_files import read_mask, read_tensors

CPU = torch.device("cpu")
OURS = {"fc_layers.0": "fc1", "fc_layers.1": "fc2", "fc": "fc"}
IMPORTED = TINY[: TINY.index("      imp:")] + "      imported: {tickets: [snip], level: 2}\n"


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls a command in a folder with a suite; its code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(IMPORTED)

    return call


LENET = ModelSpec(name="lenet-300-100", width=10)


def lenet(seed: int = 7) -> torch.nn.Module:
    model = make_network(LENET, DataSpec(name="fashion-mnist-10k"), CPU)
    set_initial_weights(model, LENET, seed)
    return model


def open_lth(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two files of an open_lth run, as it writes them; returns masks and weights under its names."""
    theirs = {ours: name for name, ours in OURS.items()}
    weights = {theirs[n.split(".")[0]] + "." + n.split(".")[1]: t for n, t in weights_of(lenet()).items()}
    masks = {
        n: (t.abs() > t.abs().median()).int() for n, t in weights.items() if n.endswith("weight") and n[:3] != "fc."
    }
    torch.save(masks, folder / "mask.pth")
    torch.save(weights, folder / "model_ep0_it0.pth")
    return masks, weights


def test_open_lth_s_ticket_is_trained_from_its_own_weights_beside_its_controls(call: Call, tmp_path: Path) -> None:
    masks, weights = open_lth(tmp_path)
    words = ("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip", "--weights", "model_ep0_it0.pth")
    code, out, err = call(*words)
    assert (code, err) == (0, "") and "tickets: [snip]" in out
    suite = lthbench.load_suite("suite.yaml")
    lthbench.run(suite, lthbench.Subset(arms=("early",)), where=lthbench.Local(workers=0))
    table = lthbench.results(suite)
    assert list(dict.fromkeys(table["variant"])) == ["ticket", "reinit", "random", "shuffled", "shuffled-weights"]
    kept, whole = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    density = (kept + 100) / (whole + 100)
    assert table["density"].to_numpy() == pytest.approx(density), "the layer without a mask is dense"

    tasks = {
        m.measurement.variant: m.measurement.task for m in lthbench.plan(suite).measurements if m.cell.arm == "early"
    }
    spec = tasks["ticket"].spec
    assert isinstance(spec, TrainSpec) and spec.start is not None and spec.mask == spec.start.task
    folder = suite.store.folder(spec.mask)
    for theirs, ours in (("fc_layers.0.weight", "fc1.weight"), ("fc_layers.1.weight", "fc2.weight")):
        assert torch.equal(read_mask(folder / "mask.safetensors")[ours], masks[theirs].bool())
        assert torch.equal(read_tensors(folder / "weights.safetensors")[0][ours], weights[theirs])
    result = suite.store.result(tasks["ticket"].key)
    assert result is not None
    assert result["metrics"]["distance"] == result["metrics"]["distance_from_init"], "its own, not the replicate's"
    reinit = tasks["reinit"].spec
    assert isinstance(reinit, TrainSpec) and (reinit.start, reinit.mask, reinit.init) == (None, spec.mask, 1)
    random = read_mask(suite.store.folder(tasks["random"].spec.mask) / "mask.safetensors")  # type: ignore[union-attr,arg-type]
    assert int(random["fc1.weight"].sum()) == int(masks["fc_layers.0.weight"].sum())


def test_other_contents_have_other_keys_and_the_same_ones_the_same(call: Call, tmp_path: Path) -> None:
    def key_of(store: str) -> tuple[str, str]:
        words = ("ticket", "import", "m.safetensors", "suite.yaml", "--name", "snip", "--store", store)
        digest = call(*words)[1].split()[2]
        specs = {task.key: task.spec for task in lthbench.plan(lthbench.load_suite("suite.yaml", store)).tasks.values()}
        named = {key: spec.ticket for key, spec in specs.items() if isinstance(spec, MaskSpec) and spec.ticket}
        assert list(named.values()) == [digest]
        return digest, next(iter(named))

    (tmp_path / "suite.yaml").write_text(IMPORTED.replace("level: 2", "level: 2, weights: own"))
    mask = torch.arange(784 * 30).reshape(30, 784) % 2 == 0
    keys = []
    for store, content in (("a", mask), ("b", mask), ("c", ~mask)):
        save_file({"fc1.weight": content}, "m.safetensors")
        keys.append(key_of(store))
    assert keys[0] == keys[1] and not set(keys[0]) & set(keys[2])


def test_a_file_that_holds_code_is_refused_and_nothing_of_it_is_run(call: Call, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("import sys; sys.lth_was_run = True",)

    (tmp_path / "mask.pth").write_bytes(pickle.dumps({"fc1.weight": Code()}))
    torch.save({"fc1.weight": Code()}, tmp_path / "zipped.pth")
    for name in ("mask.pth", "zipped.pth"):
        code, out, err = call("ticket", "import", name, "suite.yaml", "--name", "snip")
        assert (code, out) == (2, "") and f"{name}: cannot be read as tensors" in err
    assert not hasattr(sys, "lth_was_run") and not (tmp_path / "store").exists()


def wrong_values(masks: dict[str, Tensor]) -> None:
    masks["fc_layers.0.weight"] = masks["fc_layers.0.weight"] * 2


def other_shape(masks: dict[str, Tensor]) -> None:
    masks["fc_layers.1.weight"] = masks["fc_layers.1.weight"].T.contiguous()


def other_name(masks: dict[str, Tensor]) -> None:
    masks["hidden.weight"] = masks.pop("fc_layers.1.weight")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_values, "fc_layers.0.weight: has other values than 0 and 1"),
        (other_shape, r"fc2.weight is (30, 10) and not (10, 30)"),
        (other_name, "no layer is called hidden.weight. It has fc_layers.0.weight (30, 784), hidden.weight "
         "(10, 30); the network has fc1.weight, fc2.weight, fc.weight. Give --rename"),
    ],
)  # fmt: skip
def test_masks_that_do_not_match_are_refused_with_both_lists_of_names(
    change: Callable[[dict[str, Tensor]], None], message: str, call: Call, tmp_path: Path
) -> None:
    masks, _ = open_lth(tmp_path)
    change(masks)
    torch.save(masks, tmp_path / "mask.pth")
    code, out, err = call("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")
    assert (code, out) == (2, "") and message in err and not (tmp_path / "store" / "tickets").exists()


def test_names_are_given_by_hand_where_no_rule_knows_them(tmp_path: Path) -> None:
    masks, _ = open_lth(tmp_path)
    theirs = {name.replace("fc_layers.1", "hidden").replace("fc_layers.0", "first"): t for name, t in masks.items()}
    save_file(theirs, tmp_path / "m.safetensors")
    path = tmp_path / "m.safetensors"
    found = fitted(path, read_elsewhere(path), lenet(), Layout.of(lenet(), LENET), {"first": "fc1", "hidden.": "fc2."})
    assert torch.equal(found.masks["fc2.weight"], masks["fc_layers.1.weight"].bool())
    assert found.masks["fc.weight"].all() and found.initial == {}


def test_open_lth_s_vgg_and_imagenet_names_are_known(tmp_path: Path) -> None:
    data = DataSpec(name="cifar10")
    spec = ModelSpec(name="vgg11", width=4)
    vgg = make_network(spec, data, CPU)
    layout = Layout.of(vgg, spec)
    convs = [name for name in layout.prunable if name != "fc.weight"]
    state = vgg.state_dict()
    # A module of convolution and normalisation, or a pooling, has a number.
    numbers, theirs = [0, 2, 4, 5, 7, 8, 10, 11], {}
    for number, conv in zip(numbers, convs, strict=True):
        place = int(conv.split(".")[1])
        theirs[f"layers.{number}.conv.weight"] = torch.randn_like(state[conv])
        theirs[f"layers.{number}.conv.bias"] = torch.ones(1)
        for name, tensor in state.items():
            if name.startswith(f"layers.{place + 1}."):
                theirs[f"layers.{number}.bn.{name.rpartition('.')[2]}"] = tensor
    theirs |= {name: t for name, t in state.items() if name.startswith("fc.")}
    torch.save({n: torch.ones_like(t) for n, t in theirs.items() if n.endswith("conv.weight")}, tmp_path / "mask.pth")
    torch.save(theirs, tmp_path / "weights.pth")
    found = fitted(tmp_path, read_elsewhere(tmp_path / "mask.pth", tmp_path / "weights.pth"), vgg, layout)
    for number, conv in zip(numbers, convs, strict=True):
        assert torch.equal(found.initial[conv], theirs[f"layers.{number}.conv.weight"])
    spec = ModelSpec(name="resnet18")
    resnet = make_network(spec, data, CPU)
    layout = Layout.of(resnet, spec)
    masks = {f"model.{name}": torch.ones_like(t) for name, t in resnet.state_dict().items() if "conv" in name}
    torch.save(masks, tmp_path / "mask.pth")
    assert set(fitted(tmp_path, read_elsewhere(tmp_path / "mask.pth"), resnet, layout).masks) == set(layout.prunable)


def test_a_ticket_of_ours_goes_out_and_in_with_the_same_bits(
    tiny_run: tuple[Any, Any], call: Call, tmp_path: Path
) -> None:
    root = tiny_run[1].root
    of = ("--pair", "tiny", "--arm", "early", "--level", 2, "--out", "t.safetensors")
    assert call("ticket", "export", root.parent / "tiny.yaml", "--store", root, *of)[0] == 0
    assert call("ticket", "import", "t.safetensors", "suite.yaml", "--name", "snip")[0] == 0
    suite = lthbench.load_suite("suite.yaml")
    lthbench.run(suite, lthbench.Subset(arms=("early",)), where=lthbench.Local(workers=0))
    table = lthbench.results(suite).query("variant == 'ticket' and metric == 'test_accuracy'")
    ours = lthbench.load_ticket(lthbench.load_suite(root.parent / "tiny.yaml", root), "tiny", "early", 0, 2)
    assert list(table["value"]) == [ours.metrics["test_accuracy"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[snip]", "[snap]"),
            "no ticket in store/tickets is called 'snap'; did you mean 'snip'?; `lthbench ticket",
        ),
        (("level: 2", f"level: 2, digests: [{'ab' * 32}]"), "is another ticket, of digest"),
        (("level: 2", "level: 2, digests: []"), "are 0 of 1 tickets"),
        (("width: 10", "width: 20"), "'snip' is for {'name': 'lenet-300-100', 'width': 10"),
        (("", ""), "'snip' came without initial weights; import it with --weights, or give weights: own"),
    ],
)
def test_a_suite_that_names_a_ticket_wrongly_is_refused_with_its_line(
    change: tuple[str, str], message: str, call: Call, tmp_path: Path
) -> None:
    open_lth(tmp_path)
    assert call("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")[0] == 0
    (tmp_path / "suite.yaml").write_text(IMPORTED.replace(*change))
    code, out, err = call("plan", "suite.yaml")
    assert (code, out) == (2, "") and message in err and "suite.yaml:16: pairs.tiny.experiments.imported" in err


def test_another_ticket_of_the_same_name_is_refused_and_the_same_one_is_not(call: Call, tmp_path: Path) -> None:
    words = ("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")
    masks, _ = open_lth(tmp_path)
    assert [call(*words)[0], call(*words)[0]] == [0, 0]
    torch.save({name: 1 - mask for name, mask in masks.items()}, tmp_path / "mask.pth")
    code, _, err = call(*words)
    assert code == 2 and "another ticket has this name" in err


def test_a_damaged_ticket_fails_its_task_and_is_not_used(call: Call, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(IMPORTED.replace("level: 2", "level: 2, weights: own"))
    open_lth(tmp_path)
    assert call("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")[0] == 0
    path = tmp_path / "store" / "tickets" / "snip.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    suite = lthbench.load_suite("suite.yaml")
    ran = lthbench.run(suite, lthbench.Subset(arms=("early",)), where=lthbench.Local(workers=0))
    assert ran is not None and not ran.outcome.ran
    assert "snip.safetensors: is not what was written" in next(iter(ran.outcome.failed.values()))


def test_gc_removes_a_ticket_only_by_name_and_where_no_suite_needs_it(call: Call, tmp_path: Path) -> None:
    open_lth(tmp_path)
    (tmp_path / "suite.yaml").write_text(IMPORTED.replace("level: 2", "level: 2, weights: own"))
    assert call("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")[0] == 0
    (tmp_path / "tiny.yaml").write_text(TINY)
    path = tmp_path / "store" / "tickets" / "snip.safetensors"
    assert call("gc", "tiny.yaml", "--yes")[0] == 0 and path.exists()
    code, _, err = call("gc", "suite.yaml", "--ticket", "snip", "--yes")
    assert code == 2 and "suite.yaml needs it" in err and path.exists()
    assert call("gc", "tiny.yaml", "--ticket", "snip", "--yes")[0] == 0 and not path.exists()


def test_tickets_beyond_the_replicates_and_replicates_beyond_the_tickets_measure_nothing(
    call: Call, tmp_path: Path
) -> None:
    open_lth(tmp_path)
    two = IMPORTED.replace("replicates: 1", "replicates: 2").replace("level: 2", "level: 2, weights: own")
    (tmp_path / "suite.yaml").write_text(two)
    assert call("ticket", "import", "mask.pth", "suite.yaml", "--name", "snip")[0] == 0
    planned = lthbench.plan(lthbench.load_suite("suite.yaml"))
    assert {placed.cell.replicate for placed in planned.measurements} == {0}
    assert {placed.measurement.variant for placed in planned.measurements} == {"reinit", "random", "shuffled"}
    with pytest.raises(SuiteError, match="no experiment of pair tiny trains this ticket"):
        lthbench.load_ticket(lthbench.load_suite("suite.yaml"), "tiny", "early", 0, 2)


def test_a_ticket_that_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save({"fc1.weight": 1.0}, tmp_path / "number.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, message in (
        ("list.pth", "holds a list, expected a dictionary"),
        ("number.pth", "fc1.weight: is a float, expected a tensor"),
        ("empty.safetensors", "cannot be read as tensors"),
    ):
        with pytest.raises(TicketError, match=rf"{name}: {message}"):
            read_elsewhere(tmp_path / name)
