/* stack_binding.hpp: what the bindings share: the reactor capsule, calls on the reactor's thread, Python's Stack. */
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <memory>

#include "netcon/reactor.h"
#include "stack.hpp"

namespace netcon {

/* A checked reactor capsule, kept alive. ImportError when its layout is not ours, TypeError when it is something else. */
class ReactorRef {
  public:
    explicit ReactorRef(pybind11::object capsule);
    const netcon_reactor_api *api() const { return api_; }

    /* Run fn() on the reactor's thread and wait, without the GIL; its exception comes out here. Once the reactor has stopped its
     * thread is joined: then it runs here. */
    template <class Fn> void call(Fn &&fn) const {
        struct Call {
            Fn *fn;
            std::exception_ptr error;
        } call{&fn, nullptr};
        pybind11::gil_scoped_release release;
        auto run = [](void *context) {
            auto *call = static_cast<Call *>(context);
            try {
                (*call->fn)();
            } catch (...) {
                call->error = std::current_exception();
            }
        };
        if (api_->call(api_->reactor, run, &call) != 0) run(&call);
        if (call.error) std::rethrow_exception(call.error);
    }

  private:
    pybind11::object capsule_;
    const netcon_reactor_api *api_;
};

/* lwip.Stack. The stack itself may live on in those who share it; it is closed when this goes. */
class PyStack {
  public:
    PyStack(pybind11::object reactor, StackConfig config);
    ~PyStack();
    ReactorRef reactor;
    std::shared_ptr<Stack> stack;
};

/* The stack of a lwip.Stack object; TypeError otherwise. */
std::shared_ptr<Stack> stack_from_python(pybind11::handle object);

/* `lwip.StackError`, for other bindings to raise (PyErr_SetString). */
PyObject *stack_error_type();

void bind_stack(pybind11::module_ &module);
void bind_socket_server(pybind11::module_ &module);
void bind_probe(pybind11::module_ &module);

} // namespace netcon
