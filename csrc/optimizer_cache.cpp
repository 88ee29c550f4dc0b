// The Python module lthbench._optimizer_cache: what a masked optimizer keeps between steps, so that a step
// costs one call. An OptimizerCache holds each weight's tensors, which have passed check_update, with their
// addresses, and at each step asks Python only for what may have changed: the gradients, and whether a
// weight, a state or an anchor was replaced, moved or given another shape.
//
// The kernels come in a capsule of lthbench._C or lthbench._C_cuda. Of torch it uses the C interface alone,
// so that it belongs to one version of Python, as every pybind11 module does, and to no version of torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/built_from.h"
#include "common/spans.h"
#include "masked_update.h"

namespace py = pybind11;

// Of torch 2.14 and later; the weak reference is null under an older one.
extern "C" __attribute__((weak)) AOTITorchError torch_tensor_from_pyobject(void* tensor,
                                                                           AtenTensorHandle* handle);

namespace {

py::object interned(const char* text) {
  return py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text));
}

// What is looked up at each step. Never released, since its destructor would outlive the interpreter.
struct Names {
  py::object grad = interned("grad"), data_ptr = interned("data_ptr"), shape = interned("shape"),
             stride = interned("stride"), dtype = interned("dtype"), step = interned("step"),
             float32 = py::module_::import("torch").attr("float32");
};
const Names* names = nullptr;

using Layout = std::pair<std::vector<int64_t>, std::vector<int64_t>>;  // sizes and strides

// A tensor that others keep alive, read through libtorch's C interface where the running torch makes
// a handle of a Python object, else through its Python methods.
class View {
 public:
  explicit View(py::handle tensor) : tensor_(tensor) {
    AtenTensorHandle handle = nullptr;
    if (torch_tensor_from_pyobject) torch_tensor_from_pyobject(tensor.ptr(), &handle);
    handle_.reset(handle);
  }

  // nullptr where it has no memory.
  void* data() const {
    void* pointer = nullptr;
    if (!handle_) return reinterpret_cast<void*>(call(names->data_ptr).cast<std::uintptr_t>());
    return aoti_torch_get_data_ptr(handle_.get(), &pointer) == AOTI_TORCH_SUCCESS ? pointer : nullptr;
  }

  bool is_float32() const {
    int32_t dtype = -1;
    if (!handle_) return py::getattr(tensor_, names->dtype).is(names->float32);
    return aoti_torch_get_dtype(handle_.get(), &dtype) == AOTI_TORCH_SUCCESS &&
           dtype == aoti_torch_dtype_float32();
  }

  Layout layout() const {
    return {py::getattr(tensor_, names->shape).cast<std::vector<int64_t>>(),
            call(names->stride).cast<std::vector<int64_t>>()};
  }

  bool lies_as(const Layout& expected) const {
    if (!handle_) return layout() == expected;
    const auto& [sizes, strides] = expected;
    int64_t dim = 0, *own_sizes = nullptr, *own_strides = nullptr;
    return aoti_torch_get_dim(handle_.get(), &dim) == AOTI_TORCH_SUCCESS &&
           dim == static_cast<int64_t>(sizes.size()) &&
           aoti_torch_get_sizes(handle_.get(), &own_sizes) == AOTI_TORCH_SUCCESS &&
           aoti_torch_get_strides(handle_.get(), &own_strides) == AOTI_TORCH_SUCCESS &&
           std::equal(sizes.begin(), sizes.end(), own_sizes) &&
           std::equal(strides.begin(), strides.end(), own_strides);
  }

 private:
  py::object call(py::handle method) const {
    PyObject* value = PyObject_CallMethodObjArgs(tensor_.ptr(), method.ptr(), nullptr);
    if (!value) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
  }

  struct Delete {
    void operator()(AtenTensorOpaque* handle) const { aoti_torch_delete_tensor_object(handle); }
  };
  py::handle tensor_;
  std::unique_ptr<AtenTensorOpaque, Delete> handle_;
};

// A tensor of the cache, with the memory that it had when the cache was made.
struct Held {
  py::object tensor;
  View view;
  void* data;

  explicit Held(py::object t) : tensor(std::move(t)), view(tensor), data(view.data()) {}
  bool moved() const { return view.data() != data; }
};

// A tensor of the optimizer's state, and the key under which it must still be there.
struct State {
  py::object key;
  Held held;
};

struct Row {
  Held weight;
  Layout layout;
  py::dict entry;  // of the optimizer's state
  std::optional<State> first, second, step;
  std::optional<Held> mask, anchor;

  // Whether a state is no longer the optimizer's, or was moved.
  bool replaced(const std::optional<State>& state) const {
    if (!state) return false;
    PyObject* now = PyDict_GetItemWithError(entry.ptr(), state->key.ptr());
    if (!now && PyErr_Occurred()) throw py::error_already_set();
    return now != state->held.tensor.ptr() || state->held.moved();
  }
};

template <class T>
T* memory(const std::optional<Held>& held) {
  return held ? static_cast<T*>(held->data) : nullptr;
}

float* memory(const std::optional<State>& state) {
  return state ? static_cast<float*>(state->held.data) : nullptr;
}

// Element i of a list as check_update takes it, in which an empty tensor stands for none.
std::optional<Held> held(const py::list& list, size_t i) {
  if (list.empty() || list[i].attr("numel")().cast<int64_t>() == 0) return std::nullopt;
  return Held(list[i]);
}

std::optional<State> state(const py::list& list, size_t i, const py::object& key) {
  std::optional<Held> tensor = held(list, i);
  if (!tensor) return std::nullopt;
  return State{key, std::move(*tensor)};
}

// Where a CUDA step runs and what it reads and writes there, as addresses; 0 for none.
struct Place {
  std::uintptr_t stream, lr, partials, distance;
};

class OptimizerCache {
 public:
  OptimizerCache(const py::capsule& kernels, const py::list& weights, const py::list& entries,
                 const py::tuple& state_names, const py::list& first, const py::list& second,
                 const py::list& masks, const py::list& anchors, const py::list& steps, bool steps_on_device,
                 const std::vector<bool>& is_first_step)
      : kernels_(kernels) {
    if (PyCapsule_IsValid(kernels.ptr(), lth::kCpuUpdate)) cpu_ = kernels.get_pointer<lth::CpuUpdate>();
    if (PyCapsule_IsValid(kernels.ptr(), lth::kCudaUpdate)) cuda_ = kernels.get_pointer<lth::CudaUpdate>();
    LTH_CHECK(cpu_ || cuda_, "kernels is no masked update");
    for (size_t i = 0; i < weights.size(); ++i) {
      Held weight(weights[i]);
      Layout layout = weight.view.layout();
      rows_.push_back({std::move(weight), std::move(layout), entries[i], state(first, i, state_names[0]),
                       state(second, i, state_names[1]), state(steps, i, names->step), held(masks, i),
                       held(anchors, i)});
      const Row& row = rows_.back();
      lth::UpdateTensor t{};
      t.weight = static_cast<float*>(row.weight.data);
      t.numel = weights[i].attr("numel")().cast<int64_t>();
      t.first = memory(row.first);
      t.second = memory(row.second);
      t.mask = memory<const uint32_t>(row.mask);
      t.anchor = memory<const float>(row.anchor);
      t.step = steps_on_device ? memory(row.step) : nullptr;
      t.is_first_step = is_first_step[i];
      tensors_.push_back(t);
      const size_t bytes = sizeof(float) * static_cast<size_t>(t.numel);
      written_.add("weights", i, t.weight, bytes, true);
      written_.add(second.empty() ? "momenta" : "exp_avgs", i, t.first, t.first ? bytes : 0, true);
      written_.add("exp_avg_sqs", i, t.second, t.second ? bytes : 0, true);
    }
    written_.check_disjoint();
    apart_.resize(tensors_.size());
    schedule_ = lth::UpdateSchedule(tensors_.data(), tensors_.size());
  }

  // One step of masked SGD or AdamW: its squared distance (0.0 on CUDA), or none where the cache no longer
  // describes the weights, so that another must be made. `grads` holds the gradients where the caller has
  // prepared them, else they are the weights' own.
  std::optional<double> sgd(const std::optional<py::list>& grads, double lr, double momentum,
                            double dampening, double weight_decay, double pull, bool nesterov,
                            std::uintptr_t stream, std::uintptr_t device_lr, std::uintptr_t partials,
                            std::uintptr_t distance) {
    const lth::SgdOptions options = lth::sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov);
    if (!refresh(grads, momentum != 0.0)) return std::nullopt;
    const double squared = run(options, {stream, device_lr, partials, distance});
    for (lth::UpdateTensor& t : tensors_) t.is_first_step = t.is_first_step && !t.grad;
    return squared;
  }

  std::optional<double> adamw(const std::optional<py::list>& grads, double lr, double beta1, double beta2,
                              double eps, double weight_decay, double pull, std::uintptr_t stream,
                              std::uintptr_t device_lr, std::uintptr_t partials, std::uintptr_t distance) {
    const lth::AdamWOptions options = lth::adamw_options(lr, beta1, beta2, eps, weight_decay, pull);
    if (!refresh(grads, true)) return std::nullopt;
    for (size_t i = 0; i < rows_.size(); ++i) {
      lth::UpdateTensor& t = tensors_[i];
      if (!t.grad || t.step) continue;  // a step number on the device is counted there
      float& step = *memory(rows_[i].step);
      lth::set_adamw_step(t, lr, beta1, beta2, static_cast<int64_t>(step) + 1);
      step += 1.0f;
    }
    return run(options, {stream, device_lr, partials, distance});
  }

  // Whether every weight had a gradient at the last step.
  bool all_have_gradients() const { return all_have_gradients_; }

  // How many float64 of scratch a CUDA step needs.
  int64_t num_partials() const { return cuda_ ? cuda_->num_partials(tensors_.data(), tensors_.size()) : 0; }

 private:
  // Reads this step's gradients; false where the cache no longer describes the weights.
  bool refresh(const std::optional<py::list>& grads, bool needs_state) {
    all_have_gradients_ = true;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const Row& row = rows_[i];
      lth::UpdateTensor& t = tensors_[i];
      if (row.weight.moved() || !row.weight.view.lies_as(row.layout)) return false;
      // Its tensor is the cache's own, but the memory may be taken from it.
      if (row.anchor && row.anchor->moved()) return false;
      const py::object grad = grads ? (*grads)[i] : py::getattr(row.weight.tensor, names->grad);
      t.grad = nullptr;
      if (grad.is_none()) {
        all_have_gradients_ = false;
        continue;
      }
      if (needs_state && !t.first && t.numel > 0) return false;
      if (row.replaced(row.first) || row.replaced(row.second) || row.replaced(row.step)) return false;
      const View view(grad);
      if (!view.is_float32() || !view.lies_as(row.layout)) return false;
      t.grad = static_cast<const float*>(view.data());
      if (!t.grad && t.numel > 0) return false;
      if (t.grad != apart_[i]) {
        written_.check_apart("grads", i, t.grad, sizeof(float) * static_cast<size_t>(t.numel));
        apart_[i] = t.grad;
      }
    }
    return true;
  }

  double run(const lth::SgdOptions& options, const Place& place) {
    return run(options, place, cpu_ ? cpu_->sgd : nullptr, cuda_ ? cuda_->sgd : nullptr);
  }

  double run(const lth::AdamWOptions& options, const Place& place) {
    return run(options, place, cpu_ ? cpu_->adamw : nullptr, cuda_ ? cuda_->adamw : nullptr);
  }

  template <class Options, class OnCpu, class OnCuda>
  double run(const Options& options, const Place& place, OnCpu* on_cpu, OnCuda* on_cuda) {
    const py::gil_scoped_release released;
    if (on_cpu) return on_cpu(tensors_.data(), schedule_, options, partials_);
    on_cuda(tensors_.data(), tensors_.size(), options, reinterpret_cast<const float*>(place.lr),
            reinterpret_cast<double*>(place.partials), reinterpret_cast<double*>(place.distance),
            reinterpret_cast<void*>(place.stream));
    return 0.0;
  }

  py::capsule kernels_;  // of one of these
  const lth::CpuUpdate* cpu_ = nullptr;
  const lth::CudaUpdate* cuda_ = nullptr;
  std::vector<Row> rows_;
  std::vector<lth::UpdateTensor> tensors_;
  lth::Spans written_;
  std::vector<const float*> apart_;  // the gradient of each weight that was last found apart from them
  lth::UpdateSchedule schedule_{nullptr, 0};
  std::vector<double> partials_;
  bool all_have_gradients_ = false;
};

}  // namespace

PYBIND11_MODULE(_optimizer_cache, module) {
  names = new Names();
  module.doc() = "What a masked optimizer keeps between steps.";
  module.attr("built_from") = LTH_BUILT_FROM_CPU;
  py::class_<OptimizerCache>(module, "OptimizerCache")
      .def(py::init<const py::capsule&, const py::list&, const py::list&, const py::tuple&, const py::list&,
                    const py::list&, const py::list&, const py::list&, const py::list&, bool,
                    const std::vector<bool>&>())
      .def("sgd", &OptimizerCache::sgd)
      .def("adamw", &OptimizerCache::adamw)
      .def_property_readonly("all_have_gradients", &OptimizerCache::all_have_gradients)
      .def_property_readonly("num_partials", &OptimizerCache::num_partials);
}
