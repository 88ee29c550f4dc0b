// The Python module lthbench._C. Importing it registers the CPU operators (static initialisers of this
// binary); its masked_update is what the optimizer cache runs for weights on the CPU.
#include <Python.h>

#include "common/built_from.h"
#include "masked_update.h"

namespace {

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_C", "CPU kernels of lthbench.", -1, nullptr, nullptr, nullptr, nullptr, nullptr};

const lth::CpuUpdate kernels = {lth::sgd_cpu, lth::adamw_cpu};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  PyObject* module = PyModule_Create(&definition);
  if (!module) return nullptr;
  PyObject* capsule = PyCapsule_New(const_cast<lth::CpuUpdate*>(&kernels), lth::kCpuUpdate, nullptr);
  if (!capsule || PyModule_AddStringConstant(module, "built_from", LTH_BUILT_FROM_CPU) < 0 ||
      PyModule_AddObject(module, "masked_update", capsule) < 0) {
    Py_XDECREF(capsule);
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
