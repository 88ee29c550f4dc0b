"""The training loop: from a model, images and a recipe to trained weights, resumable at any step to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.data.images import ImageSet
from lthbench.engine.blocked_training import required_blocked_training
from lthbench.engine.onednn_linear import use_onednn
from lthbench.ops.sums import sum_in_order
from lthbench.training.batches import Batches, MicroBatch
from lthbench.training.distributed import Ranks
from lthbench.training.ema import Average
from lthbench.training.forgetting import Tracker
from lthbench.training.optimizer import load_optimizer_state, make_optimizer, optimizer_state
from lthbench.training.recipe import Recipe
from lthbench.training.recorded import Passes, RecordedPasses
from lthbench.training.streams import stream
from lthbench.training.sync_batchnorm import convert_sync_batchnorm, count_batches_on_host

EVAL_BATCH = 250


@dataclass
class Progress:
    """The progress of a training: all that a checkpoint holds beside weights and optimizer state.

    Attributes:
        step: iterations done since initialisation (a rewound training begins at its rewinding step).
        epoch_losses: mean training loss of every finished epoch.
        epoch_distances: L2 distance of the tracked weights from where they started, after every finished epoch.
        path_length: sum of the L2 distances from epoch to epoch, a lower bound of the length of the weights'
            trajectory.
        loss_sum, num_seen: of the epoch under way.
        diverged_at: the step at which a non-finite loss was noticed.
        optimizer_numbers: of a plugin's optimizer, what its state holds beside tensors: `INDEX.NAME` -> number.
    """

    step: int
    epoch_losses: list[float] = field(default_factory=list)
    epoch_distances: list[float] = field(default_factory=list)
    path_length: float = 0.0
    loss_sum: float = 0.0
    num_seen: int = 0
    diverged_at: int | None = None
    optimizer_numbers: dict[str, bool | int | float] = field(default_factory=dict)


class Trainer:
    """One training: `run()` trains from `progress` to the end of the recipe.

    Args:
        model: on its device, with the weights to start from and, where masked, already pruned.
        images: the train images, on the model's device.
        seed, noise: name the streams of data order and augmentation.
        begin: the iteration at which schedule and streams begin.
        stop: the iteration at which training ends, if before that of the recipe.
        mask: parameter name -> bool, True where a weight survives.
        anchors: parameter name -> initial weights, the centre of the penalty `recipe.pull`; needed only if that is not
            0.
        tracked: the parameters whose distance from their start is noted after every epoch.
        tracker: called with every batch and after every step.
        compile: train the model compiled by torch.compile: faster after a minute of compilation; results agree with
            eager ones within rounding, and are reproducible bit for bit.
        graphs: on a GPU, replay forward and backward pass of whole batches as a CUDA graph (training/recorded.py),
            which has the bits of the eager passes: the first whole batch is tried both ways, and if they differ, or the
            passes cannot be recorded, all are eager. Not with `compile`, several ranks, or a micro batch.
        may_draw: whether model or optimizer may draw from torch's generator: it is then seeded before every step, by a
            stream of that step and rank.
        ranks: this process among those that make this training together, each called with the same arguments. They
            divide each batch; results agree with one process's within rounding, and are identical on all ranks.
        tell: called with the reason if graphs are requested but not used.
    """

    def __init__(
        self,
        model: nn.Module,
        images: ImageSet,
        recipe: Recipe,
        *,
        num_classes: int,
        seed: int,
        noise: int = 0,
        begin: int = 0,
        stop: int | None = None,
        mask: Mapping[str, Tensor] | None = None,
        anchors: Mapping[str, Tensor] | None = None,
        tracked: Iterable[str] = (),
        tracker: Tracker | None = None,
        compile: bool = False,
        graphs: bool = True,
        may_draw: bool = False,
        ranks: Ranks = Ranks(),  # noqa: B008 (immutable)
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.images, self.recipe, self.ranks = model, images, recipe, ranks
        self.tracker = tracker
        self.batches = Batches(images, recipe, num_classes, seed, noise, model, ranks)
        self.batch_size, self.steps_per_epoch = self.batches.batch_size, self.batches.steps_per_epoch
        self.total = recipe.steps.count(self.steps_per_epoch)
        if not 0 <= begin <= self.total:
            raise ValueError(f"a training of {self.total} iterations cannot begin at iteration {begin}")
        self.end = min(self.total, stop or self.total)
        self.progress = Progress(step=begin)
        # A graph for each of the two batch sizes of an epoch, compiled in this process.
        options: dict[str, Any] = {"compile_threads": 1}
        if compile and recipe.engine != "torch":
            raise ValueError(f"a training by the engine {recipe.engine} cannot be compiled; leave out one of the two")
        if compile and ranks.size > 1:
            raise ValueError("a training over several processes cannot be compiled; leave out one of the two")
        convert_sync_batchnorm(model, ranks)
        if not compile and recipe.precision == "float32":
            use_onednn(model)
        if not compile:
            count_batches_on_host(model)
        self.device = images.device
        if compile:
            self._forward = torch.compile(model, dynamic=False, options=options)
        elif recipe.engine == "blocked":
            alone = ranks.size == 1 and recipe.precision == "float32"
            self._forward = required_blocked_training(model, mask or {}, alone=alone)
        else:
            self._forward = ranks.wrap(model, images.batch(torch.zeros(1, dtype=torch.int64)))
        self._recorded: RecordedPasses | None = None
        self._may_record = graphs and self.device.type == "cuda" and not compile and ranks.size == 1
        self._tell = tell
        self._draws = (seed, noise) if may_draw else None
        parameters = dict(model.named_parameters())
        self._tracked = {name: parameters[name].detach() for name in tracked}
        self._begun = {name: t.clone() for name, t in self._tracked.items()}
        self._epoch_before = {name: t.clone() for name, t in self._tracked.items()}
        self.optimizer = make_optimizer(recipe, parameters, mask or {}, anchors or {})
        self.average = Average(model, recipe.ema) if recipe.ema else None
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)

    def run(
        self,
        keep: frozenset[int] = frozenset(),
        on_keep: Callable[[Trainer], None] | None = None,
        on_step: Callable[[Trainer], None] | None = None,
    ) -> Progress:
        """Train to the end, or to the end of the epoch in which the loss or a weight became non-finite.

        Args:
            keep: the steps before which `on_keep` is called.
            on_step: called after every step, when the state is consistent (checkpoints may be taken).
        """
        self.model.train()
        while self.progress.step < self.end and self.progress.diverged_at is None:
            if on_keep and self.progress.step in keep:
                on_keep(self)
            self.one_step()
            if self.progress.step % self.steps_per_epoch == 0 or self.progress.step == self.end:
                self._finish_epoch()
            if self.tracker:
                self.tracker.after_step(self.progress.step, self.end, self.model)
            if on_step:
                on_step(self)
        return self.progress

    def one_step(self) -> None:
        """Train on the next batch; the model must be in training mode."""
        step = self.progress.step
        index, parts = self.batches.at(step)
        factor = self.recipe.schedule.factor(step, self.total, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * factor
        if self._may_record and len(parts) == 1 and len(index) == self.batch_size:
            self._may_record = False
            self._recorded = self._record(parts[0])
        passes: Passes
        if self._recorded and len(parts) == 1 and self._recorded.fit(parts[0]):
            passes = self._recorded
        else:
            passes = partial(self._backward, len(index))
            self.optimizer.zero_grad(set_to_none=True)
        self._seed_torch(step)
        right = torch.zeros(len(index), dtype=torch.int32, device=self.device) if self.tracker else None
        loss_sum: Tensor | None = None
        for part in parts:
            with nullcontext() if part is parts[-1] else self.ranks.no_sync(self._forward):
                logits, part_loss = passes(part)
            loss_sum = part_loss if loss_sum is None else loss_sum + part_loss
            if right is not None:
                right[part.places] = (logits.argmax(1) == self.images.labels[index[part.places]]).int()
        self.optimizer.step()
        if self.tracker and right is not None:
            self.tracker.present(index, self.ranks.all_reduce_sum(right).bool())
        if self.average:
            self.average.update()
        assert loss_sum is not None
        self._loss_sum += self.ranks.all_reduce_sum(loss_sum)
        self.progress.num_seen += len(index)
        self.progress.step += 1

    def _record(self, part: MicroBatch) -> RecordedPasses | None:
        """The recorded passes of whole batches, or None if a step with them has not the bits of an eager one.

        Both are tried on a batch; then the state is restored.
        """
        tensors, note = self.state()
        before = {name: t.clone() for name, t in tensors.items()}

        def go_back() -> None:
            # A step changes in place what the optimizer took from what was restored.
            self.restore({name: t.clone() for name, t in before.items()}, note)

        eager = partial(self._backward, self.batch_size)
        try:
            recorded = RecordedPasses(eager, self.model, part)
            made = []
            for passes in (eager, recorded):
                go_back()
                made.append(self._tried(passes, part))
            if not (differ := [name for name in made[0] if not _same_bits(made[0][name], made[1][name])]):
                return recorded
            reason = (
                f"{', '.join(differ[:3])} ({len(differ)} of {len(made[0])} tensors) differ from those of an eager step"
            )
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)  # which fails if the GPU was lost: then graphs are not the reason
            reason = str(error).strip().partition("\n")[0]
        finally:
            go_back()
        self._tell(f"no CUDA graph is used in this training: {reason}")
        return None

    def _tried(self, passes: Passes, part: MicroBatch) -> dict[str, Tensor]:
        """What a step on a batch makes: outputs, gradients, weights, statistics, optimizer state."""
        self._seed_torch(self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        logits, loss = passes(part)
        self.optimizer.step()
        made = {"logits": logits, "loss": loss, **self.state()[0]}
        # The first step of a warm-up moves no weight: without momentum, it would not show a wrong gradient.
        made |= {f"gradient.{name}": p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return {name: t.clone() for name, t in made.items()}

    def _seed_torch(self, step: int) -> None:
        """Let what a model or an optimizer draws be a function of the step."""
        if self._draws is not None:
            seed, noise = self._draws
            words = stream(seed, "augment", noise, "torch", step, self.ranks.rank)
            torch.manual_seed(int(words.integers(2**63)))

    def _backward(self, batch_size: int, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of a part of a batch; its logits and the sum of its images' losses."""
        for layer, kept in zip(self.batches.stochastic, part.kept, strict=True):
            layer.kept = kept
        low, count = self.recipe.precision == "bfloat16", len(part.images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits = self._forward(part.images)
        logits = logits.float() if low else logits
        if count:
            loss = F.cross_entropy(logits, part.labels, label_smoothing=self.recipe.label_smoothing)
        else:  # a rank without an image of a small last batch still takes part in what all ranks sum
            loss = logits.sum()
        # Ranks average their gradients, so that each counts its share of the batch as often as there are ranks.
        share = count / batch_size * self.ranks.size
        (loss if share == 1 else loss * share).backward()
        return logits.detach(), loss.detach() * count

    def _finish_epoch(self) -> None:
        progress, tracked = self.progress, list(self._tracked.values())
        before = list(self._epoch_before.values())
        distances = [_squared_distances(tracked, since) for since in (list(self._begun.values()), before)]
        largest = torch.stack(torch._foreach_norm([p.detach() for p in self.model.parameters()], math.inf)).max()
        # Read together, so that a GPU is waited for once per epoch.
        loss_sum, weight, *squares = torch.cat([self._loss_sum[None], largest[None].double(), *distances]).tolist()
        progress.epoch_losses.append(loss_sum / progress.num_seen)
        if not math.isfinite(progress.epoch_losses[-1]) or not math.isfinite(weight):
            progress.diverged_at = progress.step
        progress.epoch_distances.append(math.sqrt(sum_in_order(squares[: len(tracked)])))
        progress.path_length += math.sqrt(sum_in_order(squares[len(tracked) :]))
        if tracked:
            torch._foreach_copy_(before, tracked)
        self._loss_sum.zero_()
        progress.num_seen = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to continue: tensors (weights, statistics, optimizer state) and a JSON note."""
        self.progress.loss_sum = float(self._loss_sum)
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        state, self.progress.optimizer_numbers = optimizer_state(self.optimizer)
        tensors |= {f"optimizer.{name}": t for name, t in state.items()}
        tensors |= {f"before.{name}": t for name, t in self._epoch_before.items()}
        tensors |= {f"tracker.{name}": t for name, t in (self.tracker.state() if self.tracker else {}).items()}
        if self.average:
            tensors |= {f"average.{name}": t for name, t in self.average.values.items()}
        return tensors, vars(self.progress).copy()

    def restore(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        model = {name[6:]: t for name, t in tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(model)
        for name, before in self._epoch_before.items():
            before.copy_(tensors[f"before.{name}"])
        if self.tracker:
            self.tracker.restore({name[8:]: t for name, t in tensors.items() if name.startswith("tracker.")})
        if self.average:
            self.average.load({name[8:]: t for name, t in tensors.items() if name.startswith("average.")})
        self.progress = Progress(**note)
        state = {name[10:]: t for name, t in tensors.items() if name.startswith("optimizer.")}
        load_optimizer_state(self.optimizer, state, self.progress.optimizer_numbers)
        self._loss_sum.fill_(self.progress.loss_sum)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _squared_distances(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Squared L2 distance of each tensor of a from that of b, float64 [n]; on a GPU with few launches for all of
    them."""
    if not a:
        return torch.zeros(0, dtype=torch.float64)
    differences = torch._foreach_sub(a, b)
    if a[0].is_cuda:
        return torch.stack(torch._foreach_norm(differences, 2, dtype=torch.float64)).square()
    return torch.stack([d.double().square().sum() for d in differences])


@torch.inference_mode()
def evaluate(model: nn.Module, images: ImageSet, on_batch: Callable[[], None] = lambda: None) -> tuple[float, float]:
    """Mean cross-entropy loss and accuracy (fraction right) of a model on all images, in evaluation mode.

    Args:
        on_batch: called after every batch.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    right = torch.zeros((), dtype=torch.int64, device=images.device)
    for batch, labels in images.batches(EVAL_BATCH):
        logits = model(batch)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        right += (logits.argmax(1) == labels).sum()
        on_batch()
    model.train(was_training)
    return float(loss) / len(images), int(right) / len(images)
