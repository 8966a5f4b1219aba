/* module.cpp: the extension module `lwip._lwip`. */
#include <pybind11/pybind11.h>

#include "stack_binding.hpp"

PYBIND11_MODULE(_lwip, module) {
    module.doc() = "User-space TCP/IP stacks (lwIP) and the POSIX socket server; see lwip/__init__.pyi.";
    netcon::bind_stack(module);
    netcon::bind_socket_server(module);
    netcon::bind_probe(module);
}
