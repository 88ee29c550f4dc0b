// The part of the CUDA runtime, cuBLAS and cuDNN that torch needs an answer from: one or more H100s whose
// memory is this process's, and whose kernels do nothing unless a runner is set. All other names are made by
// names.py.
#define CUDARTAPI __attribute__((visibility("default")))
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
#define NOW_CUDA return sticky  // calls that tell of the device's state

namespace {
using Lock = std::lock_guard<std::recursive_mutex>;
struct Region {
  size_t bytes;
  char* host;
};  // of device memory; host is where this file reads and writes it
struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
struct State {
  std::recursive_mutex mutex;
  std::map<char*, Region> regions;
  std::map<const void*, std::string> kernels;  // host stub -> mangled name
  std::map<std::string, long> names;           // what was called how often, while detail is on
  std::set<std::string> idle;                  // kernels that did nothing although a runner is set
};
State& state() {
  static auto* s = new State;
  return *s;
}  // never destroyed: libraries call in until the very end
size_t used = 0;  // bytes of all devices
long launches, syncs, h2d, d2h, memsets, mallocs, library_calls, recorded;
bool detail = false;
cudaError_t sticky = cudaSuccess;
thread_local int current = 0;
thread_local std::vector<Configuration> configurations;
using Work = std::function<void()>;
Work* (*runner)(const char*, dim3, dim3, void**) = nullptr;  // what a kernel computes, with its arguments

// The capture under way: one at a time, as torch takes them, and on one stream.
struct Capture {
  cudaStream_t stream = nullptr;  // nullptr: nothing is captured
  unsigned long long id = 0;
  cudaError_t failed = cudaSuccess;
  std::vector<Work> nodes;
  std::vector<std::pair<char*, std::string>> before;  // device memory, where kernels compute
} capture;
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

bool guarded() {
  static const bool g = getenv("FAKE_CUDA") && strcmp(getenv("FAKE_CUDA"), "count");
  return g;
}
int number(const char* name, int otherwise) {
  const char* n = getenv(name);
  return n ? atoi(n) : otherwise;
}
size_t total_bytes() { return size_t(number("FAKE_CUDA_GIB", 8)) << 30; }
template <class T>
T fresh() {
  static long handle = 0x1000;
  return (T)(handle += 16);
}
void note(const std::string& name) {
  if (detail) {
    Lock l(state().mutex);
    ++state().names[name];
  }
}
void idle(const std::string& name) {
  if (!runner) return;
  Lock l(state().mutex);
  if (state().idle.insert(name).second) fprintf(stderr, "fake-cuda: did nothing: %.150s\n", name.c_str());
}

std::map<char*, Region>::iterator region_of(const void* p) {
  auto& all = state().regions;
  auto i = all.upper_bound((char*)p);
  if (i == all.begin() || (char*)p >= (--i)->first + i->second.bytes) return all.end();
  return i;
}
void* readable(const void* p) {
  Lock l(state().mutex);
  auto i = region_of(p);
  return i == state().regions.end() ? (void*)p : i->second.host + ((char*)p - i->first);
}
// Whether what was asked for is put down for a graph and not done now.
bool put_down(cudaStream_t stream, const std::string& name, const Work& work) {
  if (!capture.stream) return false;
  if (!stream) {  // the legacy stream would wait for the one that is captured
    capture.failed = cudaErrorStreamCaptureImplicit;
    return true;
  }
  ++recorded;
  note("recorded " + name);
  capture.nodes.push_back(work);
  return true;
}
// What may not be done while a stream is captured: it ends the capture.
cudaError_t forbidden() {
  if (!capture.stream || capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  return capture.failed = cudaErrorStreamCaptureUnsupported;
}
#define NOT_IN_A_CAPTURE \
  if (const cudaError_t error = forbidden()) return error
void copy(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
  const char* name = up ? "copy to device" : down ? "copy to host" : "copy on device";
  const auto work = [=] { memmove(readable(to), readable(from), n); };
  if (put_down(stream, name, work)) return;
  ++(up ? h2d : down ? d2h : launches);
  note(name);
  work();
}
void synced(const char* what) {
  ++syncs;
  note(std::string(what) + " on device " + std::to_string(current));
}
// What the host may do with device memory by its own address: all of it while a kernel is computed.
void protect(int allowed) {
  Lock l(state().mutex);
  for (auto& [address, region] : state().regions) mprotect(address, region.bytes, allowed);
}
cudaError_t launched(const void* f, dim3 grid, dim3 block, void** args, cudaStream_t stream) {
  auto& kernels = state().kernels;
  auto i = kernels.find(f);
  const std::string name = i == kernels.end() ? "?" : i->second;
  const std::shared_ptr<Work> computes(runner ? runner(name.c_str(), grid, block, args) : nullptr);
  if (!computes) idle(name);
  const auto work = [computes] {
    if (!computes) return;
    protect(PROT_READ | PROT_WRITE);
    (*computes)();
    protect(PROT_NONE);
  };
  const std::string called = "kernel " + name.substr(0, 150);
  if (put_down(stream, called, work)) return capture.failed;
  ++launches;
  static const char* trap = getenv("FAKE_CUDA_BREAK");
  if (trap && !unlink(trap)) sticky = cudaErrorIllegalAddress;
  note(called);
  work();
  NOW_CUDA;
}
}  // namespace

// For fake_cuda.py, sim.py and the other names
API void fc_counts(long* out) {
  const long c[] = {launches, syncs, h2d, d2h, memsets, mallocs, library_calls, recorded};
  memcpy(out, c, sizeof c);
}
API void* fc_readable(const void* p) { return readable(p); }
API void fc_detail(int on) {
  Lock l(state().mutex);
  detail = on;
  if (on) state().names.clear();
}
API void fc_names(void (*tell)(const char*, long)) {
  for (auto& [name, count] : state().names) tell(name.c_str(), count);
}
API void fc_set_runner(Work* (*r)(const char*, dim3, dim3, void**)) { runner = r; }
API int fc_capturing() { return capture.stream != nullptr; }
API void fc_put_down(void (*work)()) { put_down(capture.stream, "operator", work); }
API void fc_break_device(int broken) { sticky = broken ? cudaErrorIllegalAddress : cudaSuccess; }
API void fc_library(const char* name) {
  idle(name);
  if (put_down(capture.stream, std::string("library ") + name, [] {})) return;
  ++library_calls;
  ++launches;
  note(std::string("library ") + name);
}

// Devices
API cudaError_t cudaGetDeviceCount(int* n) {
  *n = number("FAKE_CUDA_DEVICES", 1);
  return cudaSuccess;
}
API cudaError_t cudaGetDevice(int* d) {
  *d = current;
  return cudaSuccess;
}
API cudaError_t cudaSetDevice(int d) {
  current = d;
  return cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "NVIDIA H100 80GB HBM3 (fake)");
  p->totalGlobalMem = total_bytes();
  p->major = 9;
  p->multiProcessorCount = 132;
  p->warpSize = 32;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->textureAlignment = 512;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  switch (a) {
    case cudaDevAttrMultiProcessorCount:
      *v = 132;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *v = 1024;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *v = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *v = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *v = 49152;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = 232448;
      break;
    case cudaDevAttrWarpSize:
      *v = 32;
      break;
    case cudaDevAttrMaxGridDimX:
      *v = 2147483647;
      break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *v = 65535;
      break;
    default:
      *v = 1;
  }
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int d) {
  snprintf(s, n, "0000:00:%02x.0", d);
  return cudaSuccess;
}
API cudaError_t cudaGetLastError() { NOW_CUDA; }
API cudaError_t cudaPeekAtLastError() { NOW_CUDA; }
API const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaErrorIllegalAddress             ? "an illegal memory access was encountered"
         : e == cudaErrorMemoryAllocation         ? "out of memory"
         : e == cudaErrorStreamCaptureUnsupported ? "operation not permitted when stream is capturing"
         : e == cudaErrorStreamCaptureInvalidated ? "operation failed due to a previous error during capture"
         : e == cudaErrorStreamCaptureImplicit
             ? "operation would make the legacy stream depend on a capturing stream"
             : "fake error";
}
API const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorIllegalAddress     ? "cudaErrorIllegalAddress"
         : e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
                                          : "cudaErrorFake";
}

// Memory. Unless FAKE_CUDA=count, the address that the caller gets cannot be read or written; a second one
// can.
API cudaError_t cudaMalloc(void** p, size_t n) {
  NOT_IN_A_CAPTURE;
  ++mallocs;
  *p = nullptr;
  if (!n) NOW_CUDA;  // nothing, as of a tensor without elements, has no address
  n = (n + 4095) / 4096 * 4096;
  Lock l(state().mutex);
  if (used + n > total_bytes()) return cudaErrorMemoryAllocation;
  const int fd = memfd_create("fake-cuda", 0);
  if (fd < 0 || ftruncate(fd, n)) return cudaErrorMemoryAllocation;
  char* host = (char*)mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* device = guarded() ? (char*)mmap(nullptr, n, PROT_NONE, MAP_SHARED, fd, 0) : host;
  close(fd);
  if (host == MAP_FAILED || device == MAP_FAILED) return cudaErrorMemoryAllocation;
  state().regions[device] = {n, host};
  used += n;
  *p = device;
  NOW_CUDA;
}
API cudaError_t cudaFree(void* p) {
  NOT_IN_A_CAPTURE;
  Lock l(state().mutex);
  auto i = state().regions.find((char*)p);
  if (i == state().regions.end()) return cudaSuccess;
  munmap(p, i->second.bytes);
  if (i->second.host != p) munmap(i->second.host, i->second.bytes);
  used -= i->second.bytes;
  state().regions.erase(i);
  NOW_CUDA;
}
API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  return cudaSuccess;
}
API cudaError_t cudaFreeHost(void* p) {
  free(p);
  return cudaSuccess;
}
API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = total_bytes() - used;
  *total = total_bytes();
  NOW_CUDA;
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind k, cudaStream_t s) {
  copy(to, from, n, k, s);
  if (capture.failed) return capture.failed;
  NOW_CUDA;
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind k) {
  NOT_IN_A_CAPTURE;
  copy(to, from, n, k, nullptr);
  synced("cudaMemcpy");
  NOW_CUDA;
}
API cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t s) {
  const auto work = [=] { memset(readable(p), v, n); };
  if (put_down(s, "memset", work)) return capture.failed;
  ++memsets;
  note("memset");
  work();
  NOW_CUDA;
}
API cudaError_t cudaMemset(void* p, int v, size_t n) { return cudaMemsetAsync(p, v, n, nullptr); }
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  Lock l(state().mutex);
  const bool device = region_of(p) != state().regions.end();
  a->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  if (device) a->devicePointer = (void*)p;
  return cudaSuccess;
}

// Streams and events: nothing is ever pending
API cudaError_t cudaDeviceSynchronize() {
  NOT_IN_A_CAPTURE;
  synced("deviceSynchronize");
  NOW_CUDA;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t) {
  NOT_IN_A_CAPTURE;
  synced("streamSynchronize");
  NOW_CUDA;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t) {
  NOT_IN_A_CAPTURE;
  synced("eventSynchronize");
  NOW_CUDA;
}
API cudaError_t cudaStreamCreate(cudaStream_t* s) {
  *s = fresh<cudaStream_t>();
  NOW_CUDA;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return cudaStreamCreate(s); }
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) { return cudaStreamCreate(s); }
API cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) {
  *p = 0;
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* s) {
  *s = !stream || stream != capture.stream ? cudaStreamCaptureStatusNone
       : capture.failed                    ? cudaStreamCaptureStatusInvalidated
                                           : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* s,
                                         unsigned long long* id, cudaGraph_t*, const cudaGraphNode_t**,
                                         const cudaGraphEdgeData**, size_t*) {
  cudaStreamIsCapturing(stream, s);
  if (id) *id = *s == cudaStreamCaptureStatusNone ? 0 : capture.id;
  return cudaSuccess;
}
API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, capture_mode);
  return cudaSuccess;
}

// Graphs. Nothing is computed while a stream is captured: where the operators of torch compute all the same,
// to know what they return, device memory is as it was afterwards.
API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || capture.stream) return cudaErrorStreamCaptureUnsupported;
  static unsigned long long captures = 0;
  capture = {stream, ++captures};
  Lock l(state().mutex);
  for (auto& [address, region] : state().regions)
    if (runner) capture.before.emplace_back(address, std::string(region.host, region.bytes));
  NOW_CUDA;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || stream != capture.stream) return cudaErrorIllegalState;
  Capture ended;
  std::swap(ended, capture);
  for (auto& [address, bytes] : ended.before) memcpy(readable(address), bytes.data(), bytes.size());
  if (ended.failed) return cudaErrorStreamCaptureInvalidated;
  *graph = (cudaGraph_t) new std::vector<Work>(std::move(ended.nodes));
  NOW_CUDA;
}
API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* n) {
  *n = ((std::vector<Work>*)graph)->size();
  return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = (cudaGraphExec_t) new std::vector<Work>(*(std::vector<Work>*)graph);
  NOW_CUDA;
}
API cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  ++launches;
  note("graph");
  for (auto& work : *(std::vector<Work>*)exec) work();
  NOW_CUDA;
}
API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete (std::vector<Work>*)graph;
  return cudaSuccess;
}
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete (std::vector<Work>*)exec;
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = fresh<cudaEvent_t>();
  NOW_CUDA;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return cudaEventCreate(e); }
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 1;
  NOW_CUDA;
}

// Kernels
API void** __cudaRegisterFatBinary(void*) {
  static void* handle[2];
  return handle;
}
API void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*,
                                dim3*, int*) {
  Lock l(state().mutex);
  state().kernels[host] = name;
}
API char __cudaInitModule(void**) { return 1; }
API unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t shared, void* stream) {
  configurations.push_back({g, b, shared, stream});
  return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* shared, void* stream) {
  if (configurations.empty()) return cudaErrorUnknown;
  const Configuration c = configurations.back();
  configurations.pop_back();
  *g = c.grid;
  *b = c.block;
  *shared = c.shared;
  *(void**)stream = c.stream;
  return cudaSuccess;
}
API cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* f) {
  *k = (cudaKernel_t)f;
  return cudaSuccess;
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 g, dim3 b, void** args, size_t, cudaStream_t s) {
  return launched((const void*)f, g, b, args, s);
}
API cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void** args, size_t, cudaStream_t s) {
  return launched(f, g, b, args, s);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void** args) {
  return launched(f, c->gridDim, c->blockDim, args, c->stream);
}
API cudaError_t cudaLaunchCooperativeKernel(const void* f, dim3 g, dim3 b, void** args, size_t,
                                            cudaStream_t s) {
  return launched(f, g, b, args, s);
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) {
  *n = 4;
  return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t,
                                                                       unsigned) {
  *n = 4;
  return cudaSuccess;
}
API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = 90;
  return cudaSuccess;
}

// Driver: any function asked for by name that is not here does nothing
static int nothing() { return 0; }
API cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** f, unsigned, unsigned long long,
                                                 cudaDriverEntryPointQueryResult* r) {
  *f = dlsym(RTLD_DEFAULT, name);
  if (!*f) *f = (void*)nothing;
  if (r) *r = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
API CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}
API CUresult cuCtxGetCurrent(CUcontext* c) {
  *c = (CUcontext)16;
  return CUDA_SUCCESS;
}
API CUresult cuGetErrorString(CUresult, const char** s) {
  *s = "fake";
  return CUDA_SUCCESS;
}

// cuBLAS
API cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  *h = fresh<cublasHandle_t>();
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasGetMathMode(cublasHandle_t, cublasMath_t* m) {
  *m = CUBLAS_DEFAULT_MATH;
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t, cublasPointerMode_t* m) {
  *m = CUBLAS_POINTER_MODE_HOST;
  return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                                  cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                  cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                  cublasLtMatmulPreference_t, int,
                                                  cublasLtMatmulHeuristicResult_t* r, int* n) {
  memset(r, 0, sizeof *r);
  *n = 1;
  return CUBLAS_STATUS_SUCCESS;
}
API size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

// cuDNN, of the interface before version 8, which TORCH_CUDNN_V8_API_DISABLED=1 makes torch use
#define DONE return CUDNN_STATUS_SUCCESS
#define DESCRIPTOR(kind)                                                          \
  API cudnnStatus_t cudnnCreate##kind##Descriptor(cudnn##kind##Descriptor_t* d) { \
    *d = fresh<cudnn##kind##Descriptor_t>();                                      \
    DONE;                                                                         \
  }
DESCRIPTOR(Tensor)
DESCRIPTOR(Filter)
DESCRIPTOR(Convolution)
DESCRIPTOR(Activation) DESCRIPTOR(Dropout) DESCRIPTOR(Pooling) using Desc = const cudnnTensorDescriptor_t;
using Filter = const cudnnFilterDescriptor_t;
using Conv = const cudnnConvolutionDescriptor_t;
using Act = const cudnnActivationDescriptor_t;
API size_t cudnnGetVersion() { return CUDNN_VERSION; }
API size_t cudnnGetCudartVersion() { return CUDART_VERSION; }
API const char* cudnnGetErrorString(cudnnStatus_t) { return "fake"; }
API cudnnStatus_t cudnnCreate(cudnnHandle_t* h) {
  *h = fresh<cudnnHandle_t>();
  DONE;
}
API cudnnStatus_t cudnnGetProperty(libraryPropertyType t, int* v) {
  *v = t == MAJOR_VERSION ? CUDNN_MAJOR : t == MINOR_VERSION ? CUDNN_MINOR : CUDNN_PATCHLEVEL;
  DONE;
}
API cudnnStatus_t cudnnGetStream(cudnnHandle_t, cudaStream_t* s) {
  *s = nullptr;
  DONE;
}
API cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(cudnnHandle_t,
                                                                           cudnnBatchNormMode_t,
                                                                           cudnnBatchNormOps_t, Desc, Desc,
                                                                           Desc, Desc, Act, size_t* s) {
  *s = 0;
  DONE;
}
API cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(cudnnHandle_t, cudnnBatchNormMode_t,
                                                                    cudnnBatchNormOps_t, Desc, Desc, Desc,
                                                                    Desc, Desc, Desc, Act, size_t* s) {
  *s = 0;
  DONE;
}
API cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(cudnnHandle_t, cudnnBatchNormMode_t,
                                                                       cudnnBatchNormOps_t, Act, Desc,
                                                                       size_t* s) {
  *s = 0;
  DONE;
}
API cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, Desc, Filter, Conv, Desc,
                                                          cudnnConvolutionFwdAlgo_t, size_t* s) {
  *s = 0;
  DONE;
}
API cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, Filter, Desc, Conv, Desc,
                                                               cudnnConvolutionBwdDataAlgo_t, size_t* s) {
  *s = 0;
  DONE;
}
API cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t, Desc, Desc, Conv, Filter,
                                                                 cudnnConvolutionBwdFilterAlgo_t, size_t* s) {
  *s = 0;
  DONE;
}
template <class Perf, class Algo>
cudnnStatus_t only(Algo algo, int* found, Perf* p) {
  memset(p, 0, sizeof *p);
  p->algo = algo;
  p->determinism = CUDNN_DETERMINISTIC;
  *found = 1;
  DONE;
}
API cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, Desc, Filter, Conv, Desc, const int,
                                                         int* n, cudnnConvolutionFwdAlgoPerf_t* p) {
  return only(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, n, p);
}
API cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, Filter, Desc, Conv, Desc,
                                                              const int, int* n,
                                                              cudnnConvolutionBwdDataAlgoPerf_t* p) {
  return only(CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, n, p);
}
API cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, Desc, Desc, Conv, Filter,
                                                                const int, int* n,
                                                                cudnnConvolutionBwdFilterAlgoPerf_t* p) {
  return only(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, n, p);
}
