// The Python module lthbench._C. Importing it registers the CPU operators (static initialisers of this
// binary).
#include <Python.h>

#include "common/built_from.h"

int add_update_plan(PyObject* module);  // plan.cpp

namespace {

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_C", "CPU kernels of lthbench.", -1, nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  PyObject* module = PyModule_Create(&definition);
  if (module && (add_update_plan(module) < 0 ||
                 PyModule_AddStringConstant(module, "built_from", LTH_BUILT_FROM_CPU) < 0)) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
