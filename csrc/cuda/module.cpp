// The Python module lthbench._C_cuda. Importing it registers the CUDA operators; its masked_update is what
// the optimizer cache runs for weights on a GPU.
#include <Python.h>

#include "common/built_from.h"
#include "masked_update.h"

namespace {

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_C_cuda",
                          "CUDA kernels of lthbench.",
                          -1,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

const lth::CudaUpdate kernels = {lth::num_partials_cuda, lth::sgd_cuda, lth::adamw_cuda};

}  // namespace

PyMODINIT_FUNC PyInit__C_cuda() {
  PyObject* module = PyModule_Create(&definition);
  if (!module) return nullptr;
  PyObject* capsule = PyCapsule_New(const_cast<lth::CudaUpdate*>(&kernels), lth::kCudaUpdate, nullptr);
  if (!capsule || PyModule_AddStringConstant(module, "built_from", LTH_BUILT_FROM_CUDA) < 0 ||
      PyModule_AddObject(module, "masked_update", capsule) < 0) {
    Py_XDECREF(capsule);
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
