/* stack_binding.cpp: lwip.Stack for Python. Every call goes to the reactor's thread and waits there, without the GIL. */
#include "stack_binding.hpp"

#include <arpa/inet.h>
#include <pybind11/stl.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace netcon {

namespace {

constexpr int mtu_min = 1280; // IPv6's
constexpr int mtu_max = 61500;

PyObject *stack_error = nullptr;

[[noreturn]] void raise_stack_error(const std::string &text) {
    PyErr_SetString(stack_error, text.c_str());
    throw py::error_already_set();
}

ip_addr_t parse_ip(const std::string &text) {
    ip_addr_t ip{};
    if (inet_pton(AF_INET, text.c_str(), &ip.u_addr.ip4.addr) == 1) {
        ip.type = IPADDR_TYPE_V4;
    } else if (inet_pton(AF_INET6, text.c_str(), ip.u_addr.ip6.addr) == 1) {
        ip.type = IPADDR_TYPE_V6;
        ip.u_addr.ip6.zone = 0;
    } else {
        throw py::value_error("not an IP address: " + text);
    }
    return ip;
}

std::string format_ip(const ip_addr_t &ip) {
    char text[INET6_ADDRSTRLEN];
    const void *bytes = ip.type == IPADDR_TYPE_V6 ? static_cast<const void *>(ip.u_addr.ip6.addr) : &ip.u_addr.ip4.addr;
    return inet_ntop(ip.type == IPADDR_TYPE_V6 ? AF_INET6 : AF_INET, bytes, text, sizeof text);
}

/* "net/bits" and a gateway or None. */
lwip_core_route parse_route(const std::string &net, const std::optional<std::string> &gateway) {
    auto slash = net.find('/');
    lwip_core_route route{};
    int bits = -1;
    if (slash != std::string::npos) std::from_chars(net.data() + slash + 1, net.data() + net.size(), bits);
    route.network = parse_ip(net.substr(0, slash));
    if (bits < 0 || bits > (route.network.type == IPADDR_TYPE_V6 ? 128 : 32))
        throw py::value_error("a route is (\"network/bits\", gateway or None), not " + net);
    route.bits = static_cast<uint8_t>(bits);
    route.gateway.type = IPADDR_TYPE_ANY;
    if (gateway) {
        route.gateway = parse_ip(*gateway);
        if (route.gateway.type != route.network.type)
            throw py::value_error("the gateway of " + net + " is of the other family: " + *gateway);
    }
    return route;
}

uint16_t checked_mtu(int mtu) {
    if (mtu < mtu_min || mtu > mtu_max)
        throw py::value_error("the MTU must be " + std::to_string(mtu_min) + " to " + std::to_string(mtu_max) + ", not " +
                              std::to_string(mtu));
    return static_cast<uint16_t>(mtu);
}

void check(err_t error, const Stack &stack, const std::string &what) {
    switch (error) {
    case ERR_OK:
        return;
    case ERR_USE:
        raise_stack_error(what + ": the stack has this address already");
    case ERR_VAL:
        raise_stack_error(what + ": not an address that the stack can have, or has");
    case ERR_MEM:
        raise_stack_error(what + ": the stack has no room for it");
    default:
        raise_stack_error(what + ": the stack is not running (" + stack.failure() + ")");
    }
}

std::unique_ptr<PyStack> make_stack(py::object reactor, const std::string &mac, int mtu, std::string name,
                                    std::optional<uint64_t> seed) {
    if (mac.size() != 6) throw py::value_error("a MAC has 6 bytes, not " + std::to_string(mac.size()));
    if (mac[0] & 1) throw py::value_error("a stack's MAC must be a unicast address");
    StackConfig config;
    std::memcpy(config.mac.data(), mac.data(), 6);
    config.mtu = checked_mtu(mtu);
    config.name = std::move(name);
    config.seed = seed;
    return std::make_unique<PyStack>(std::move(reactor), std::move(config));
}

py::dict stats_of(PyStack &self) {
    Stack::Stats stats{};
    self.reactor.call([&] { stats = self.stack->stats(); });
    py::dict out;
    out["frames_in"] = stats.core.frames_in;
    out["frames_out"] = stats.core.frames_out;
    out["bytes_in"] = stats.core.bytes_in;
    out["bytes_out"] = stats.core.bytes_out;
    out["bad_frames"] = stats.core.bad_frames;
    out["frames_dropped"] = stats.frames_dropped;
    out["deliveries_refused"] = stats.deliveries_refused;
    out["segments_merged"] = stats.core.segments_merged;
    out["segments_refused"] = stats.core.segments_refused;
    out["transmit_refused"] = stats.core.transmit_refused;
    out["checksum_errors"] = stats.checksum_errors;
    out["tcp_drops"] = stats.tcp_drops;
    out["tcp_active"] = stats.core.tcp_active;
    out["tcp_listening"] = stats.core.tcp_listening;
    out["tcp_time_wait"] = stats.core.tcp_time_wait;
    out["memory"] = stats.core.memory;
    out["memory_peak"] = stats.core.memory_peak;
    out["timer_runs"] = stats.core.timer_runs;
    return out;
}

/* The capsule keeps the Stack object (memory, not life: a closed stack drops frames). */
py::object ethernet_end(PyStack &self) {
    auto *keep = new std::shared_ptr<Stack>(self.stack);
    void *end = const_cast<netcon_ethernet_end *>(self.stack->end());
    PyObject *capsule = PyCapsule_New(end, NETCON_ETHERNET_END_CAPSULE, [](PyObject *object) {
        delete static_cast<std::shared_ptr<Stack> *>(PyCapsule_GetContext(object));
    });
    if (capsule == nullptr) {
        delete keep;
        throw py::error_already_set();
    }
    PyCapsule_SetContext(capsule, keep);
    return py::reinterpret_steal<py::object>(capsule);
}

} // namespace

ReactorRef::ReactorRef(py::object capsule) : capsule_(std::move(capsule)) {
    api_ = static_cast<const netcon_reactor_api *>(PyCapsule_GetPointer(capsule_.ptr(), NETCON_REACTOR_CAPSULE));
    if (api_ == nullptr) {
        PyErr_Clear();
        throw py::type_error("a reactor capsule is wanted (Reactor.capsule())");
    }
    if (api_->abi_version != NETCON_REACTOR_ABI || api_->size < sizeof *api_)
        throw py::import_error("the reactor's interface is of another build than lwip's: build both again");
}

PyStack::PyStack(py::object reactor_capsule, StackConfig config) : reactor(std::move(reactor_capsule)) {
    try {
        reactor.call([&] { stack = Stack::create(reactor.api(), std::move(config)); });
    } catch (const std::runtime_error &error) {
        raise_stack_error(error.what());
    }
}

PyStack::~PyStack() {
    if (stack) reactor.call([&] { stack->close(); });
}

std::shared_ptr<Stack> stack_from_python(py::handle object) { return py::cast<PyStack &>(object).stack; }

PyObject *stack_error_type() { return stack_error; }

void bind_stack(py::module_ &module) {
    stack_error = PyErr_NewExceptionWithDoc(
        "lwip.StackError", "A call that the stack refused, or a stack that has failed (an lwIP assertion ended it).", nullptr,
        nullptr);
    module.add_object("StackError", py::handle(stack_error));
    py::class_<PyStack>(module, "Stack", "One TCP/IP stack: a private copy of lwIP with one Ethernet interface.")
        .def(py::init([](py::object reactor, const py::bytes &mac, int mtu, std::string name, std::optional<uint64_t> seed) {
                 return make_stack(std::move(reactor), static_cast<std::string>(mac), mtu, std::move(name), seed);
             }),
             py::arg("reactor"), py::kw_only(), py::arg("mac"), py::arg("mtu") = 2800, py::arg("name") = "",
             py::arg("seed") = py::none())
        .def("ethernet_end", &ethernet_end)
        .def(
            "add_address",
            [](PyStack &self, const std::string &ip, int prefix) {
                ip_addr_t address = parse_ip(ip);
                if (prefix < 0 || prefix > (address.type == IPADDR_TYPE_V6 ? 128 : 32))
                    throw py::value_error("not a prefix length: " + std::to_string(prefix));
                err_t error = ERR_OK;
                self.reactor.call([&] { error = self.stack->add_address(address, static_cast<uint8_t>(prefix)); });
                check(error, *self.stack, ip);
            },
            py::arg("ip"), py::arg("prefix"))
        .def(
            "remove_address",
            [](PyStack &self, const std::string &ip) {
                ip_addr_t address = parse_ip(ip);
                err_t error = ERR_OK;
                self.reactor.call([&] { error = self.stack->remove_address(address); });
                check(error, *self.stack, ip);
            },
            py::arg("ip"))
        .def("addresses",
             [](PyStack &self) {
                 std::vector<lwip_core_address> found;
                 self.reactor.call([&] { found = self.stack->addresses(); });
                 std::vector<std::pair<std::string, int>> out;
                 for (const auto &address : found)
                     out.emplace_back(format_ip(address.ip), address.bits);
                 return out;
             })
        .def("groups",
             [](PyStack &self) {
                 std::vector<ip_addr_t> found;
                 self.reactor.call([&] { found = self.stack->groups(); });
                 std::vector<std::string> out;
                 for (const auto &group : found)
                     out.push_back(format_ip(group));
                 return out;
             })
        .def(
            "set_routes",
            [](PyStack &self, const std::vector<std::pair<std::string, std::optional<std::string>>> &given) {
                std::vector<lwip_core_route> routes;
                for (const auto &[net, gateway] : given)
                    routes.push_back(parse_route(net, gateway));
                err_t error = ERR_OK;
                self.reactor.call([&] { error = self.stack->set_routes(routes); });
                check(error, *self.stack, "routes");
            },
            py::arg("routes"))
        .def(
            "set_mtu",
            [](PyStack &self, int mtu) {
                uint16_t value = checked_mtu(mtu);
                self.reactor.call([&] { self.stack->set_mtu(value); });
            },
            py::arg("mtu"))
        .def_property_readonly("mtu", [](PyStack &self) { return self.stack->mtu(); })
        .def_property_readonly("name", [](PyStack &self) { return self.stack->name(); })
        .def_property_readonly("failed",
                               [](PyStack &self) {
                                   std::optional<std::string> text;
                                   self.reactor.call([&] {
                                       if (!self.stack->running() && self.stack->failure() != "closed")
                                           text = self.stack->failure();
                                   });
                                   return text;
                               })
        .def(
            "inject_failure",
            [](PyStack &self, const std::string &text) { self.reactor.call([&] { self.stack->inject_failure(text.c_str()); }); },
            py::arg("text"))
        .def("stats", &stats_of)
        .def("close", [](PyStack &self) { self.reactor.call([&] { self.stack->close(); }); });
}

} // namespace netcon
