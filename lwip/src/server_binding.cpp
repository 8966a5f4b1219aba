/* server_binding.cpp: `lwip.SocketServer` for Python. It only forwards to the reactor's thread (lwip/__init__.pyi). */
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server.hpp"
#include "stack_binding.hpp"

namespace py = pybind11;

namespace netcon {

namespace {

class PySocketServer {
  public:
    PySocketServer(py::object capsule, uint64_t service, uint64_t epoch) : reactor_(std::move(capsule)) {
        reactor_.call([&] { server_ = std::make_unique<server::Server>(reactor_.api(), service, epoch); });
    }
    ~PySocketServer() { close(); }

    void listen(const std::string &path, uint64_t network, unsigned mode) {
        int error = 0;
        call([&] { error = server_->rpc().listen(path, network, static_cast<mode_t>(mode)); });
        if (error != 0) {
            errno = error;
            PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
            throw py::error_already_set();
        }
    }
    void unlisten(const std::string &path) {
        call([&] { server_->rpc().unlisten(path); });
    }
    void add_network(uint64_t network, py::object stack) {
        if (network == 0) throw py::value_error("network 0 stands for every network; give the network's id");
        std::shared_ptr<Stack> shared = stack_from_python(stack);
        bool running = false;
        call([&] {
            if ((running = shared->running())) server_->add_network(network, shared);
        });
        if (!running) {
            PyErr_SetString(stack_error_type(), "this stack has failed or is closed: make a new one");
            throw py::error_already_set();
        }
    }
    void remove_network(uint64_t network) {
        call([&] { server_->remove_network(network); });
    }
    int questions_fileno() {
        int fd = -1;
        call([&] { fd = server_->questions().open(); });
        if (fd < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            throw py::error_already_set();
        }
        return fd;
    }
    py::list take_questions() {
        std::vector<server::Question> taken;
        call([&] { taken = server_->questions().take(); });
        py::list result;
        for (server::Question &each : taken)
            result.append(py::make_tuple(each.id, each.uid, each.network, each.kind, each.flags, each.family, each.room,
                                         py::bytes(each.data), each.stream.release()));
        return result;
    }
    bool answer_question(uint64_t id, int error, int value, const py::bytes &data) {
        std::string text = data;
        if (text.size() > NETCON_RESOLVE_MESSAGE_MAX) throw py::value_error("an answer has at most 65535 bytes");
        bool open = false;
        call([&] { open = server_->questions().answer(id, error, value, text); });
        return open;
    }
    void set_policy(const py::bytes &bytes) {
        std::string table(bytes);
        netcon_policy policy{};
        std::memcpy(&policy, table.data(), std::min(table.size(), sizeof policy));
        if (!netcon_policy_is_valid(&policy, table.size()) || policy.fallback == NETCON_POLICY_UNDECIDED)
            throw py::value_error("not a compiled policy: make it with netcon.policy.Policy.compiled()");
        call([&] { server_->set_policy(policy); });
    }
    void set_name_servers(const std::vector<std::string> &packed) {
        std::vector<server::Address> addresses;
        for (const std::string &each : packed) {
            auto *bytes = reinterpret_cast<const uint8_t *>(each.data());
            if (each.size() != 4 && each.size() != 16) throw py::value_error("an address has 4 or 16 bytes");
            addresses.push_back(each.size() == 4 ? server::Address::v4(bytes, 0) : server::Address::v6(bytes, 0));
        }
        call([&] { server_->set_name_servers(std::move(addresses)); });
    }
    py::dict stats() {
        std::vector<std::pair<std::string, uint64_t>> counters;
        call([&] { counters = server_->stats(); });
        py::dict result;
        for (auto &[name, value] : counters)
            result[py::str(name)] = value;
        return result;
    }
    void close() {
        if (server_) reactor_.call([&] { server_.reset(); });
    }

  private:
    template <class Fn> void call(Fn &&fn) {
        if (!server_) {
            PyErr_SetString(stack_error_type(), "the socket server is closed");
            throw py::error_already_set();
        }
        reactor_.call(std::forward<Fn>(fn));
    }
    ReactorRef reactor_;
    std::unique_ptr<server::Server> server_;
};

} // namespace

void bind_socket_server(py::module_ &module) {
    py::class_<PySocketServer>(module, "SocketServer")
        .def(py::init<py::object, uint64_t, uint64_t>(), py::arg("reactor"), py::kw_only(), py::arg("service"), py::arg("epoch"))
        .def("set_policy", &PySocketServer::set_policy, py::arg("table"))
        .def("set_name_servers", &PySocketServer::set_name_servers, py::arg("addresses"))
        .def("listen", &PySocketServer::listen, py::arg("path"), py::kw_only(), py::arg("network") = 0, py::arg("mode") = 0600)
        .def("unlisten", &PySocketServer::unlisten, py::arg("path"))
        .def("add_network", &PySocketServer::add_network, py::arg("network"), py::arg("stack"))
        .def("remove_network", &PySocketServer::remove_network, py::arg("network"))
        .def("questions_fileno", &PySocketServer::questions_fileno)
        .def("take_questions", &PySocketServer::take_questions)
        .def("answer_question", &PySocketServer::answer_question, py::arg("question"), py::kw_only(), py::arg("error") = 0,
             py::arg("value") = 0, py::arg("data") = py::bytes())
        .def("stats", &PySocketServer::stats)
        .def("close", &PySocketServer::close);
}

} // namespace netcon
