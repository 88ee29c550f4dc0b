// UpdatePlan: what a masked optimizer keeps between steps, so that a step costs one call.
//
// It holds for each parameter its address, layout, state, packed mask and anchor, with a reference to every
// object, and at each step asks Python only for what may have changed: the gradients, and whether a
// parameter, a state or an anchor was replaced, moved or given another shape. What it is built from has
// passed check_update. Where the running torch can (2.14 and later) it reads tensors through libtorch's C
// interface, else through their Python methods, so it depends on no version of torch or Python.
#include <Python.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>
#include <vector>

#include "update_options.h"

namespace {

// An owned reference.
class Ref {
 public:
  explicit Ref(PyObject* object = nullptr) : object_(object) {}
  Ref(Ref&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }
  static Ref to(PyObject* borrowed) {
    Py_XINCREF(borrowed);
    return Ref(borrowed);
  }
  PyObject* get() const { return object_; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_;
};

// Of torch 2.14 and later; the weak reference is null under an older one.
extern "C" __attribute__((weak)) AOTITorchError torch_tensor_from_pyobject(void* tensor,
                                                                           AtenTensorHandle* handle);

struct PythonError {};  // a Python exception is set

struct Names {
  PyObject *data_ptr, *grad, *shape, *stride, *dtype, *numel, *step;
};
Names names;

void* address(PyObject* tensor) {
  const Ref value(PyObject_CallMethodObjArgs(tensor, names.data_ptr, nullptr));
  if (!value) throw PythonError();
  void* pointer = PyLong_AsVoidPtr(value.get());
  if (!pointer && PyErr_Occurred()) throw PythonError();
  return pointer;
}

// A tensor read through libtorch's C interface: empty where that cannot.
class Handle {
 public:
  explicit Handle(PyObject* tensor = nullptr) {
    if (tensor && tensor != Py_None && torch_tensor_from_pyobject)
      torch_tensor_from_pyobject(tensor, &handle_);
  }
  Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Handle() {
    if (handle_) aoti_torch_delete_tensor_object(handle_);
  }
  explicit operator bool() const { return handle_ != nullptr; }

  // nullptr where the tensor has no memory of its own, which no address of a plan equals.
  void* data() const {
    void* pointer = nullptr;
    return aoti_torch_get_data_ptr(handle_, &pointer) == AOTI_TORCH_SUCCESS ? pointer : nullptr;
  }
  bool is_float() const {
    int32_t dtype = -1;
    return aoti_torch_get_dtype(handle_, &dtype) == AOTI_TORCH_SUCCESS && dtype == aoti_torch_dtype_float32();
  }
  // Whether it has these sizes, and its elements lie in memory at these strides.
  bool lies_as(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) const {
    int64_t dim = 0, *own_sizes = nullptr, *own_strides = nullptr;
    if (aoti_torch_get_dim(handle_, &dim) != AOTI_TORCH_SUCCESS ||
        dim != static_cast<int64_t>(sizes.size()) ||
        aoti_torch_get_sizes(handle_, &own_sizes) != AOTI_TORCH_SUCCESS ||
        aoti_torch_get_strides(handle_, &own_strides) != AOTI_TORCH_SUCCESS) {
      return false;
    }
    return std::equal(sizes.begin(), sizes.end(), own_sizes) &&
           std::equal(strides.begin(), strides.end(), own_strides);
  }

 private:
  AtenTensorHandle handle_ = nullptr;
};

Ref method(PyObject* object, PyObject* name) {
  Ref value(PyObject_CallMethodObjArgs(object, name, nullptr));
  if (!value) throw PythonError();
  return value;
}

Ref attribute(PyObject* object, PyObject* name) {
  Ref value(PyObject_GetAttr(object, name));
  if (!value) throw PythonError();
  return value;
}

bool equal(PyObject* a, PyObject* b) {
  const int same = a == b ? 1 : PyObject_RichCompareBool(a, b, Py_EQ);
  if (same < 0) throw PythonError();
  return same == 1;
}

void* data(const Handle& handle, PyObject* tensor) { return handle ? handle.data() : address(tensor); }

// A state tensor, such as momentum_buffer, and the dictionary entry it must still be.
struct State {
  Ref key, tensor;
  Handle handle;
  float* data = nullptr;
};

struct Row {
  Ref param, shape, stride, dtype, entry, mask, anchor;
  State first, second, step;
  Handle handle, anchor_handle;         // of the parameter and its anchor
  std::vector<int64_t> sizes, strides;  // the same as `shape` and `stride`
};

// Memory that a step writes.
struct Span {
  const float *begin, *end;
};

struct Plan {
  std::vector<Row> rows;
  std::vector<lth::UpdateTensor> tensors;
  std::vector<Span> written;        // by address; they do not overlap
  std::vector<const float*> apart;  // the gradient of each row that was last found apart from them
  lth::UpdateSchedule schedule{nullptr, 0};
  std::vector<double> partials;
  Ref capsule;
  const lth::UpdateBackend* backend = nullptr;  // nullptr: CPU
  bool all_have_gradients = false;              // at the last step
};

struct PlanObject {
  PyObject_HEAD Plan* plan;
};

void take_state(State& state, PyObject* key, PyObject* tensor) {
  if (tensor == Py_None) return;
  state.key = Ref::to(key);
  state.tensor = Ref::to(tensor);
  state.handle = Handle(tensor);
  state.data = static_cast<float*>(address(tensor));
}

// row: (param, state entry, first key, first, second key, second, mask, anchor, step tensor, whether that is
// on the device, fresh); None where there is none.
void add_row(Plan& plan, PyObject* tuple) {
  PyObject *param, *entry, *first_key, *first, *second_key, *second, *mask, *anchor, *step;
  int step_on_device, fresh;
  if (!PyArg_ParseTuple(tuple, "OOOOOOOOOpp", &param, &entry, &first_key, &first, &second_key, &second, &mask,
                        &anchor, &step, &step_on_device, &fresh)) {
    throw PythonError();
  }
  Row row;
  lth::UpdateTensor t{};
  row.param = Ref::to(param);
  row.handle = Handle(param);
  row.shape = attribute(param, names.shape);
  row.stride = method(param, names.stride);
  for (Py_ssize_t d = 0; d < PyTuple_Size(row.stride.get()); ++d) {
    row.sizes.push_back(PyLong_AsLongLong(PyTuple_GetItem(row.shape.get(), d)));
    row.strides.push_back(PyLong_AsLongLong(PyTuple_GetItem(row.stride.get(), d)));
  }
  row.dtype = attribute(param, names.dtype);
  row.entry = Ref::to(entry);
  t.weight = static_cast<float*>(address(param));
  const Ref numel = method(param, names.numel);
  t.numel = PyLong_AsLongLong(numel.get());
  t.fresh = fresh != 0;
  take_state(row.first, first_key, first);
  take_state(row.second, second_key, second);
  t.first = row.first.data;
  t.second = row.second.data;
  if (mask != Py_None) {
    row.mask = Ref::to(mask);
    t.mask = static_cast<const uint32_t*>(address(mask));
  }
  if (anchor != Py_None) {
    row.anchor = Ref::to(anchor);
    row.anchor_handle = Handle(anchor);
    t.anchor = static_cast<const float*>(address(anchor));
  }
  take_state(row.step, names.step, step);
  if (step_on_device) t.step = row.step.data;
  for (const float* begin : {t.weight, t.first, t.second}) {
    if (begin && t.numel > 0) plan.written.push_back({begin, begin + t.numel});
  }
  plan.rows.push_back(std::move(row));
  plan.tensors.push_back(t);
}

bool is_float(const Row& row, const Handle& handle, PyObject* tensor) {
  return handle ? handle.is_float() : equal(attribute(tensor, names.dtype).get(), row.dtype.get());
}

// Whether a tensor has the shape and the strides that the row's weight had when the plan was built.
bool lies_as_weight(const Row& row, const Handle& handle, PyObject* tensor) {
  if (handle) return handle.lies_as(row.sizes, row.strides);
  return equal(attribute(tensor, names.shape).get(), row.shape.get()) &&
         equal(method(tensor, names.stride).get(), row.stride.get());
}

// Whether a state is no longer the optimizer's, or was moved.
bool replaced(const Row& row, const State& state) {
  PyObject* tensor = state.tensor.get();
  if (!tensor) return false;
  PyObject* now = PyDict_GetItemWithError(row.entry.get(), state.key.get());
  if (!now && PyErr_Occurred()) throw PythonError();
  return now != tensor || data(state.handle, tensor) != state.data;
}

// The memory of a gradient that lies as its weight does; nullptr where it does not.
const float* gradient(const Row& row, PyObject* grad) {
  const Handle handle(grad);
  const bool alike = is_float(row, handle, grad) && lies_as_weight(row, handle, grad);
  return alike ? static_cast<const float*>(data(handle, grad)) : nullptr;
}

void check_apart(Plan& plan, size_t i) {
  const lth::UpdateTensor& t = plan.tensors[i];
  if (t.grad == plan.apart[i] || t.numel == 0) return;
  const auto after = std::lower_bound(plan.written.begin(), plan.written.end(), t.grad + t.numel,
                                      [](const Span& span, const float* end) { return span.begin < end; });
  LTH_CHECK(after == plan.written.begin() || std::prev(after)->end <= t.grad, lth::item("grads", i),
            " overlaps in memory with what the step writes; give it storage of its own");
  plan.apart[i] = t.grad;
}

// Reads this step's gradients; false when the plan no longer describes the parameters, so that it must be
// built again. `grads` holds them where the caller has prepared them, else they are the parameters' own.
bool refresh(Plan& plan, PyObject* grads, bool needs_state) {
  plan.all_have_gradients = true;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const Row& row = plan.rows[i];
    lth::UpdateTensor& t = plan.tensors[i];
    PyObject* param = row.param.get();
    if (data(row.handle, param) != t.weight || !lies_as_weight(row, row.handle, param)) return false;
    // Its tensor is the plan's own, but the memory may be taken from it.
    if (t.anchor && data(row.anchor_handle, row.anchor.get()) != t.anchor) return false;
    Ref own;
    PyObject* grad;
    if (grads == Py_None) {
      own = attribute(param, names.grad);
      grad = own.get();
    } else {
      grad = PyList_GetItem(grads, static_cast<Py_ssize_t>(i));
      if (!grad) throw PythonError();
    }
    t.grad = nullptr;
    if (grad == Py_None) {
      plan.all_have_gradients = false;
      continue;
    }
    if (needs_state && !t.first && t.numel > 0) return false;
    if (replaced(row, row.first) || replaced(row, row.second) || replaced(row, row.step)) return false;
    t.grad = gradient(row, grad);
    if (!t.grad && t.numel > 0) return false;
    check_apart(plan, i);
  }
  return true;
}

// Where a CUDA step runs: the addresses are Python integers, 0 for none.
struct Place {
  unsigned long long stream = 0, lr = 0, partials = 0, distance = 0;
};

template <class Function>
auto without_gil(Function&& function) {
  PyThreadState* state = PyEval_SaveThread();
  try {
    auto result = function();
    PyEval_RestoreThread(state);
    return result;
  } catch (...) {
    PyEval_RestoreThread(state);
    throw;
  }
}

template <class Body>
PyObject* guarded(Body&& body) {
  try {
    return body();
  } catch (const PythonError&) {
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// sgd(grads, momentum..., place...) -> squared distance (0.0 on CUDA), or None: build the plan again.
PyObject* plan_sgd(PyObject* self, PyObject* args) {
  return guarded([&]() -> PyObject* {
    Plan& plan = *reinterpret_cast<PlanObject*>(self)->plan;
    PyObject* grads;
    double lr, momentum, dampening, weight_decay, pull;
    int nesterov;
    Place place;
    if (!PyArg_ParseTuple(args, "OdddddpKKKK", &grads, &lr, &momentum, &dampening, &weight_decay, &pull,
                          &nesterov, &place.stream, &place.lr, &place.partials, &place.distance)) {
      throw PythonError();
    }
    const lth::SgdOptions options =
        lth::sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov != 0);
    if (!refresh(plan, grads, momentum != 0.0)) Py_RETURN_NONE;
    const double distance = without_gil([&] {
      if (!plan.backend) return lth::sgd_cpu(plan.tensors.data(), plan.schedule, options, plan.partials);
      plan.backend->sgd(plan.tensors.data(), plan.tensors.size(), options,
                        reinterpret_cast<const float*>(place.lr), reinterpret_cast<double*>(place.partials),
                        reinterpret_cast<double*>(place.distance), reinterpret_cast<void*>(place.stream));
      return 0.0;
    });
    for (lth::UpdateTensor& t : plan.tensors) t.fresh = t.fresh && !t.grad;
    return PyFloat_FromDouble(distance);
  });
}

// adamw(grads, lr, ..., place...) -> squared distance (0.0 on CUDA), or None: build the plan again.
PyObject* plan_adamw(PyObject* self, PyObject* args) {
  return guarded([&]() -> PyObject* {
    Plan& plan = *reinterpret_cast<PlanObject*>(self)->plan;
    PyObject* grads;
    double lr, beta1, beta2, eps, weight_decay, pull;
    Place place;
    if (!PyArg_ParseTuple(args, "OddddddKKKK", &grads, &lr, &beta1, &beta2, &eps, &weight_decay, &pull,
                          &place.stream, &place.lr, &place.partials, &place.distance)) {
      throw PythonError();
    }
    const lth::AdamWOptions options = lth::adamw_options(lr, beta1, beta2, eps, weight_decay, pull);
    if (!refresh(plan, grads, true)) Py_RETURN_NONE;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      lth::UpdateTensor& t = plan.tensors[i];
      if (!t.grad || t.step) continue;  // a step number on the device is counted there
      float& step = *plan.rows[i].step.data;
      lth::set_adamw_step(t, lr, beta1, beta2, static_cast<int64_t>(step) + 1);
      step += 1.0f;
    }
    const double distance = without_gil([&] {
      if (!plan.backend) return lth::adamw_cpu(plan.tensors.data(), plan.schedule, options, plan.partials);
      plan.backend->adamw(plan.tensors.data(), plan.tensors.size(), options,
                          reinterpret_cast<const float*>(place.lr), reinterpret_cast<double*>(place.partials),
                          reinterpret_cast<double*>(place.distance), reinterpret_cast<void*>(place.stream));
      return 0.0;
    });
    return PyFloat_FromDouble(distance);
  });
}

// all_have_gradients() -> whether every parameter had one at the last step.
PyObject* plan_all_have_gradients(PyObject* self, PyObject*) {
  return PyBool_FromLong(reinterpret_cast<PlanObject*>(self)->plan->all_have_gradients);
}

// num_partials() -> how many float64 of scratch a CUDA step needs.
PyObject* plan_num_partials(PyObject* self, PyObject*) {
  const Plan& plan = *reinterpret_cast<PlanObject*>(self)->plan;
  return PyLong_FromLongLong(
      plan.backend ? plan.backend->num_partials(plan.tensors.data(), plan.tensors.size()) : 0);
}

// UpdatePlan(rows, backend capsule or None)
PyObject* plan_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *rows, *capsule;
  if (!PyArg_ParseTuple(args, "O!O", &PyList_Type, &rows, &capsule)) return nullptr;
  auto* allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
  Ref self(allocate(type, 0));
  if (!self) return nullptr;
  return guarded([&]() -> PyObject* {
    auto* plan = new Plan();
    reinterpret_cast<PlanObject*>(self.get())->plan = plan;
    for (Py_ssize_t i = 0; i < PyList_Size(rows); ++i) add_row(*plan, PyList_GetItem(rows, i));
    std::sort(plan->written.begin(), plan->written.end(),
              [](const Span& a, const Span& b) { return a.begin < b.begin; });
    plan->apart.resize(plan->tensors.size());
    plan->schedule = lth::UpdateSchedule(plan->tensors.data(), plan->tensors.size());
    if (capsule != Py_None) {
      plan->capsule = Ref::to(capsule);
      plan->backend =
          static_cast<const lth::UpdateBackend*>(PyCapsule_GetPointer(capsule, lth::kUpdateBackendName));
      if (!plan->backend) throw PythonError();
    }
    return self.release();
  });
}

void plan_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<PlanObject*>(self)->plan;
  auto* release = reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free));
  release(self);
  Py_DECREF(type);
}

PyMethodDef plan_methods[] = {
    {"sgd", plan_sgd, METH_VARARGS, "One step of masked SGD."},
    {"adamw", plan_adamw, METH_VARARGS, "One step of masked AdamW."},
    {"num_partials", plan_num_partials, METH_NOARGS, "Scratch of a CUDA step."},
    {"all_have_gradients", plan_all_have_gradients, METH_NOARGS, "Of the last step."},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot plan_slots[] = {{Py_tp_new, reinterpret_cast<void*>(plan_new)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(plan_dealloc)},
                            {Py_tp_methods, plan_methods},
                            {0, nullptr}};
PyType_Spec plan_spec = {"lthbench._C.UpdatePlan", sizeof(PlanObject), 0, Py_TPFLAGS_DEFAULT, plan_slots};

}  // namespace

// Adds the type to the module; -1 with a Python exception set on failure.
int add_update_plan(PyObject* module) {
  names = {PyUnicode_InternFromString("data_ptr"), PyUnicode_InternFromString("grad"),
           PyUnicode_InternFromString("shape"),    PyUnicode_InternFromString("stride"),
           PyUnicode_InternFromString("dtype"),    PyUnicode_InternFromString("numel"),
           PyUnicode_InternFromString("step")};
  PyObject* type = PyType_FromSpec(&plan_spec);
  if (!type) return -1;
  if (PyModule_AddObject(module, "UpdatePlan", type) < 0) {
    Py_DECREF(type);
    return -1;
  }
  return 0;
}
