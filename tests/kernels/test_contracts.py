"""Every operator and every optimizer refuses what its contract forbids; it names the argument."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from devices import needs_kernels
from devices import reference as on_reference
from torch import Tensor, nn

import lthbench.bench.timing
import lthbench.engine.blocked_training  # noqa: F401 (both have operators' shapes)
from lthbench.engine import evaluate_linear_path
from lthbench.ops import MaskedAdamW, MaskedSGD, prune_lowest
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import SparsityPattern, sparse_convolution, winograd_convolution
from lthbench.ops.interpolation import count_errors, lerp_linear, lerp_relu, lerp_stacked
from lthbench.ops.masks import pack_mask

N = 40  # weights, of which the second word of a mask holds 8


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def words() -> Tensor:
    return pack_mask(torch.arange(N) % 3 > 0)


def dirty() -> Tensor:
    """A mask with a bit after its last weight."""
    return words() | ints(0, 1 << 8)


def w() -> Tensor:
    return torch.ones(N)


def right() -> dict[str, dict[str, Any]]:
    """For each operator arguments that it takes."""
    update = {"weights": [w(), w()], "grads": [w(), w()]}
    rest = {"masks": [words(), ints()], "anchors": [w(), torch.empty(0)], "lr": 0.1}
    pull = {"weight_decay": 0.1, "pull": 0.1}
    return {
        "pack_mask": {"mask": torch.ones(N, dtype=torch.bool)},
        "unpack_mask": {"words": words(), "numel": N},
        "count_survivors": {"masks": [words(), words()]},
        "prune_lowest": {
            "scores": [w(), w()], "masks": [words(), words()], "groups": [0, 0], "num_pruned": [3], "magnitude": True,
        },
        "probe_read": {"words": words()},
        "probe_fma": {"start": torch.ones(1), "rounds": 1},
        "probe_update_": {"a": w(), "b": w(), "c": w(), "d": w()},
        "masked_sgd_": {
            **update, "momenta": [w(), w()], **rest, "momentum": 0.9, "dampening": 0.0, **pull, "nesterov": False,
            "first_step": False,
        },
        "masked_adamw_": {
            **update, "exp_avgs": [w(), w()], "exp_avg_sqs": [w(), w()], **rest, "beta1": 0.9, "beta2": 0.99,
            "eps": 1e-8, **pull, "step": 1,
        },
        "check_update": {
            "weights": [w(), w()], "first": [w(), w()], "second": [w(), w()], "masks": [words(), ints()],
            "anchors": [w(), torch.empty(0)], "steps": [torch.ones(()), torch.ones(())], "steps_on_device": False,
        },
        "lerp_stacked_": {
            "out": [torch.ones(2, N)], "a": [w()], "b": [w()], "alphas": torch.tensor([0.0, 1.0]), "relu": False,
        },
        "lerp_linear": {
            "a": torch.ones(3, 5), "b": torch.ones(3, 5), "alphas": torch.ones(2), "weight": torch.ones(2, 5, 16),
            "bias": torch.ones(2, 16), "relu": False,
        },
        "count_errors": {"logits": torch.ones(2, 5, 3), "labels": torch.ones(5, dtype=torch.int64)},
        "sparse_convolution": {
            "input": torch.ones(1, 2, 6, 6, 16), "values": torch.ones(3), "col_indices": ints(0, 4, 2),
            "row_ptr": ints(0, 2, 3), "bias": torch.ones(2), "residual": torch.ones(1, 2, 6, 6, 16), "kernel": 3,
            "stride": 1, "padding": 1, "relu": False,
        },
        "sparse_convolution_pair": {
            "input": torch.ones(1, 2, 6, 6, 16), "first_values": torch.ones(3), "first_col_indices": ints(0, 4, 2),
            "first_row_ptr": ints(0, 2, 3), "first_bias": torch.ones(2), "first_kernel": 3, "first_stride": 1,
            "first_padding": 1, "first_relu": True, "values": torch.ones(3), "col_indices": ints(0, 4, 2),
            "row_ptr": ints(0, 2, 3), "bias": torch.ones(2), "residual": torch.ones(1, 2, 6, 6, 16), "kernel": 3,
            "stride": 1, "padding": 1, "relu": False,
        },
        "winograd_convolution": {
            "input": torch.ones(1, 2, 6, 6, 16), "weight": torch.ones(2, 2, 3, 3), "bias": torch.ones(2),
            "residual": torch.ones(1, 2, 6, 6, 16), "relu": False,
        },
        "sparse_linear": {
            "input": torch.ones(3, 5), "values": torch.ones(3), "col_indices": ints(0, 2, 1), "row_ptr": ints(0, 2, 3),
            "bias": torch.ones(2),
        },
        "sparse_linear_input_gradient": {
            "grad": torch.ones(2, 5), "values": torch.ones(3), "row_indices": ints(0, 1, 0),
            "col_ptr": ints(0, 1, 2, 3), "order": ints(0, 2, 1),
        },
        "sparse_linear_weight_gradient": {
            "input": torch.ones(3, 5), "grad": torch.ones(2, 5), "col_indices": ints(0, 2, 1),
            "row_ptr": ints(0, 2, 3),
        },
        "convolution_layer": {
            "input": torch.ones(1, 2, 4, 4, 16), "affine": torch.ones(3, 2), "residual": torch.ones(1, 2, 4, 4, 16),
            "relu": True, "keep": True, "weight": torch.ones(3), "col_indices": ints(0, 4, 2),
            "row_ptr": ints(0, 2, 3), "num_outputs": 2, "kernel": 3, "stride": 1, "padding": 1,
            "gain": torch.ones(2), "bias": torch.ones(2), "running_mean": torch.ones(2), "running_var": torch.ones(2),
            "num_images": 3, "eps": 1e-5, "momentum": 0.1,
        },
        "convolution_layer_gradient": {
            "grad": torch.ones(1, 2, 4, 4, 16), "affine_grad": torch.ones(3, 2),
            "finished_grad": torch.ones(1, 2, 4, 4, 16), "input": torch.ones(1, 2, 4, 4, 16),
            "affine": torch.ones(3, 2), "finished": torch.ones(1, 2, 4, 4, 16), "relu": True, "weight": torch.ones(3),
            "col_indices": ints(0, 4, 2), "row_ptr": ints(0, 2, 3), "row_indices": ints(0, 4, 2),
            "col_ptr": ints(0, 2, 3), "order": ints(0, 2, 1), "kernel": 3, "stride": 1, "padding": 1,
            "gain": torch.ones(2), "output": torch.ones(1, 2, 4, 4, 16), "output_affine": torch.ones(3, 2),
            "rstd": torch.ones(2), "num_images": 3, "passes_on": True,
        },
        "normalise": {
            "input": torch.ones(1, 2, 4, 4, 16), "affine": torch.ones(3, 2), "residual": torch.ones(1, 2, 4, 4, 16),
            "relu": True,
        },
        "normalise_gradient": {
            "grad": torch.ones(1, 2, 4, 4, 16), "input": torch.ones(1, 2, 4, 4, 16), "affine": torch.ones(3, 2),
            "finished": torch.ones(1, 2, 4, 4, 16), "relu": True, "num_images": 3,
        },
    }  # fmt: skip


def call(name: str, changes: dict[str, Any]) -> Any:
    arguments = right()[name]
    assert changes.keys() <= arguments.keys()
    return getattr(torch.ops.lthbench, name)(*(arguments | changes).values())


def tensor_arguments() -> list[tuple[str, str, int | None]]:
    """Of each operator's tensor arguments: its name, and the index where it is a list."""
    found: list[tuple[str, str, int | None]] = []
    for name, arguments in right().items():
        for argument, value in arguments.items():
            if isinstance(value, Tensor):
                found.append((name, argument, None))
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                found.append((name, argument, 0))
    return found


EACH = tensor_arguments() if kernels_available("cpu") else []
ALONE = {("pack_mask", "mask"), ("unpack_mask", "words"), ("probe_read", "words"), ("probe_fma", "start")}
SINGLE = {("probe_fma", "start"), ("check_update", "steps")}  # one number
SHAPELESS = {("pack_mask", "mask"), ("probe_read", "words"), ("count_survivors", "masks")}


def changed(name: str, argument: str, index: int | None, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    value = right()[name][argument]
    return {argument: change(value) if index is None else [*value[:index], change(value[index]), *value[index + 1 :]]}


def told(name: str, *arguments: str) -> str:
    """A pattern of an argument's name in a message; a plan's states are told by the optimizer's names for them."""
    states = {"first": "first|exp_avgs", "second": "second|exp_avg_sqs"} if name == "check_update" else {}
    return rf"\b({'|'.join(states.get(a, a) for a in arguments)})\b"


def refused(name: str, argument: str, index: int | None, change: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((RuntimeError, ValueError), match=told(name, argument)):
        call(name, changed(name, argument, index, change))


@needs_kernels
@pytest.mark.parametrize("name", right() if kernels_available("cpu") else [])
def test_the_arguments_that_the_faults_are_planted_in_are_right(name):
    call(name, {})


@needs_kernels
def test_all_operators_are_here():
    known = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("lthbench::")}
    assert known == set(right())


@pytest.mark.parametrize("name, argument, index", EACH)
def test_another_dtype_is_refused(name, argument, index):
    refused(name, argument, index, lambda t: t.double())


@pytest.mark.parametrize("name, argument, index", [a for a in EACH if a[:2] not in SINGLE])
def test_gaps_in_memory_are_refused(name, argument, index):
    refused(name, argument, index, lambda t: t.repeat_interleave(2, -1)[..., ::2])


@pytest.mark.parametrize("name, argument, index", [a for a in EACH if a[:2] not in SHAPELESS])
@pytest.mark.parametrize("size", ["longer", "shorter", "none"])
def test_another_size_is_refused(name, argument, index, size):
    if size == "none" and argument in ("masks", "anchors") and name != "prune_lowest":
        return  # stands for none
    change = {
        "longer": lambda t: torch.cat([t.reshape(-1), t.reshape(-1)]),
        "shorter": lambda t: t.reshape(-1)[: t.numel() // 4 if t.numel() > 4 else t.numel() - 1],
        "none": lambda t: t.reshape(-1)[:0],
    }[size]
    # Of two that do not fit each other, either may be the one that is told.
    with pytest.raises((RuntimeError, ValueError), match=told(name, *right()[name])):
        call(name, changed(name, argument, index, change))


@pytest.mark.parametrize("name, argument, index", [a for a in EACH if a[:2] not in ALONE])
def test_a_tensor_on_another_device_is_refused(name, argument, index):
    refused(name, argument, index, lambda t: t.to("meta"))


FLOAT_RATES = [
    *(("masked_sgd_", rate) for rate in ("lr", "momentum", "dampening", "weight_decay", "pull")),
    *(("masked_adamw_", rate) for rate in ("lr", "beta1", "beta2", "eps", "weight_decay", "pull")),
]


@needs_kernels
@pytest.mark.parametrize("name, rate", FLOAT_RATES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1e39])
def test_rates_that_are_no_numbers_or_negative_are_refused_and_nothing_is_written(name, rate, value):
    arguments = right()[name] | {rate: value}
    with pytest.raises(RuntimeError, match=rf"\b{rate} is "):
        getattr(torch.ops.lthbench, name)(*arguments.values())
    assert torch.equal(arguments["weights"][0], w())


CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("prune_lowest", {"masks": [words(), dirty()]}, r"masks\[1\] has bits set after the last of its 40 weights"),
    ("unpack_mask", {"words": dirty()}, "words has bits set after the last"),
    ("masked_sgd_", {"masks": [dirty(), ints()]}, r"masks\[0\] has bits set after the last"),
    ("masked_adamw_", {"masks": [dirty(), ints()]}, r"masks\[0\] has bits set after the last"),
    ("check_update", {"masks": [dirty(), ints()]}, r"masks\[0\] has bits set after the last"),
    ("unpack_mask", {"numel": -1}, "numel is -1"),
    ("unpack_mask", {"numel": 2**63 - 1}, "words has 2 words"),
    ("prune_lowest", {"num_pruned": [-1]}, r"num_pruned\[0\] is -1"),
    ("prune_lowest", {"num_pruned": [2**62]}, r"num_pruned\[0\] is \d+, more than"),
    ("prune_lowest", {"groups": [0, 2**32]}, r"groups\[1\] is 4294967296"),
    ("probe_fma", {"rounds": -1}, "rounds is -1"),
    ("masked_adamw_", {"step": 0}, "step is 0"),
    ("masked_adamw_", {"beta1": 1.0}, "beta1 is 1"),
    ("masked_sgd_", {"nesterov": True, "dampening": 0.5}, "nesterov is set"),
    ("masked_sgd_", {"momenta": []}, "momenta is empty"),
    ("check_update", {"weights": []}, "(weights is empty|first has 2 tensors)"),
    ("check_update", {"steps": []}, "steps has 0 tensors"),
    ("check_update", {"first": [], "steps": []}, "exp_avgs has 0 tensors"),
    ("check_update", {"steps": [torch.ones(2), torch.ones(())]}, r"steps\[0\] has 2 elements"),
    ("lerp_stacked_", {"alphas": torch.tensor([0.0, math.nan])}, r"alphas\[1\] is -?nan"),
    ("lerp_linear", {"alphas": torch.tensor([math.inf, 0.0])}, r"alphas\[0\] is inf"),
    ("sparse_convolution", {"stride": 0}, "stride"),
    ("sparse_convolution", {"stride": -1}, "stride"),
    ("sparse_convolution", {"kernel": 2**40}, "kernel is 1099511627776"),
    ("sparse_convolution", {"col_indices": ints(4, 0, 2)}, r"col_indices\[1\] is 0, not above the one before"),
    ("sparse_convolution", {"col_indices": ints(4, 4, 2)}, r"col_indices\[1\] is 4, not above the one before"),
    ("sparse_convolution", {"row_ptr": ints(0, 2**31 - 1, 3)}, "row_ptr decreases at entry 1"),
    ("sparse_convolution", {"input": torch.ones(1, 0, 6, 6, 16)}, "input has no channel"),
    ("winograd_convolution", {"input": torch.ones(1, 0, 6, 6, 16)}, "input has no channel"),
    ("winograd_convolution", {"bias": torch.ones(0)}, "bias has no output channel"),
    ("sparse_convolution", {"input": torch.empty(0, 2, 2**21, 2**21, 16), "residual": None}, "input has 2 planes"),
    ("sparse_linear", {"col_indices": ints(0, 3, 1)}, r"col_indices\[1\] is 3, expected 0 to 2"),
    ("sparse_linear", {"row_ptr": ints(0, 2, 4)}, "row_ptr does not go from 0 to the 3"),
    ("sparse_linear", {"bias": torch.ones(3)}, "bias has 3 entries, expected 2"),
    ("sparse_linear", {"values": torch.ones(4)}, "values has 4 entries"),
    ("sparse_linear_input_gradient", {"order": ints(0, 2, 3)}, r"order\[2\] is 3, expected 0 to 2"),
    ("sparse_linear_input_gradient", {"row_indices": ints(0, 2, 0)}, r"row_indices\[1\] is 2, expected 0 to 1"),
    ("sparse_linear_weight_gradient", {"grad": torch.ones(2, 4)}, "grad has 4 images, input 5"),
    ("sparse_linear_weight_gradient", {"grad": torch.ones(3, 5)}, "grad has 3 outputs, row_ptr 2"),
    ("sparse_convolution_pair", {"kernel": 4}, "kernel is 4, more than 2 larger"),
    (
        "sparse_convolution_pair",
        {"first_col_indices": ints(0, 18, 2)},
        r"first_col_indices\[1\] is 18, expected 0 to 17",
    ),
    ("sparse_convolution_pair", {"col_indices": ints(0, 18, 2)}, r"col_indices\[1\] is 18, expected 0 to 17"),
    ("sparse_convolution_pair", {"residual": torch.ones(1, 2, 5, 6, 16)}, "residual has 5 entries in dimension 2"),
    ("convolution_layer", {"kernel": 4}, "kernel is 4, more than 2 larger"),
    ("convolution_layer", {"stride": 0}, "stride"),
    (
        "convolution_layer",
        {"num_images": 1, "stride": 2**62, **{name: torch.ones(1, 2, 4, 4, 16) for name in ("input", "residual")}},
        "two values of a channel",
    ),
    ("convolution_layer", {"num_outputs": 0}, "weight has no output channel"),
    ("convolution_layer", {"num_images": 0}, "num_images is 0"),
    ("convolution_layer", {"num_images": 17}, "num_images is 17, which do not make the 1 blocks"),
    ("convolution_layer", {"eps": math.nan}, "eps is nan"),
    ("convolution_layer", {"momentum": -1.0}, "momentum is -1"),
    ("convolution_layer", {"running_var": None}, "running_mean and running_var are given together"),
    ("convolution_layer", {"gain": None, "bias": None}, "given together, and with gain"),
    ("convolution_layer", {"bias": None}, "gain and bias are given together"),
    ("convolution_layer", {"row_ptr": None}, "col_indices and row_ptr are given together"),
    ("convolution_layer", {"affine": None, "residual": None, "relu": False}, "keep is given without affine"),
    ("convolution_layer", {"affine": None}, "residual and relu are given without affine"),
    ("convolution_layer", {"affine": torch.ones(2, 2)}, r"affine has not the shape \[3, 2\]"),
    ("convolution_layer", {"gain": torch.ones(3)}, r"gain has not the shape \[2\]"),
    ("convolution_layer", {"col_indices": None, "row_ptr": None}, "weight is not contiguous with 4 dimensions"),
    (
        "convolution_layer",
        {"col_indices": None, "row_ptr": None, "weight": torch.ones(2, 2, 3, 3), "stride": 2},
        "stride is 2, expected 1",
    ),
    ("convolution_layer", {"col_indices": ints(4, 4, 2)}, r"col_indices\[1\] is 4, not above"),
    ("convolution_layer", {"input": torch.ones(1, 2, 0, 4, 16), "residual": None}, "input has no shape"),
    ("convolution_layer", {"input": torch.empty(0, 2, 2**21, 2**21, 16), "residual": None}, "input has 2 planes"),
    ("convolution_layer_gradient", {"stride": 2}, "grad has no shape"),
    ("convolution_layer_gradient", {"num_images": -1}, "num_images is -1"),
    ("convolution_layer_gradient", {"order": ints(0, 1, 3)}, r"order\[2\] is 3, expected 0 to 2"),
    ("convolution_layer_gradient", {"row_indices": ints(0, 4, 18)}, r"row_indices\[2\] is 18, expected 0 to 17"),
    ("convolution_layer_gradient", {"col_ptr": ints(0, 3, 2)}, "col_ptr does not go from 0 to the 3"),
    ("convolution_layer_gradient", {"order": None}, "lists by output and by input channel are given together"),
    ("convolution_layer_gradient", {"rstd": None}, "output_affine and rstd are given together"),
    ("convolution_layer_gradient", {"input": torch.ones(2, 2, 4, 4, 16), "finished": None}, "grad has no shape"),
    ("convolution_layer_gradient", {"affine": None, "relu": False}, "finished is given without affine"),
    ("convolution_layer_gradient", {"finished": torch.ones(1, 2, 4, 4, 15)}, "finished has 15 entries"),
    ("normalise", {"affine": torch.ones(3, 3)}, r"affine has not the shape \[3, 2\]"),
    ("normalise_gradient", {"num_images": 33}, "num_images is 33, which do not make the 1 blocks"),
]


@needs_kernels
@pytest.mark.parametrize("name, changes, message", CHANGES)
def test_other_faults_are_refused_by_name(name, changes, message):
    with pytest.raises(RuntimeError, match=message):
        call(name, changes)


@needs_kernels
@pytest.mark.parametrize("name", ["masked_sgd_", "masked_adamw_", "check_update", "lerp_stacked_", "probe_update_"])
def test_what_is_written_shares_no_memory_with_any_other_argument(name):
    arguments = right()[name]
    tensors = {n: (v[0] if isinstance(v, list) else v) for n, v in arguments.items() if isinstance(v, (Tensor, list))}
    schema = getattr(torch.ops.lthbench, name).default._schema.arguments
    written = {a.name for a in schema if a.alias_info is not None and a.alias_info.is_write}
    written |= {"weights", "first", "second"} & set(arguments)
    for one in written:
        room = torch.ones(4 * N)
        for other in tensors.keys() - {one, "masks", "steps", "alphas"}:
            changes = {}
            for argument, begin in ((one, 0), (other, N - 1)):  # they share one element, or the first's last
                shape = tensors[argument].shape
                piece = room[begin : begin + tensors[argument].numel()].view(shape)
                value = arguments[argument]
                changes[argument] = [piece, *value[1:]] if isinstance(value, list) else piece
            with pytest.raises(RuntimeError, match=told(name, one, other) + ".* overlap in memory"):
                call(name, changes)


def test_bytes_that_are_neither_0_nor_1_count_as_kept():
    bits = torch.arange(N, dtype=torch.uint8).view(torch.bool)
    assert torch.equal(pack_mask(bits), pack_mask(torch.arange(N) > 0))


# The optimizers: on a plan where there are kernels, and on the reference.

RATES = [
    (MaskedSGD, {"lr": 0.1}, ("lr", "momentum", "dampening", "weight_decay", "pull")),
    (MaskedAdamW, {}, ("lr", "eps", "weight_decay", "pull")),
]


def parameter(n: int = N) -> nn.Parameter:
    p = nn.Parameter(torch.ones(n))
    p.grad = torch.ones(n)
    return p


@pytest.mark.parametrize("make, options, rates", RATES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_optimizers_refuse_rates_when_they_are_made_and_when_they_step(make, options, rates, value, request):
    for rate in rates:
        with pytest.raises(ValueError, match=f"{rate} is {value}"):
            make([parameter()], **(options | {rate: value}))
        with on_reference():
            optimizer = make([parameter()], **options)
            optimizer.param_groups[0][rate] = value
            with pytest.raises(ValueError, match=f"{rate} is {value}"):
                optimizer.step()
        p = parameter()
        optimizer = make([p], **options)
        optimizer.param_groups[0][rate] = value
        with pytest.raises((RuntimeError, ValueError), match=f"{rate} is -?{abs(value)}"):
            optimizer.step()
        assert torch.equal(p, torch.ones(N))
        assert not any(float(state.get("step", 0)) for state in optimizer.state.values())


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, math.nan), (-0.1, 0.9)])
def test_adamw_refuses_betas(betas):
    with pytest.raises(ValueError, match=r"betas\[\d\] is"):
        MaskedAdamW([parameter()], betas=betas)


def test_tensors_that_share_memory_are_refused_by_an_optimizer_in_any_group():
    room = torch.ones(100)
    p, q = (nn.Parameter(room[begin : begin + 50]) for begin in (0, 49))
    for groups in ([p, q], [{"params": [p]}, {"params": [q]}], [p, p]):
        with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
            MaskedSGD(groups, 0.1)
    with pytest.raises(ValueError, match=r"params\[0\] and the anchor of params\[0\] share memory"):
        MaskedSGD([p], 0.1, anchors={p: p.detach()})
    # Neighbours, and one anchor for two parameters, share nothing that is written.
    q, anchor = nn.Parameter(room[50:]), torch.zeros(50)
    assert MaskedSGD([p, q], 0.1, anchors={p: anchor, q: anchor}).squared_distance() == 100


def swapped_data(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    p.data = torch.ones(2 * N)


def resized_gradient(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    assert p.grad is not None
    p.grad.resize_(N - 10)


def own_gradient(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    p.grad = p.detach()


def buffer_of_another_length(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    optimizer.state[p]["momentum_buffer"] = torch.ones(3)


def weight_as_buffer(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    optimizer.state[p]["momentum_buffer"] = p.detach()


def anchor_without_memory(p: nn.Parameter, optimizer: Any) -> None:
    optimizer.anchors[p].untyped_storage().resize_(0)


@needs_kernels
@pytest.mark.parametrize(
    "change, message",
    [
        (swapped_data, r"\(40,\)"),
        (resized_gradient, "(size|shape|expand)"),
        (own_gradient, r"grads\[0\] and weights\[0\] overlap in memory"),
        (buffer_of_another_length, r"momenta\[0\] has another shape"),
        (weight_as_buffer, "(weights|momenta).0. and (weights|momenta).0. overlap"),
        (anchor_without_memory, r"anchors\[0\] has no memory"),
    ],
)
def test_a_plan_notices_what_was_changed_between_steps(change, message):
    p = parameter()
    optimizer = MaskedSGD([p], 0.1, momentum=0.9, anchors={p: torch.ones(N)}, pull=0.1)
    optimizer.step()
    change(p, optimizer)
    with pytest.raises((RuntimeError, ValueError), match=message):
        optimizer.step()


@needs_kernels
@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_a_weight_that_lacks_a_moment_of_adamw_is_refused(name):
    p = parameter()
    optimizer = MaskedAdamW([p])
    optimizer.step()
    del optimizer.state[p][name]
    with pytest.raises(RuntimeError, match=r"exp_avgs\[0\], exp_avg_sqs\[0\] and steps\[0\] are not all there"):
        optimizer.step()


def test_a_weight_seen_in_another_order_is_planned_anew():
    p = nn.Parameter(torch.arange(16.0).view(4, 4))
    optimizer = MaskedSGD([p], 1.0, masks={p: torch.tril(torch.ones(4, 4, dtype=torch.bool))})
    for view in (lambda t: t, lambda t: t.t()):
        p.grad = None
        p.data = view(p.data)
        p.grad = torch.zeros(4, 4)
        optimizer.step()
    assert torch.equal(p, torch.diag(torch.tensor([0.0, 5.0, 10.0, 15.0])))


def test_steps_of_a_state_dict_count_on_whatever_their_dtype():
    p = parameter()
    optimizer = MaskedAdamW([p])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["step"] = torch.tensor(7, dtype=torch.int64)
    optimizer.load_state_dict(state)
    optimizer.step()
    assert float(optimizer.state[p]["step"]) == 8


def test_capturable_steps_without_a_gradient_change_nothing():
    p = nn.Parameter(torch.ones(N))
    optimizer = MaskedAdamW([p], capturable=True)
    optimizer.step()
    assert torch.equal(p, torch.ones(N)) and not optimizer.state


# The other doors in Python.

X = torch.ones(3, requires_grad=True)
IMAGES = torch.ones(1, 2, 6, 6, 16)


@pytest.mark.parametrize(
    "door",
    [
        lambda: lerp_stacked([X], [torch.ones(3)], torch.ones(1)),
        lambda: lerp_relu(torch.ones(3), X, torch.ones(1)),
        lambda: lerp_linear(torch.ones(2, 3), torch.ones(2, 3), torch.ones(1),
                            torch.ones(1, 3, 16, requires_grad=True), torch.ones(1, 16), relu=True),
        lambda: count_errors(torch.ones(1, 2, 3, requires_grad=True), torch.ones(2, dtype=torch.int64)),
        lambda: winograd_convolution(IMAGES, torch.ones(2, 2, 3, 3, requires_grad=True), torch.ones(2)),
        lambda: sparse_convolution(IMAGES, torch.ones(4, requires_grad=True), torch.ones(2),
                                   SparsityPattern.of(torch.ones(2, 2, 1, 1, dtype=torch.bool)), 1, 1, 0),
    ],
)  # fmt: skip
def test_a_gradient_that_would_be_absent_is_refused(door):
    with pytest.raises(ValueError, match="requires a gradient"):
        door()
    with torch.no_grad():
        door()


def test_pruning_refuses_what_has_no_values_and_negative_minima():
    scores, mask = torch.ones(4), torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"scores\[0\] is on meta"):
        prune_lowest([scores.to("meta")], [mask.to("meta")], 1)
    for kernels in (True, False):
        with on_reference() if not kernels else torch.no_grad(), pytest.raises(ValueError, match="min_kept is -1"):
            prune_lowest([scores], [mask], 5, min_kept=-1)


@pytest.mark.parametrize("alphas", [[0.0, math.nan], [0.0, math.inf], [0.0, 1e39]])
def test_a_line_refuses_points_that_are_no_numbers(alphas):
    model = nn.Linear(2, 2)
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"alphas\[1\] is (nan|inf)"):
        evaluate_linear_path(model, state, state, alphas, [(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))])


def test_messages_tell_no_file_of_the_sources():
    if not kernels_available("cpu"):
        return
    with pytest.raises(RuntimeError) as told:
        call("unpack_mask", {"numel": -1})
    assert not re.search(r"\.(cpp|h):", str(told.value))
