// UpdatePlan: what a masked optimizer keeps between steps, so that a step costs one call.
//
// It holds for each parameter its address, layout, state, packed mask and anchor, with a reference to every
// object, and at each step asks Python only for what may have changed: the gradients, and whether a
// parameter or a state was replaced. It speaks to tensors through their Python methods, so this file
// depends on no version of torch or Python.
#include <Python.h>

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

struct PythonError {};  // a Python exception is set

struct Names {
  PyObject *data_ptr, *grad, *stride, *dtype, *numel, *step;
};
Names names;

void* address(PyObject* tensor) {
  const Ref value(PyObject_CallMethodObjArgs(tensor, names.data_ptr, nullptr));
  if (!value) throw PythonError();
  void* pointer = PyLong_AsVoidPtr(value.get());
  if (!pointer && PyErr_Occurred()) throw PythonError();
  return pointer;
}

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

// A state tensor, such as momentum_buffer, and the dictionary entry it must still be.
struct State {
  Ref key, tensor;
  float* data = nullptr;
};

struct Row {
  Ref param, stride, dtype, entry, mask, anchor;
  State first, second, step;
};

struct Plan {
  std::vector<Row> rows;
  std::vector<lth::UpdateTensor> tensors;
  lth::UpdateSchedule schedule{nullptr, 0};
  std::vector<double> partials;
  Ref capsule;
  const lth::UpdateBackend* backend = nullptr;  // nullptr: CPU
};

struct PlanObject {
  PyObject_HEAD Plan* plan;
};

void take_state(State& state, PyObject* key, PyObject* tensor) {
  if (tensor == Py_None) return;
  state.key = Ref::to(key);
  state.tensor = Ref::to(tensor);
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
  row.stride = method(param, names.stride);
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
    t.anchor = static_cast<const float*>(address(anchor));
  }
  take_state(row.step, names.step, step);
  if (step_on_device) t.step = row.step.data;
  plan.rows.push_back(std::move(row));
  plan.tensors.push_back(t);
}

bool replaced(const Row& row, const State& state) {
  if (!state.tensor) return false;
  PyObject* now = PyDict_GetItemWithError(row.entry.get(), state.key.get());
  if (!now && PyErr_Occurred()) throw PythonError();
  return now != state.tensor.get() || address(now) != state.data;
}

// Reads this step's gradients; false when the plan no longer describes the parameters, so that it must be
// built again. `grads` holds them where the caller has prepared them, else they are the parameters' own.
bool refresh(Plan& plan, PyObject* grads, bool needs_state) {
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const Row& row = plan.rows[i];
    lth::UpdateTensor& t = plan.tensors[i];
    if (address(row.param.get()) != t.weight) return false;
    Ref own;
    PyObject* grad;
    if (grads == Py_None) {
      own = attribute(row.param.get(), names.grad);
      grad = own.get();
    } else {
      grad = PyList_GetItem(grads, static_cast<Py_ssize_t>(i));
      if (!grad) throw PythonError();
    }
    t.grad = nullptr;
    if (grad == Py_None) continue;
    if (needs_state && !t.first) return false;
    if (replaced(row, row.first) || replaced(row, row.second) || replaced(row, row.step)) return false;
    if (!equal(attribute(grad, names.dtype).get(), row.dtype.get())) return false;
    if (!equal(method(grad, names.stride).get(), row.stride.get())) return false;
    t.grad = static_cast<const float*>(address(grad));
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
    if (!refresh(plan, grads, momentum != 0.0)) Py_RETURN_NONE;
    const lth::SgdOptions options =
        lth::sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov != 0);
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
    if (!refresh(plan, grads, true)) Py_RETURN_NONE;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      lth::UpdateTensor& t = plan.tensors[i];
      if (!t.grad || t.step) continue;  // a step number on the device is counted there
      float& step = *plan.rows[i].step.data;
      step += 1.0f;
      lth::set_adamw_step(t, lr, beta1, beta2, static_cast<int64_t>(step));
    }
    const lth::AdamWOptions options = lth::adamw_options(lr, beta1, beta2, eps, weight_decay, pull);
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

PyMethodDef plan_methods[] = {{"sgd", plan_sgd, METH_VARARGS, "One step of masked SGD."},
                              {"adamw", plan_adamw, METH_VARARGS, "One step of masked AdamW."},
                              {"num_partials", plan_num_partials, METH_NOARGS, "Scratch of a CUDA step."},
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
           PyUnicode_InternFromString("stride"),   PyUnicode_InternFromString("dtype"),
           PyUnicode_InternFromString("numel"),    PyUnicode_InternFromString("step")};
  PyObject* type = PyType_FromSpec(&plan_spec);
  if (!type) return -1;
  if (PyModule_AddObject(module, "UpdatePlan", type) < 0) {
    Py_DECREF(type);
    return -1;
  }
  return 0;
}
