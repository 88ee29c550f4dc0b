// The Python module lthbench._C_cuda. Importing it registers the CUDA operators.
#include <Python.h>

namespace {

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_cuda", "CUDA kernels of lthbench.", -1, nullptr,
                      nullptr,               nullptr,   nullptr,                     nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C_cuda() { return PyModule_Create(&module); }
