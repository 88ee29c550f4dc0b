"""Masked optimizers: torch.optim's bits on the survivors, exactly +0 elsewhere, and the distance of the step."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch
from devices import DEVICES, needs_kernels, reference
from torch import library, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lthbench.ops import MaskedAdamW, MaskedSGD
from lthbench.ops import reference as plain
from lthbench.ops.masked_optimizer import MaskedOptimizer
from lthbench.ops.masks import pack_mask

SHAPES = [(16, 3, 3, 3), (16,), (64, 32, 3, 3), (10, 64), (10,), (1,), (300, 201)]
STEPS = 6
SGD_OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 1e-3},
]


def make(device="cpu", density=0.3, channels_last=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(s, generator=g).to(device)) for s in SHAPES]
    if channels_last:
        params = [nn.Parameter(p.detach().to(memory_format=torch.channels_last)) if p.dim() == 4 else p for p in params]
    masks = {p: (torch.rand(p.shape, generator=g) < density).to(device) for p in params if p.dim() > 1}
    anchors = {p: p.detach().clone() for p in params if p.dim() > 1}
    return params, masks, anchors


def gradients(step, params):
    g = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.shape, generator=g).to(p.device) for p in params]


def train(optimizer, params, steps=STEPS, skip=False, start=0):
    for step in range(start, start + steps):
        for i, (p, g) in enumerate(zip(params, gradients(step, params), strict=True)):
            p.grad = None if skip and step % 3 == i % 3 else g
        optimizer.step()


def bits(t):
    return t.detach().contiguous().view(torch.int32)


def same_bits(ours, theirs):
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(ours, theirs, strict=True))


class TorchThenMask:
    """torch.optim.SGD, and after each step the mask on weights and momentum: what a masked step must equal."""

    def __init__(self, params, masks, **options):
        self.optimizer, self.masks = torch.optim.SGD(params, **options), masks
        self.mask()

    @torch.no_grad()
    def mask(self):
        for p, m in self.masks.items():
            p.masked_fill_(~m, 0.0)
            buffer = self.optimizer.state[p].get("momentum_buffer")
            if buffer is not None:
                buffer.masked_fill_(~m, 0.0)

    def step(self):
        self.optimizer.step()
        self.mask()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["loop", "foreach", "fused"])
@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_sgd_has_the_bits_of_torch_and_a_mask(options, form, device):
    if device == "cuda" and form == "fused":
        pytest.skip("torch contracts other products in its fused CUDA kernel")
    ours, masks, _ = make(device)
    theirs, their_masks, _ = make(device)
    train(MaskedSGD(ours, **options, masks=masks), ours)
    train(TorchThenMask(theirs, their_masks, **options, foreach=form == "foreach", fused=form == "fused"), theirs)
    if form == "fused":
        # torch's fused CPU kernel rounds the elements beyond its last full vector in another way than the others.
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        ours, theirs = ([p.detach().reshape(-1)[: p.numel() // 16 * 16] for p in ps] for ps in (ours, theirs))
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("skip", [False, True], ids=["all gradients", "some gradients missing"])
@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_sgd_kernel_and_reference_give_the_same_bits(options, skip, channels_last, device):
    ours, masks, anchors = make(device, channels_last=channels_last)
    optimizer = MaskedSGD(ours, **options, masks=masks, anchors=anchors, pull=0.01)
    train(optimizer, ours, skip=skip)
    with reference():
        theirs, masks, anchors = make(device, channels_last=channels_last)
        expected = MaskedSGD(theirs, **options, masks=masks, anchors=anchors, pull=0.01)
        train(expected, theirs, skip=skip)
        distance = expected.squared_distance()
    assert same_bits(ours, theirs)
    torch.testing.assert_close(optimizer.squared_distance(), distance, rtol=1e-6, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_adamw_agrees_with_torch(channels_last, device):
    options = {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1}
    ours, _, anchors = make(device, channels_last=channels_last)
    theirs, _, _ = make(device)
    train(MaskedAdamW(ours, **options, anchors=anchors), ours)
    train(torch.optim.AdamW(theirs, **options), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make_optimizer", [
    lambda p, m, a: MaskedSGD(p, 0.1, momentum=0.9, nesterov=True, masks=m, anchors=a, pull=0.1),
    lambda p, m, a: MaskedAdamW(p, 0.1, weight_decay=0.1, masks=m, anchors=a, pull=0.1),
], ids=["sgd", "adamw"])  # fmt: skip
def test_pruned_weights_and_their_state_stay_plus_zero_even_where_gradients_are_nan(make_optimizer, device):
    params, masks, anchors = make(device)
    optimizer = make_optimizer(params, masks, anchors)
    for step in range(3):
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = torch.where(masks[p], g, math.nan) if p in masks else g
        optimizer.step()
        for p, m in masks.items():
            tensors = [p, *(v for v in optimizer.state[p].values() if v.shape == p.shape)]
            for t in tensors:
                assert not t[~m].detach().view(torch.int32).any()
                assert t.isfinite().all()
    assert optimizer.squared_distance().isfinite()


@pytest.mark.parametrize("device", DEVICES)
def test_the_distance_is_that_of_the_weights_after_the_step(device):
    params, masks, anchors = make(device)
    optimizer = MaskedSGD(params, 0.1, momentum=0.9, masks=masks, anchors=anchors, pull=0.01)
    for step in range(3):
        train(optimizer, params, steps=1, start=step)
        expected = sum(((p - a).double()[masks[p]] ** 2).sum() for p, a in anchors.items())
        torch.testing.assert_close(optimizer.squared_distance(), expected.detach().cpu(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_the_distance_follows_weights_that_are_changed_between_steps(device):
    params, masks, anchors = make(device)
    optimizer = MaskedSGD(params, 0.1, masks=masks, anchors=anchors)
    train(optimizer, params, steps=1)
    with torch.no_grad():
        for p, a in anchors.items():
            p.copy_(a)
    optimizer.apply_masks()
    assert float(optimizer.squared_distance()) == 0.0


@needs_kernels  # torch's own sum depends on it
def test_the_distance_does_not_depend_on_the_thread_count():
    distances = []
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            g = torch.Generator().manual_seed(0)
            params = [nn.Parameter(torch.randn(700, 501, generator=g)) for _ in range(3)]
            anchors = {p: p.detach().clone() for p in params}
            optimizer = MaskedSGD(params, 0.1, momentum=0.9, anchors=anchors, pull=0.01)
            train(optimizer, params, steps=2)
            distances.append(optimizer.squared_distance())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*distances)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda p, m: MaskedSGD(p, 0.1, momentum=0.9, masks=m), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (lambda p, m: MaskedAdamW(p, 0.1, masks=m), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.0)),
], ids=["sgd", "adamw"])  # fmt: skip
def test_state_dicts_round_trip_and_interchange_with_torch(ours, theirs, device):
    params, masks, _ = make(device)
    optimizer = ours(params, masks)
    train(optimizer, params, steps=3)
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params]
    train(optimizer, params, steps=3, start=3)

    again, masks, _ = make(device, seed=0)
    with torch.no_grad():
        for p, w in zip(again, weights, strict=True):
            p.copy_(w)
    resumed = ours(again, masks)
    resumed.load_state_dict(saved)
    train(resumed, again, steps=3, start=3)
    assert same_bits(params, again)

    dense, _, _ = make(device)
    stock = theirs(dense)
    stock.load_state_dict(saved)
    train(stock, dense, steps=1, start=3)
    names = {name for entry in saved["state"].values() for name in entry}
    assert {name for entry in stock.state_dict()["state"].values() for name in entry} == names


@pytest.mark.parametrize("device", DEVICES)
def test_loaded_state_is_masked(device):
    dense, _, _ = make(device)
    stock = torch.optim.SGD(dense, 0.1, momentum=0.9)
    train(stock, dense, steps=1)
    params, masks, _ = make(device)
    optimizer = MaskedSGD(params, 0.1, momentum=0.9, masks=masks)
    optimizer.load_state_dict(stock.state_dict())
    for p, m in masks.items():
        assert not optimizer.state[p]["momentum_buffer"][~m].any()


@pytest.mark.parametrize("device", DEVICES)
def test_parameter_groups_have_their_own_options(device):
    ours, masks, _ = make(device)
    theirs, their_masks, _ = make(device)
    for params, m, make_optimizer in (
        (ours, masks, lambda g, m: MaskedSGD(g, 0.1, masks=m)),
        (theirs, their_masks, lambda g, m: TorchThenMask(g, m, lr=0.1)),
    ):
        groups = [
            {"params": params[:3], "lr": 0.05, "momentum": 0.9},
            {"params": params[3:], "weight_decay": 0.01},
        ]
        train(make_optimizer(groups, m), params)
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_a_schedule_changes_the_next_step(device):
    ours, masks, _ = make(device)
    theirs, their_masks, _ = make(device)
    for params, optimizer in (
        (ours, MaskedSGD(ours, 0.1, momentum=0.9, masks=masks)),
        (theirs, TorchThenMask(theirs, their_masks, lr=0.1, momentum=0.9)),
    ):
        inner = getattr(optimizer, "optimizer", optimizer)
        for step, lr in enumerate((0.1, 0.01, 0.2)):
            inner.param_groups[0]["lr"] = lr
            train(optimizer, params, steps=1, start=step)
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("swap", ["data", "state", "layout", "dtype and back"])
def test_swapped_tensors_are_noticed(swap, device):
    def run(make_optimizer):
        params, masks, _ = make(device)
        optimizer = make_optimizer(params, masks)
        inner = getattr(optimizer, "optimizer", optimizer)
        train(optimizer, params, steps=2)
        p = params[2]
        if swap == "data":
            p.data = p.data.clone() * 2
        elif swap == "state":
            inner.state[p]["momentum_buffer"] = inner.state[p]["momentum_buffer"] * 2
        elif swap == "layout":
            p.data = p.data.to(memory_format=torch.channels_last)
        else:
            p.grad = None
            p.data = p.data.double().float()
        train(optimizer, params, steps=2, start=2)
        return params

    ours = run(lambda p, m: MaskedSGD(p, 0.1, momentum=0.9, masks=m))
    theirs = run(lambda p, m: TorchThenMask(p, m, lr=0.1, momentum=0.9))
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_the_plan_keeps_the_memory_that_it_writes_to(device):
    params, masks, anchors = make(device)
    optimizer = MaskedSGD(params, 0.1, momentum=0.9, masks=masks, anchors=anchors, pull=0.01)
    train(optimizer, params, steps=1)
    with torch.no_grad():
        for p in params:
            p.data = torch.empty(0, device=device)
    optimizer.masks.clear(), optimizer.anchors.clear(), masks.clear(), anchors.clear()
    junk = [torch.full((64, 1024), 7.0, device=device) for _ in range(50)]
    for p, s in zip(params, SHAPES, strict=True):
        p.grad = None
        p.data = torch.ones(s, device=device)
        p.grad = torch.ones(s, device=device)
    optimizer.step()
    assert all(bool((j == 7.0).all()) for j in junk)
    assert all(p.isfinite().all() for p in params)


@pytest.mark.parametrize("device", DEVICES)
def test_other_dtypes_are_updated_by_the_reference(device):
    params = [nn.Parameter(torch.randn(20, 3, device=device, dtype=torch.bfloat16))]
    masks = {params[0]: torch.rand(20, 3, device=device) < 0.5}
    optimizer = MaskedSGD(params, 0.1, momentum=0.9, masks=masks)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert not params[0][~masks[params[0]]].any() and not optimizer._caches


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_noticed_by_autograd(device):
    p = nn.Parameter(torch.randn(8, 8, device=device))
    optimizer = MaskedSGD([p], 0.1)
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_and_profilers_see_a_step():
    params, masks, _ = make("cpu")
    ours = MaskedSGD(params, 0.1, masks=masks)
    seen = []
    before = [p.clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    handles = [
        ours.register_step_pre_hook(lambda *_: seen.append(("pre", same_bits(params, before)))),
        ours.register_step_post_hook(lambda *_: seen.append(("post", same_bits(params, before)))),
        register_optimizer_step_pre_hook(lambda *_: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: seen.append("global post")),
    ]
    ours.step()
    assert seen == ["global pre", ("pre", True), ("post", False), "global post"]
    for handle in handles:
        handle.remove()
    with torch.profiler.profile() as profiler:
        ours.step()
    assert "Optimizer.step#MaskedSGD.step" in {event.name for event in profiler.events()}
    assert len(seen) == 4


def test_distributed_data_parallel_trains_as_one_process(tmp_path):
    def run(wrap):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10)).to(
            memory_format=torch.channels_last
        )
        masks = {p: torch.rand(p.shape) < 0.5 for p in model.parameters() if p.dim() > 1}
        optimizer = MaskedSGD(model.parameters(), 0.1, momentum=0.9, masks=masks)
        forward = nn.parallel.DistributedDataParallel(model) if wrap else model
        for step in range(3):
            x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            forward(x).square().mean().backward()
            optimizer.step()
        assert all(not p[~m].any() for p, m in masks.items())
        return list(model.parameters())

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        assert same_bits(run(True), run(False))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("device", DEVICES)
def test_grad_scaler_skips_a_step_with_infinite_gradients(device):
    params, masks, _ = make(device)
    optimizer = MaskedSGD(params, 0.1, momentum=0.9, masks=masks)
    scaler = torch.amp.GradScaler(device, init_scale=4.0)
    before = [p.detach().clone() for p in params]
    for overflow in (True, False):
        for p, g in zip(params, gradients(0, params), strict=True):
            p.grad = scaler.scale(torch.ones((), device=device)) * g
        if overflow:
            params[0].grad[0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        assert same_bits(params, before) is overflow


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make_optimizer", [
    lambda p, m, lr: MaskedSGD(p, lr, momentum=0.9, masks=m),
    lambda p, m, lr: MaskedAdamW(p, lr, capturable=True, masks=m),
], ids=["sgd", "adamw"])  # fmt: skip
def test_a_step_in_a_cuda_graph_follows_the_learning_rate_on_the_device(make_optimizer):
    results = []
    for captured in (False, True):
        params, masks, _ = make("cuda")
        lr = torch.tensor(0.1, device="cuda")
        optimizer = make_optimizer(params, masks, lr)
        for p, g in zip(params, gradients(0, params), strict=True):
            p.grad = g
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            optimizer.step()
            if captured:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=stream):
                    optimizer.step()
            for value in (0.05, 0.2):
                lr.fill_(value)
                graph.replay() if captured else optimizer.step()
        torch.cuda.synchronize()
        results.append(params)
    assert same_bits(*results)


@pytest.mark.parametrize(
    ("kind", "tensor", "message"),
    [
        ("masks", lambda p: torch.ones(3, dtype=torch.bool), r"masks holds \(3,\)"),
        ("masks", lambda p: torch.ones_like(p), "masks holds torch.float32"),
        ("anchors", lambda p: torch.ones(3), r"anchors holds \(3,\)"),
        ("anchors", lambda p: torch.ones(4, dtype=torch.int64), "anchors holds torch.int64 .* expected a float"),
    ],
)
def test_a_wrong_mask_or_anchor_is_named(kind, tensor, message):
    p = nn.Parameter(torch.randn(4))
    with pytest.raises(ValueError, match=message):
        MaskedSGD([p], 0.1, **{kind: {p: tensor(p.detach())}})
    with pytest.raises(ValueError, match="not a parameter"):
        MaskedSGD([p], 0.1, **{kind: {torch.randn(4): torch.ones(4, dtype=torch.bool)}})


def op_arguments(device):
    params, masks, anchors = make(device)
    weights = [p.detach() for p in params]
    packed = [pack_mask(masks[p]) if p in masks else torch.empty(0, dtype=torch.int32, device=device) for p in params]
    kept = [anchors.get(p, torch.empty(0, device=device)) for p in params]
    states = [[torch.rand_like(w) for w in weights] for _ in range(2)]
    return weights, gradients(0, params), states, packed, kept


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    weights, grads, (first, second), masks, anchors = op_arguments(device)
    ops = torch.ops.lthbench
    library.opcheck(
        ops.masked_sgd_.default, (weights, grads, first, masks, anchors, 0.1, 0.9, 0.0, 1e-3, 0.01, True, False)
    )
    library.opcheck(
        ops.masked_adamw_.default,
        (weights, grads, first, second, masks, anchors, 0.1, 0.9, 0.999, 1e-8, 0.1, 0.01, 3),
    )
    library.opcheck(
        ops.check_update.default, (weights, first, second, masks, anchors, [torch.ones(())] * len(weights), False)
    )


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_the_operators_step_as_the_optimizers_do(device):
    weights, _, _, masks, anchors = op_arguments(device)
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for make_optimizer, operator in (
        (
            lambda p, m, a: MaskedSGD(p, 0.1, momentum=0.9, weight_decay=1e-3, masks=m, anchors=a, pull=0.01),
            lambda w, g, step: torch.ops.lthbench.masked_sgd_(
                w, g, first, masks, anchors, 0.1, 0.9, 0.0, 1e-3, 0.01, False, step == 0
            ),
        ),
        (
            lambda p, m, a: MaskedAdamW(p, 0.1, weight_decay=0.1, masks=m, anchors=a, pull=0.01),
            lambda w, g, step: torch.ops.lthbench.masked_adamw_(
                w, g, first, second, masks, anchors, 0.1, 0.9, 0.999, 1e-8, 0.1, 0.01, step + 1
            ),
        ),
    ):
        params, bools, begun = make(device)
        optimizer = make_optimizer(params, bools, begun)
        theirs = [p.detach().clone() for p in params]
        for t in (*first, *second):
            t.zero_()
        for step in range(3):
            train(optimizer, params, steps=1, start=step)
            distance = operator(theirs, gradients(step, params), step)
        assert same_bits(params, theirs) and float(distance) == float(optimizer.squared_distance())


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_the_operator_checks_before_it_writes(device):
    weights, grads, (first, _), masks, anchors = op_arguments(device)
    before = [w.clone() for w in weights]

    def replaced(values, index, value):
        return [*values[:index], value, *values[index + 1 :]]

    cases = [
        ((weights, grads[1:], first, masks, anchors), "grads has 6 tensors"),
        ((weights, replaced(grads, 2, grads[2].double()), first, masks, anchors), r"grads\[2\] has dtype"),
        ((weights, replaced(grads, 3, grads[3].t()), first, masks, anchors), r"grads\[3\] has another shape"),
        (
            (weights, grads, replaced(first, 0, weights[0]), masks, anchors),
            r"(weights|momenta)\[0\] and .* overlap in memory",
        ),
        ((weights, replaced(grads, 1, weights[1]), first, masks, anchors), r"(weights|grads)\[1\] and .* overlap"),
        ((weights, grads, first, masks, replaced(anchors, 0, weights[0])), r"(weights|anchors)\[0\] and .* overlap"),
        ((weights, grads, first, masks[1:], anchors), "masks has 6 tensors"),
        ((weights, grads, first, replaced(masks, 0, masks[0].float()), anchors), r"masks\[0\] has dtype"),
        ((replaced(weights, 3, weights[3][:, ::2]), grads, first, masks, anchors), r"weights\[3\] has gaps"),
        ((weights, grads, first, replaced(masks, 0, masks[0][:1]), anchors), r"masks\[0\] has 1 words"),
        ((weights, grads, [], masks, anchors), "momenta is empty"),
        ((weights, grads, first, masks, replaced(anchors, 0, anchors[2])), r"anchors\[0\] has another shape"),
    ]
    for lists, message in cases:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.lthbench.masked_sgd_(*lists, 0.1, 0.9, 0.0, 0.0, 0.0, False, False)
    assert all(map(torch.equal, weights, before))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["transposed", "channels last", "expanded", "every other"])
def test_bool_masks_of_any_memory_layout_mask_the_same_weights(layout, device):
    g = torch.Generator().manual_seed(0)
    base = (torch.rand(8, 6, 3, 3, generator=g) < 0.5).to(device)
    if layout == "expanded":
        base = base[:1].expand(8, 6, 3, 3)
    other = {
        "transposed": lambda m: m.transpose(0, 1).contiguous().transpose(0, 1),
        "channels last": lambda m: m.to(memory_format=torch.channels_last),
        "expanded": lambda m: m,
        "every other": lambda m: torch.stack([m, ~m], -1)[..., 0],
    }[layout](base)
    results = []
    for mask in (base.clone(memory_format=torch.contiguous_format), other):
        p = nn.Parameter(torch.arange(1.0, 433.0, device=device).view(8, 6, 3, 3))
        optimizer = MaskedSGD([p], 0.1, momentum=0.9, masks={p: mask})
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert torch.equal(p != 0, base)
        assert optimizer.masks[p].dtype == torch.bool
        results.append([p, optimizer.state[p]["momentum_buffer"]])
    assert same_bits(*results)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_momentum_and_no_dampening(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0 and zero dampening"):
        MaskedSGD([torch.nn.Parameter(torch.zeros(2))], 0.1, nesterov=True, **options)


def test_a_learning_rate_in_a_tensor_needs_a_capturable_optimizer() -> None:
    with pytest.raises(ValueError, match="lr is a tensor, which needs capturable=True"):
        MaskedAdamW([torch.nn.Parameter(torch.zeros(2))], torch.tensor(0.1))


DOORS = [pytest.param(contextlib.nullcontext, id="kernels"), pytest.param(reference, id="reference")]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [MaskedSGD, MaskedAdamW])
def test_an_optimizer_that_has_stepped_goes_on_from_the_state_that_it_loads(kind, door):
    options = {"lr": 0.1, "momentum": 0.9} if kind is MaskedSGD else {"lr": 0.1}
    with door():
        params, masks, _ = make()
        optimizer = kind(params, **options, masks=masks)
        train(optimizer, params, steps=2)
        weights, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
        train(optimizer, params, steps=3, start=2)
        expected = [p.detach().clone() for p in params]
        optimizer.load_state_dict(state)
        with torch.no_grad():
            for p, weight in zip(params, weights, strict=True):
                p.copy_(weight)
        train(optimizer, params, steps=3, start=2)
    assert same_bits(params, expected)


@pytest.mark.parametrize("door", DOORS)
def test_one_step_of_sgd_is_the_equation(door):
    """Two steps of one weight, with numbers that float32 holds exactly."""
    with door():
        p, a = nn.Parameter(torch.tensor([2.0, 4.0])), torch.tensor([1.0, 0.0])
        mask = torch.tensor([True, False])
        options = {"momentum": 0.5, "dampening": 0.25, "weight_decay": 0.5}
        optimizer = MaskedSGD([p], 0.5, **options, masks={p: mask}, anchors={p: a}, pull=2.0)
        w, b = 2.0, None
        for _ in range(2):
            p.grad = torch.tensor([1.0, 1.0])
            optimizer.step()
            g = 1 + 2 * (w - 1)
            g += 0.5 * w
            b = g if b is None else 0.5 * b + 0.75 * g
            w -= 0.5 * b
            assert p.tolist() == [w, 0] and optimizer.squared_distance() == (w - 1) ** 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [MaskedSGD, MaskedAdamW])
def test_a_step_without_any_gradient_changes_no_weight_and_begins_no_state(kind, door):
    with door():
        p = nn.Parameter(torch.ones(5))
        optimizer = kind([p], 0.1, weight_decay=0.5, anchors={p: torch.zeros(5)}, pull=0.5)
        optimizer.step()
        assert p.tolist() == [1] * 5 and not optimizer.state.get(p)
        assert optimizer.squared_distance() == 5


@pytest.mark.parametrize("door", DOORS)
def test_a_closure_is_called_with_gradients_on_and_its_loss_is_returned(door):
    with door():
        p = nn.Parameter(torch.tensor([3.0]))
        optimizer = MaskedSGD([p], 0.5)

        def closure():
            loss = p.square().sum()
            loss.backward()
            return loss

        with torch.no_grad():
            assert optimizer.step(closure) == 9
        assert p.tolist() == [0]


@pytest.mark.parametrize("door", DOORS)
def test_adamw_counts_its_steps_on_the_host(door):
    with door():
        p = nn.Parameter(torch.ones(3))
        optimizer = MaskedAdamW([p], 0.1)
        for count in (1, 2):
            p.grad = torch.ones(3)
            optimizer.step()
            step = optimizer.state[p]["step"]
            assert (float(step), step.device.type, step.dtype) == (count, "cpu", torch.float32)
    # The first steps of AdamW move by the learning rate, whatever the gradient's size (Kingma & Ba 2015, section 2.1).
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_step_whose_state_was_replaced_counts_once(capturable):
    p = nn.Parameter(torch.ones(3))
    optimizer = MaskedAdamW([p], 0.1, capturable=capturable)
    for count in (1, 2, 3):
        p.grad = torch.ones(3)
        optimizer.step()
        assert float(optimizer.state[p]["step"]) == count
        optimizer.state[p]["exp_avg"] = optimizer.state[p]["exp_avg"].clone()


class SignDescent(MaskedOptimizer):
    """w <- w - lr sign(g), the smallest optimizer that has no kernel."""

    has_kernel = False

    def __init__(self, params, lr, *, masks=None, anchors=None, pull=0.0):
        super().__init__(params, {"lr": lr, "pull": pull}, masks, anchors)

    def _reference_step(self, group):
        params, grads = plain.gradients(group, self.anchors)
        for p, g in zip(params, grads, strict=True):
            self.state[p]["sign"] = g.sign()
            p.sub_(self.state[p]["sign"], alpha=group["lr"])


@pytest.mark.parametrize("device", DEVICES)
def test_an_optimizer_without_a_kernel_keeps_pruned_weights_and_their_state_at_zero(device):
    params, masks, anchors = make(device)
    optimizer = SignDescent(params, 0.1, masks=masks, anchors=anchors, pull=0.01)
    start = [p.detach().clone() for p in params]
    train(optimizer, params, steps=1)
    for p, before, g in zip(params, start, gradients(0, params), strict=True):
        mask = masks.get(p, torch.ones_like(p, dtype=torch.bool))
        assert torch.equal(p, torch.where(mask, before - 0.1 * g.sign(), torch.zeros_like(p)))
        assert not optimizer.state[p]["sign"][~mask].any()
    assert float(optimizer.squared_distance()) > 0
