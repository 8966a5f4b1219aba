/* server_binding.cpp: lwip.SocketServer for Python (the socket server's part). */
#include "stack_binding.hpp"

namespace netcon {

void bind_socket_server(pybind11::module_ &) {}

} // namespace netcon
