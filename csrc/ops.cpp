// The schemas of all operators: the contract of each, with what it mutates. The implementations are
// registered beside their argument checks, in <operator>.cpp (CPU) and cuda/dispatch_<operator>.cpp.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // One bit per weight: bit i % 32 of word i / 32 is element i of the flat mask; bits after the last are 0.
  m.def("pack_mask(Tensor mask) -> Tensor");
  m.def("unpack_mask(Tensor words, int numel) -> Tensor");

  m.def("count_survivors(Tensor[] masks) -> Tensor");

  // Exact pruning by rank (threshold.h): scores and packed masks of every tensor, its group, and the number
  // to prune in each group. Returns the new packed masks one after the other, the threshold of each group,
  // and for each tensor how many weights were pruned and how many survivors' scores are NaN.
  m.def(
      "prune_lowest(Tensor[] scores, Tensor[] masks, int[] groups, int[] num_pruned, bool magnitude) -> "
      "(Tensor words, Tensor thresholds, Tensor counts)");

  // Probes of the benchmarks. Of the bandwidth: one read; a += c and b += d. Of the arithmetic: multiply-adds
  // in registers; how many operations that were, and their sum.
  m.def("probe_read(Tensor words) -> Tensor");
  m.def("probe_fma(Tensor start, int rounds) -> Tensor");
  m.def("probe_update_(Tensor(a!) a, Tensor(b!) b, Tensor c, Tensor d) -> ()");

  // One step over a parameter list (equations in masked_update.h). An empty tensor in `masks` or `anchors`
  // stands for none, as does an empty list; `momenta` is empty without momentum. Returns the squared
  // distance. They take gradients as arguments, for torch.compile, torch.export and functional code.
  // The masked optimizers, which find them in their parameters, run the same kernels by the optimizer cache
  // (optimizer_cache.cpp): on 65 small weights a call of these takes 120 us, a step of the cache 14.
  m.def(
      "masked_sgd_(Tensor(a!)[] weights, Tensor[] grads, Tensor(b!)[] momenta, Tensor[] masks, "
      "Tensor[] anchors, float lr, float momentum, float dampening, float weight_decay, float pull, "
      "bool nesterov, bool first_step) -> Tensor");
  m.def(
      "masked_adamw_(Tensor(a!)[] weights, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
      "Tensor[] masks, Tensor[] anchors, float lr, float beta1, float beta2, float eps, float weight_decay, "
      "float pull, int step) -> Tensor");

  // Refuses the lists that these two would (masked_update_checks.h): for the optimizer cache, which is made
  // of them. An empty tensor stands for none in every list but `weights`.
  m.def(
      "check_update(Tensor[] weights, Tensor[] first, Tensor[] second, Tensor[] masks, Tensor[] anchors, "
      "Tensor[] steps, bool steps_on_device) -> ()");
}
