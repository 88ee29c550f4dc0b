// The Python module lthbench._C. Importing it registers the CPU operators (static initialisers of this binary).
#include <Python.h>

namespace {

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "CPU kernels of lthbench.", -1, nullptr,
                      nullptr,               nullptr, nullptr,                  nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
