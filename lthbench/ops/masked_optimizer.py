"""`MaskedOptimizer`: what the masked optimizers share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import optimizer

from lthbench.ops import reference
from lthbench.ops.contract import check_apart, check_rates
from lthbench.ops.optimizer_cache import GroupCache, supported
from lthbench.ops.sums import sum_in_order

_version = attrgetter("_version")


Method = TypeVar("Method", bound=Callable[..., Any])


def _without_compiler(method: Method) -> Method:
    """A method of torch's optimizers that does not import torch.compile, two seconds, at its first call.

    torch keeps its compiler from tracing into these methods, and imports it to do so; before it is imported there is
    nothing to keep out.
    """
    plain = getattr(method, "__wrapped__", method)

    @functools.wraps(plain)
    def call(*args: Any, **options: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **options)

    return cast("Method", call)


class MaskedOptimizer(torch.optim.Optimizer):
    """What the masked optimizers share: the masks, the anchors, the caches and the distance.

    A subclass has its defaults and `_reference_step`, one step in plain PyTorch before the masks are applied. With a
    kernel it has `_state_names` and `_cached_step` too; without, `has_kernel = False`.
    """

    has_kernel = True

    zero_grad = _without_compiler(torch.optim.Optimizer.zero_grad)
    state_dict = _without_compiler(torch.optim.Optimizer.state_dict)

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        masks: Mapping[Tensor, Tensor] | None,
        anchors: Mapping[Tensor, Tensor] | None,
    ) -> None:
        super().__init__(params, defaults)
        self.masks = _by_parameter("masks", masks)
        self.anchors = _by_parameter("anchors", anchors)
        known = {p for group in self.param_groups for p in group["params"]}
        for kind, tensors in (("masks", self.masks), ("anchors", self.anchors)):
            for p, t in tensors.items():
                if p not in known:
                    raise ValueError(f"{kind} names a tensor of shape {tuple(p.shape)} that is not a parameter")
                if t.shape != p.shape or t.device != p.device:
                    raise ValueError(
                        f"{kind} holds {tuple(t.shape)} on {t.device} for a parameter of {tuple(p.shape)} on {p.device}"
                    )
                if kind == "masks" and t.dtype != torch.bool:
                    raise ValueError(f"masks holds {t.dtype} for a parameter of {tuple(p.shape)}, expected torch.bool")
                if kind == "anchors" and not t.is_floating_point():
                    raise ValueError(f"anchors holds {t.dtype} for a parameter of {tuple(p.shape)}, expected a float")
        check_apart((p for group in self.param_groups for p in group["params"]), self.anchors)
        self._pruned = {p: ~m for p, m in self.masks.items()}
        self._caches: dict[int, GroupCache] = {}
        self._distances: list[Tensor | float] = []  # of the groups, after the last step on the kernels
        self._distance_versions: list[int] = []
        self.apply_masks()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with the defaults for what it does not say; its rates are checked."""
        _without_compiler(torch.optim.Optimizer.add_param_group)(self, param_group)
        check_rates(self.param_groups[-1])

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every pruned weight and its optimizer state to exactly +0."""
        for p, pruned in self._pruned.items():
            p.masked_fill_(pruned, 0.0)
            for value in self.state.get(p, {}).values():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    value.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def squared_distance(self) -> Tensor:
        """Squared L2 distance of the surviving anchored weights from their anchors (float64, shape []).

        It was summed during the update, and is computed anew if the weights have changed since.
        """
        changed = self._versions() != self._distance_versions
        if not self._distances or changed or not all(cache.holds_memory() for cache in self._caches.values()):
            return reference.squared_distance(self.anchors, self._pruned)
        return torch.tensor(sum_in_order(map(float, self._distances)), dtype=torch.float64)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one update of every parameter that has a gradient."""
        return self._watched_step(closure) if self._is_watched() else self._step(closure)

    # torch.optim.Optimizer wraps an unmarked step in its hooks and a profiler record, which takes a tenth of a small
    # network's step even if unused. Here both are called only if they are used.
    step.hooked = True  # type: ignore[attr-defined]

    def _is_watched(self) -> bool:
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or optimizer._global_optimizer_pre_hooks
            or optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        )

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps = [self._step_group(i, group) for i, group in enumerate(self.param_groups)]
        distances = [d for d in steps if d is not None]
        if len(distances) < len(steps):
            distances = []
            self.apply_masks()
        self._distances = distances
        if self.anchors:
            self._distance_versions = self._versions()
        return loss

    _watched_step = torch.optim.Optimizer.profile_hook_step(_step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of its `torch.optim` counterpart; the masks are applied to it."""
        _without_compiler(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        for group in self.param_groups:
            check_rates(group)
        self._caches.clear()
        self.apply_masks()

    def _versions(self) -> list[int]:
        return list(map(_version, self.anchors))

    def _step_group(self, index: int, group: dict[str, Any]) -> Tensor | float | None:
        """Update one group; its squared distance, or None where the reference did it and masks are still to apply."""
        params = group["params"]
        names = self._state_names(group)
        cache = self._caches.get(index)
        if cache is None or not cache.describes(params, names):
            cache = self._new_cache(index, group, names)
        for _ in range(2):
            if cache is None:
                break
            distance = self._cached_step(cache, group)
            if distance is not None:
                return distance
            cache = self._new_cache(index, group, names)
        check_rates(group)
        with torch.no_grad():
            self._reference_step(group)
        return None

    @torch.no_grad()
    def _new_cache(self, index: int, group: dict[str, Any], names: tuple[str, ...]) -> GroupCache | None:
        self._caches.pop(index, None)
        if not self.has_kernel or not supported(group["params"]):
            return None
        self._start(group)
        cache = GroupCache(
            group["params"], self.state, names, self.masks, self.anchors, bool(group.get("capturable", False))
        )
        self._caches[index] = cache
        return cache

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ()

    def _start(self, group: dict[str, Any]) -> None:
        """Create the states that a step needs and that the cache does not create."""

    def _cached_step(self, cache: GroupCache, group: dict[str, Any]) -> Tensor | float | None:
        raise NotImplementedError

    def _reference_step(self, group: dict[str, Any]) -> None:
        raise NotImplementedError


def _by_parameter(kind: str, given: Any) -> dict[Tensor, Tensor]:
    """What is given for parameters, by parameter.

    Raises:
        TypeError: it is a tensor, a list, or goes by names; the message says how to give it.
    """
    if given is None:
        return {}
    how = f"give a dictionary, parameter -> tensor of its shape: {kind}={{layer.weight: ...}}"
    if isinstance(given, Tensor):
        raise TypeError(f"{kind} is one tensor of shape {tuple(given.shape)}; {how}")
    if not isinstance(given, Mapping):
        raise TypeError(f"{kind} is a {type(given).__name__}; {how}, or dict(zip(parameters, {kind}))")
    for p, t in given.items():
        if isinstance(p, str):
            by_name = f"{{model.get_parameter(name): tensor for name, tensor in {kind}.items()}}"
            raise TypeError(f"{kind} has the name '{p}' in place of the parameter; give {by_name}")
        if not isinstance(p, Tensor):
            raise TypeError(f"{kind} has a {type(p).__name__} in place of a parameter; {how}")
        if not isinstance(t, Tensor):
            raise TypeError(f"{kind} holds a {type(t).__name__} for a parameter of {tuple(p.shape)}; {how}")
    return dict(given)
