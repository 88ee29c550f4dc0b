// The scheduler of host_executor.h. Built without sanitizers and without exceptions: its own bookkeeping is
// shared by all fibres, and only what kernels touch is to be watched.
#include "host_executor.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#ifndef __x86_64__
#error "the fibre switch is written for x86-64 only"
#endif

#define LTH_WEAK extern "C" __attribute__((weak))
LTH_WEAK void* __tsan_create_fiber(unsigned flags);
LTH_WEAK void* __tsan_get_current_fiber();
LTH_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
LTH_WEAK void __tsan_acquire(void* address);
LTH_WEAK void __tsan_release(void* address);
LTH_WEAK void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t size);
LTH_WEAK void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, std::size_t* size);

dim3 blockIdx, blockDim, gridDim;

namespace lth_host {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr unsigned kNoSync = 1;  // a switch of fibres orders nothing, else no race would be seen
enum class State { kRunnable, kAtBarrier, kAtGather, kDone };

struct Fibre {
  void* stack_pointer = nullptr;
  std::unique_ptr<char[]> stack;
  const void* bottom = nullptr;  // of the stack, for AddressSanitizer
  std::size_t size = 0;
  void* fake_stack = nullptr;
  void* tsan = nullptr;

  State state = State::kDone;
  dim3 thread;
  unsigned index = 0, num_barriers = 0, mask = 0;
  Where where;
  int predicate = 0;
  Combine combine = Combine::kNone;
  std::uint64_t value = 0, values[32];
  unsigned num_fences = 0;
  char fence_sync[2];  // two, as for the barrier
};

Fibre scheduler;
std::vector<std::unique_ptr<Fibre>> fibres;
Fibre* current = &scheduler;
unsigned num_threads;
void (*kernel_entry)(void*);
void* kernel_arguments;
int barrier_result;
char launched, finished,
    barrier_sync[2];  // two: a late waker must not acquire what the next barrier releases
std::uint64_t random_state = 1;

std::uint64_t random_below(std::uint64_t n) {  // splitmix64
  std::uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return (z ^ z >> 31) % n;
}

void acquire(void* address) {
  if (__tsan_acquire) __tsan_acquire(address);
}
void release(void* address) {
  if (__tsan_release) __tsan_release(address);
}

__attribute__((naked, noinline)) void switch_stack(void** /*from: rdi*/, void* /*to: rsi*/) {
  asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi)\n"
      "movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
      "ret");
}

void switch_to(Fibre* to) {
  Fibre* from = current;
  current = to;
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->size);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to->tsan, kNoSync);
  switch_stack(&from->stack_pointer, to->stack_pointer);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
}

void fibre_main() {
  const void** bottom = scheduler.bottom ? nullptr : &scheduler.bottom;
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, bottom, &scheduler.size);
  for (;;) {  // a fibre serves one thread of every block
    acquire(&launched);
    kernel_entry(kernel_arguments);
    release(&finished);
    current->state = State::kDone;
    switch_to(&scheduler);
  }
}

void make_fibre() {
  auto f = std::make_unique<Fibre>();
  f->stack.reset(new char[kStackBytes]);
  f->bottom = f->stack.get();
  f->size = kStackBytes;
  if (__tsan_create_fiber) f->tsan = __tsan_create_fiber(0);
  auto top = reinterpret_cast<std::uintptr_t>(f->stack.get() + kStackBytes) & ~std::uintptr_t(15);
  void** sp =
      reinterpret_cast<void**>(top) - 2;  // as if fibre_main had been called: rsp % 16 == 8 at its start
  *sp = reinterpret_cast<void*>(&fibre_main);
  f->stack_pointer = sp - 6;
  fibres.push_back(std::move(f));
}

const char* name(State state) {
  return state == State::kDone        ? "has returned"
         : state == State::kAtBarrier ? "waits at __syncthreads"
                                      : "waits at a warp collective";
}

// No fibre can run: either all wait at one barrier, or the kernel is at fault.
void release_barrier() {
  const Fibre& first = *fibres[0];
  for (unsigned i = 0; i < num_threads; ++i) {
    const Fibre& f = *fibres[i];
    if (f.state == State::kAtBarrier && first.state == State::kAtBarrier &&
        f.where.line() == first.where.line() && f.where.file_name() == first.where.file_name())
      continue;
    std::fprintf(stderr, "host executor: divergent barrier or collective in block %u:", blockIdx.x);
    for (const Fibre* g : {&first, &f})
      std::fprintf(stderr, " thread %u %s%s%s:%u;", g->index, name(g->state),
                   g->state == State::kDone ? ", last seen " : " ", g->where.file_name(),
                   unsigned(g->where.line()));
    std::fputc('\n', stderr);
    std::_Exit(3);
  }
  int count = 0;
  for (unsigned i = 0; i < num_threads; ++i) count += fibres[i]->predicate != 0;
  barrier_result = first.combine == Combine::kCount ? count
                   : first.combine == Combine::kOr  ? count > 0
                                                    : count == int(num_threads);
  for (unsigned i = 0; i < num_threads; ++i) fibres[i]->state = State::kRunnable;
}

void run_block() {
  std::vector<unsigned> runnable;
  for (unsigned i = 0; i < num_threads; ++i) {
    Fibre& f = *fibres[i];
    f.thread = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    f.index = i;
    f.num_barriers = 0;
    f.state = State::kRunnable;
  }
  for (;;) {
    // One round lets every runnable thread go on to its next barrier or collective, in random order.
    runnable.clear();
    bool waiting = false;
    for (unsigned i = 0; i < num_threads; ++i) {
      if (fibres[i]->state == State::kRunnable) runnable.push_back(i);
      waiting |= fibres[i]->state != State::kDone;
    }
    if (!waiting) return;
    if (runnable.empty()) {
      release_barrier();
      continue;
    }
    while (!runnable.empty()) {
      std::swap(runnable[random_below(runnable.size())], runnable.back());
      Fibre* f = fibres[runnable.back()].get();
      runnable.pop_back();
      switch_to(f);
    }
  }
}

void wait(State state, Where where) {
  current->state = state;
  current->where = where;
  switch_to(&scheduler);
}

}  // namespace

void seed(std::uint64_t value) { random_state = value; }
const dim3& current_thread() { return current->thread; }
unsigned lane() { return current->index % 32; }

void fail(const char* what, Where where) {
  std::fprintf(stderr, "host executor: %s (thread %u of block %u), %s:%u\n", what, current->index, blockIdx.x,
               where.file_name(), unsigned(where.line()));
  std::_Exit(3);
}

void run(dim3 grid, dim3 block, void (*kernel)(void*), void* arguments) {
  gridDim = grid;
  blockDim = block;
  num_threads = block.x * block.y * block.z;
  kernel_entry = kernel;
  kernel_arguments = arguments;
  const std::uint64_t num_blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  if (num_threads == 0 || num_threads > 1024) fail("a block has 1 to 1024 threads", Where::current());
  if (num_blocks == 0) fail("an empty grid is a launch error on a device", Where::current());
  if (!scheduler.tsan && __tsan_get_current_fiber) scheduler.tsan = __tsan_get_current_fiber();
  while (fibres.size() < num_threads) make_fibre();
  std::vector<std::uint64_t> order(num_blocks);
  for (std::uint64_t i = 0; i < num_blocks; ++i) {
    const std::uint64_t j = random_below(i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  for (std::uint64_t i : order) {
    blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / (std::uint64_t(grid.x) * grid.y));
    release(&launched);
    run_block();
    acquire(&finished);
  }
}

int barrier(int value, Combine combine, Where where) {
  char* sync = &barrier_sync[current->num_barriers++ % 2];
  current->predicate = value;
  current->combine = combine;
  current->mask = 0xffffffffu;
  release(sync);
  wait(State::kAtBarrier, where);
  acquire(sync);
  return barrier_result;
}

void gather(unsigned mask, std::uint64_t value, std::uint64_t values[32], bool fence, Where where) {
  Fibre* const self = current;
  if (!(mask >> lane() & 1)) fail("a lane calls a warp collective whose mask does not name it", where);
  Fibre* warp[32];
  const unsigned first = self->index / 32 * 32;
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (first + i >= num_threads) fail("a warp collective's mask names a lane beyond the block", where);
    warp[i] = fibres[first + i].get();
  }
  if (fence) {
    char* sync = &self->fence_sync[self->num_fences++ % 2];
    release(sync);
    value = reinterpret_cast<std::uint64_t>(sync);
  }
  self->mask = mask;
  self->value = value;
  self->where = where;
  self->state = State::kAtGather;
  bool complete = true;
  for (unsigned i = 0; i < 32 && complete; ++i)
    if (mask >> i & 1)
      complete = warp[i]->state == State::kAtGather && warp[i]->mask == mask &&
                 warp[i]->where.line() == where.line() && warp[i]->where.file_name() == where.file_name();
  if (complete) {
    std::uint64_t all[32] = {};
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1) all[i] = warp[i]->value;
    for (unsigned i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      warp[i]->state = State::kRunnable;
      std::memcpy(warp[i]->values, all, sizeof all);
    }
  }
  switch_to(&scheduler);
  if (fence)
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1) acquire(reinterpret_cast<void*>(self->values[i]));
  std::memcpy(values, self->values, sizeof(self->values));
}

}  // namespace lth_host
