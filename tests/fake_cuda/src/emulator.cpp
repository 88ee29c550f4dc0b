// Runs a kernel on the host: blocks in shuffled order on several threads at once, the threads of a block as
// fibres in shuffled order; a missing barrier gives wrong results, with some seeds. Stops the process at what
// hangs or is undefined on a GPU: a barrier that exited threads miss, a warp's collective with other masks or
// lanes missing, a grid or block that no GPU takes. x86-64 only.
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "host_executor.h"

extern "C" void emu_switch(void** from,
                           void* to);  // keep the stack pointer in *from, go on with that of `to`
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace emu {
thread_local dim3 thread_index, block_index;
dim3 block_size, grid_size;

namespace {
constexpr size_t kStack = 64 << 10;
constexpr unsigned kMaxThreads = 1024;
enum Status { kRuns, kAtBarrier, kInWarp, kDone };
struct Fiber {
  void* stack_pointer;
  char* stack;
  Status status;
  unsigned index, mask;
  uint64_t value;
};
struct Machine {  // what one thread runs blocks with
  std::vector<Fiber> fibers{kMaxThreads};
  uint64_t exchanged[kMaxThreads / 32][32];
  void* scheduler;
  Fiber* current;
  const std::function<void()>* body;
  Machine() {
    char* stacks = (char*)mmap(nullptr, kStack * kMaxThreads, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (unsigned i = 0; i < kMaxThreads; ++i) fibers[i].stack = stacks + i * kStack;
  }
};
thread_local Machine* machine;

[[noreturn]] void stop(const char* why) {
  fprintf(stderr, "fake-cuda: emulator: %s\n", why);
  abort();
}
unsigned number(const char* name, unsigned otherwise) {
  const char* n = getenv(name);
  return n ? atoi(n) : otherwise;
}

void enter() {
  Machine& m = *machine;
  (*m.body)();
  m.current->status = kDone;
  emu_switch(&m.current->stack_pointer, m.scheduler);
  abort();
}
void wait(Status status) {
  Fiber* me = machine->current;
  me->status = status;
  emu_switch(&me->stack_pointer, machine->scheduler);
  thread_index = dim3(me->index);
}

bool finish_collective(Machine& m, unsigned warp) {  // true when its lanes run on
  Fiber* lanes = &m.fibers[warp * 32];
  unsigned arrived = 0, gone = 0, mask = 0;
  for (int l = 0; l < 32; ++l) {
    gone |= lanes[l].status == kDone ? 1u << l : 0u;
    if (lanes[l].status != kInWarp) continue;
    if (arrived && lanes[l].mask != mask) stop("lanes of a warp's collective name different masks");
    mask = lanes[l].mask;
    arrived |= 1u << l;
  }
  if (arrived && (mask & gone)) stop("a warp's collective waits for lanes that have exited");
  if (!arrived || arrived != mask) return false;
  for (int l = 0; l < 32; ++l)
    if (lanes[l].status == kInWarp) m.exchanged[warp][l] = lanes[l].value, lanes[l].status = kRuns;
  return true;
}

bool run_fiber(Machine& m, unsigned i) {
  if (m.fibers[i].status != kRuns) return false;
  m.current = &m.fibers[i];
  thread_index = dim3(i);
  emu_switch(&m.scheduler, m.current->stack_pointer);
  return true;
}

void run_block(Machine& m, std::mt19937& random, unsigned n) {
  std::vector<unsigned> order(n);
  for (unsigned i = 0; i < n; ++i) {
    order[i] = i;
    Fiber& f = m.fibers[i];
    f.index = i;
    f.status = kRuns;
    void** top =
        (void**)(f.stack + kStack - 72);  // as if `enter` had been called: aligned, no return address
    *top = nullptr;
    *--top = (void*)enter;
    for (int k = 0; k < 6; ++k) *--top = nullptr;  // the registers that emu_switch pops
    f.stack_pointer = top;
  }
  std::shuffle(order.begin(), order.end(), random);
  // In half of the blocks one warp after another runs to its next barrier, in the others all go on together.
  const bool ahead = random() & 1;
  if (ahead) {
    unsigned rank[kMaxThreads / 32];
    for (unsigned k = 0; k < n; ++k) rank[order[k] / 32] = k;
    std::sort(order.begin(), order.end(),
              [&](unsigned a, unsigned b) { return rank[a / 32] < rank[b / 32]; });
  }
  for (;;) {
    bool ran = false;
    for (unsigned i : order) {
      ran |= run_fiber(m, i);
      while (ahead && finish_collective(m, i / 32))
        for (unsigned lane = 0; lane < 32; ++lane) run_fiber(m, i / 32 * 32 + lane);
    }
    for (unsigned w = 0; w < n / 32; ++w) ran |= finish_collective(m, w);
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < n; ++i)
      done += m.fibers[i].status == kDone, waiting += m.fibers[i].status == kAtBarrier;
    if (done == n) return;
    if (waiting && waiting + done == n) {
      if (done) stop("a barrier waits for threads that have exited");
      for (unsigned i = 0; i < n; ++i) m.fibers[i].status = kRuns;
    } else if (!ran) {
      stop("deadlock");
    }
  }
}

std::vector<Kernel>& kernels() {
  static auto* k = new std::vector<Kernel>;
  return *k;
}
std::mutex one_launch;
std::vector<Machine*> machines;
std::atomic<long> num_run{0};
}  // namespace

Known::Known(std::vector<Kernel> known) { kernels().insert(kernels().end(), known.begin(), known.end()); }
void barrier() { wait(kAtBarrier); }
unsigned lane() { return machine->current->index % 32; }
const uint64_t* exchange(unsigned mask, uint64_t value) {
  Fiber* me = machine->current;
  if (!(mask >> lane() & 1)) stop("a lane takes part in a warp's collective whose mask leaves it out");
  me->mask = mask;
  me->value = value;
  wait(kInWarp);
  return machine->exchanged[me->index / 32];
}

void run(dim3 grid, dim3 block, const std::function<void()>& body) {
  std::lock_guard<std::mutex> lock(one_launch);
  static unsigned seed = number("FAKE_CUDA_SEED", 1);
  const uint64_t total = uint64_t(grid.x) * grid.y * grid.z;
  if (block.y != 1 || block.z != 1 || !block.x || block.x % 32 || block.x > kMaxThreads || !total ||
      grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    stop("no GPU takes this grid or block (or it is not of whole warps in one dimension)");
  block_size = block;
  grid_size = grid;
  std::vector<uint64_t> order(total);
  for (uint64_t i = 0; i < total; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(seed++));
  const unsigned num_workers = std::min<uint64_t>(number("FAKE_CUDA_THREADS", 2), total);
  while (machines.size() < num_workers) machines.push_back(new Machine);
  std::atomic<uint64_t> next{0};
  auto work = [&](unsigned worker) {
    machine = machines[worker];
    machine->body = &body;
    std::mt19937 random(seed * 31 + worker);
    for (uint64_t k; (k = next++) < total;) {
      const uint64_t i = order[k];
      block_index = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
      run_block(*machine, random, block.x);
    }
  };
  std::vector<std::thread> others;
  for (unsigned w = 1; w < num_workers; ++w) others.emplace_back(work, w);
  work(0);
  for (auto& t : others) t.join();
}
}  // namespace emu

#define API extern "C" __attribute__((visibility("default")))
API long emu_num_run() { return emu::num_run; }
// What a launch of a kernel of the project computes, by its mangled name; nullptr where it is not one.
API std::function<void()>* emu_runner(const char* name, dim3 grid, dim3 block, void** arguments) {
  if (!strstr(name, "N3lth")) return nullptr;
  for (auto& k : emu::kernels())
    if (strstr(name, k.file) && strstr(name, k.name) && strstr(name, k.form)) {
      return new std::function<void()>([work = k.bind(grid, block, arguments)] {
        ++emu::num_run;
        work();
      });
    }
  fprintf(stderr, "fake-cuda: no emulation of %s: build again with the csrc it is from\n", name);
  abort();
}
