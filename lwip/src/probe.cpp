/* probe.cpp: lwip.Probe, the stack's self-test: one TCP connection that sends a known pattern and verifies the one it receives, and
 * ICMP echo.
 *
 * Theory of operation. It uses lwIP's API as the socket server does, without descriptors: on a manual reactor two probes on two
 * stacks are a whole TCP conversation in virtual time. Its callbacks run under the stack's trap; they touch plain fields only. The
 * pattern is a function of a seed and the byte's position, so that a lost, repeated, moved or changed byte is seen, and where.
 */
#include <arpa/inet.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "lwip/icmp.h"
#include "lwip/prot/icmp6.h"
#include "stack_binding.hpp"

namespace py = pybind11;

namespace netcon {

namespace {

uint8_t pattern(uint64_t seed, uint64_t position) {
    uint64_t x = (position / 8 + seed) * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    return static_cast<uint8_t>(x >> (8 * (position % 8)));
}

uint16_t internet_checksum(const uint8_t *bytes, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += static_cast<uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(~sum);
}

class ProbeEnd {
  public:
    ProbeEnd(std::shared_ptr<Stack> stack, uint64_t seed) : stack_(std::move(stack)), core_(stack_->core()), seed_(seed) {
        listener_id_ = stack_->on_failure([this](const std::string &) { forget_stack(ERR_ABRT); });
    }
    ~ProbeEnd() { close(); }

    err_t listen(const ip_addr_t &ip, uint16_t port) {
        err_t error = ERR_MEM;
        bool alive = stack_->enter([&] {
            tcp_pcb *pcb = core_.tcp_new_ip_type(ip.type);
            if (pcb == nullptr) return;
            error = core_.tcp_bind(pcb, &ip, port);
            tcp_pcb *listener = error == ERR_OK ? core_.tcp_listen_with_backlog_and_err(pcb, 16, &error) : nullptr;
            if (listener == nullptr) {
                core_.tcp_close(pcb);
                return;
            }
            listening_ = listener;
            core_.tcp_arg(listener, this);
            core_.tcp_accept(
                listener, [](void *self, tcp_pcb *accepted, err_t) { return static_cast<ProbeEnd *>(self)->accepted(accepted); });
        });
        return alive ? error : err_t{ERR_CLSD};
    }

    /* There is one link: a link-local address is on it. */
    ip_addr_t zoned(ip_addr_t ip) const {
        if (IP_IS_V6(&ip) && ip6_addr_islinklocal(ip_2_ip6(&ip))) ip6_addr_assign_zone(ip_2_ip6(&ip), IP6_UNICAST, core_.netif);
        return ip;
    }

    err_t connect(const ip_addr_t &ip, uint16_t port) {
        err_t error = ERR_MEM;
        bool alive = stack_->enter([&] {
            tcp_pcb *pcb = core_.tcp_new_ip_type(ip.type);
            if (pcb == nullptr) return;
            adopt(pcb);
            ip_addr_t to = zoned(ip);
            error = core_.tcp_connect(pcb, &to, port, [](void *self, tcp_pcb *, err_t) -> err_t {
                auto *probe = static_cast<ProbeEnd *>(self);
                probe->connected_ = true;
                probe->pump();
                return ERR_OK;
            });
            if (error != ERR_OK) core_.tcp_abort(release());
        });
        return alive ? error : err_t{ERR_CLSD};
    }

    void send(uint64_t bytes) {
        to_send_ += bytes;
        enter_pump();
    }
    void finish() {
        finish_ = true;
        enter_pump();
    }
    void keepalive(uint32_t idle_ms, uint32_t interval_ms, uint32_t count) {
        if (pcb_ == nullptr) return;
        ip_set_option(pcb_, SOF_KEEPALIVE);
        pcb_->keep_idle = idle_ms;
        pcb_->keep_intvl = interval_ms;
        pcb_->keep_cnt = count;
        stack_->enter([] {});
    }
    void pause(bool paused) {
        paused_ = paused;
        if (paused_) return;
        stack_->enter([&] {
            while (pcb_ != nullptr && held_ > 0) {
                auto step = static_cast<uint16_t>(std::min<uint64_t>(held_, 0xffff));
                held_ -= step;
                core_.tcp_recved(pcb_, step);
            }
        });
    }
    void abort() {
        stack_->enter([&] {
            if (pcb_ != nullptr) core_.tcp_abort(release());
        });
    }

    err_t ping(const ip_addr_t &ip, uint16_t sequence, uint16_t length) {
        err_t error = ERR_MEM;
        bool is_ip6 = ip.type == IPADDR_TYPE_V6;
        stack_->enter([&] {
            raw_pcb *&raw = is_ip6 ? raw6_ : raw4_;
            if (raw == nullptr) {
                raw = core_.raw_new_ip_type(ip.type, is_ip6 ? IP6_NEXTH_ICMP6 : IP_PROTO_ICMP);
                if (raw == nullptr) return;
                if (is_ip6) {
                    raw->chksum_reqd = 1;
                    raw->chksum_offset = 2;
                }
                core_.raw_recv(
                    raw,
                    [](void *self, raw_pcb *, pbuf *packet, const ip_addr_t *from) -> u8_t {
                        return static_cast<ProbeEnd *>(self)->echo_received(packet, from->type == IPADDR_TYPE_V6);
                    },
                    this);
            }
            size_t size = sizeof(icmp_echo_hdr) + length;
            pbuf *packet = core_.pbuf_alloc(PBUF_IP, static_cast<u16_t>(size), PBUF_RAM);
            if (packet == nullptr) return;
            auto *bytes = static_cast<uint8_t *>(packet->payload);
            std::memset(bytes, 0, size);
            bytes[0] = is_ip6 ? uint8_t{ICMP6_TYPE_EREQ} : uint8_t{ICMP_ECHO};
            bytes[6] = static_cast<uint8_t>(sequence >> 8);
            bytes[7] = static_cast<uint8_t>(sequence);
            for (size_t i = 0; i < length; i++)
                bytes[sizeof(icmp_echo_hdr) + i] = pattern(seed_, i);
            if (!is_ip6) {
                uint16_t sum = internet_checksum(bytes, size);
                bytes[2] = static_cast<uint8_t>(sum >> 8);
                bytes[3] = static_cast<uint8_t>(sum);
            }
            ip_addr_t to = zoned(ip);
            error = core_.raw_sendto(raw, packet, &to);
            core_.pbuf_free(packet);
        });
        return error;
    }

    void close() {
        if (core_gone_) return;
        abort();
        stack_->enter([&] {
            if (listening_ != nullptr) {
                core_.tcp_arg(listening_, nullptr);
                core_.tcp_close(listening_);
            }
            for (raw_pcb *raw : {raw4_, raw6_})
                if (raw != nullptr) core_.raw_remove(raw);
        });
        listening_ = nullptr;
        raw4_ = raw6_ = nullptr;
        stack_->forget(listener_id_);
        core_gone_ = true;
    }

    struct State {
        bool connected, eof, open;
        uint64_t sent, acknowledged, received, bad_at, echo_replies;
        int error, mss;
    };
    State state() const {
        return {connected_, eof_,    pcb_ != nullptr, sent_,  acknowledged_,
                received_,  bad_at_, echo_replies_,   error_, pcb_ != nullptr ? pcb_->mss : 0};
    }

  private:
    void forget_stack(err_t error) {
        core_gone_ = true;
        if (pcb_ != nullptr || listening_ != nullptr) error_ = error;
        pcb_ = listening_ = nullptr;
        raw4_ = raw6_ = nullptr;
    }

    void adopt(tcp_pcb *pcb) {
        pcb_ = pcb;
        core_.tcp_arg(pcb, this);
        core_.tcp_recv(pcb, [](void *self, tcp_pcb *, pbuf *data, err_t) { return static_cast<ProbeEnd *>(self)->received(data); });
        core_.tcp_sent(pcb, [](void *self, tcp_pcb *, u16_t length) -> err_t {
            auto *probe = static_cast<ProbeEnd *>(self);
            probe->acknowledged_ += length;
            probe->pump();
            return ERR_OK;
        });
        core_.tcp_err(pcb, [](void *self, err_t error) {
            if (auto *probe = static_cast<ProbeEnd *>(self)) {
                probe->pcb_ = nullptr;
                if (error != ERR_CLSD) // which is an orderly end
                    probe->error_ = error;
            }
        });
    }

    /* The PCB, which no longer knows us. */
    tcp_pcb *release() {
        tcp_pcb *pcb = std::exchange(pcb_, nullptr);
        core_.tcp_arg(pcb, nullptr);
        core_.tcp_recv(pcb, nullptr);
        core_.tcp_sent(pcb, nullptr);
        core_.tcp_err(pcb, nullptr);
        return pcb;
    }

    err_t accepted(tcp_pcb *pcb) {
        if (pcb == nullptr || pcb_ != nullptr) {
            if (pcb != nullptr) core_.tcp_abort(pcb);
            return ERR_ABRT;
        }
        connected_ = true;
        adopt(pcb);
        pump();
        return ERR_OK;
    }

    err_t received(pbuf *data) {
        if (data == nullptr) {
            eof_ = true;
            if (finished_) // a PCB in TIME-WAIT goes without a word: let it go, it sends on what is left by itself
                core_.tcp_close(release());
            return ERR_OK;
        }
        for (const pbuf *part = data; part != nullptr; part = part->next) {
            const auto *bytes = static_cast<const uint8_t *>(part->payload);
            for (size_t i = 0; i < part->len; i++, received_++)
                if (bytes[i] != pattern(seed_, received_) && bad_at_ == UINT64_MAX) bad_at_ = received_;
        }
        if (paused_)
            held_ += data->tot_len;
        else
            core_.tcp_recved(pcb_, data->tot_len);
        core_.pbuf_free(data);
        return ERR_OK;
    }

    u8_t echo_received(pbuf *packet, bool is_ip6) {
        uint8_t bytes[64];
        u16_t skip = is_ip6 ? IP6_HLEN : IP_HLEN;
        u16_t got = core_.pbuf_copy_partial(packet, bytes, sizeof bytes, skip);
        bool reply = got >= sizeof(icmp_echo_hdr) && bytes[0] == (is_ip6 ? uint8_t{ICMP6_TYPE_EREP} : uint8_t{ICMP_ER});
        if (!reply) return 0;
        for (size_t i = sizeof(icmp_echo_hdr); i < got; i++)
            reply = reply && bytes[i] == pattern(seed_, i - sizeof(icmp_echo_hdr));
        echo_replies_ += reply;
        core_.pbuf_free(packet);
        return 1;
    }

    /* Under the trap. */
    void pump() {
        if (pcb_ == nullptr || !connected_) return;
        uint8_t chunk[4096];
        while (sent_ < to_send_) {
            size_t room = std::min<uint64_t>(
                {sizeof chunk, to_send_ - sent_, tcp_sndbuf(pcb_), in_flight_max - std::min(in_flight_max, sent_ - acknowledged_)});
            if (room == 0) break;
            for (size_t i = 0; i < room; i++)
                chunk[i] = pattern(seed_, sent_ + i);
            if (core_.tcp_write(pcb_, chunk, static_cast<u16_t>(room), TCP_WRITE_FLAG_COPY) != ERR_OK) break;
            sent_ += room;
        }
        if (finish_ && sent_ == to_send_ && !finished_) finished_ = core_.tcp_shutdown(pcb_, 0, 1) == ERR_OK;
        core_.tcp_output(pcb_);
    }
    void enter_pump() {
        stack_->enter([&] { pump(); });
    }

    static constexpr uint64_t in_flight_max = 256 << 10;

    std::shared_ptr<Stack> stack_;
    const lwip_core &core_;
    uint64_t seed_;
    uint64_t listener_id_ = 0;
    tcp_pcb *pcb_ = nullptr, *listening_ = nullptr;
    raw_pcb *raw4_ = nullptr, *raw6_ = nullptr;
    uint64_t to_send_ = 0, sent_ = 0, acknowledged_ = 0, received_ = 0, held_ = 0, bad_at_ = UINT64_MAX, echo_replies_ = 0;
    bool connected_ = false, finish_ = false, finished_ = false, eof_ = false, paused_ = false, core_gone_ = false;
    int error_ = 0;
};

class PyProbe {
  public:
    PyProbe(PyStack &stack, uint64_t seed) : reactor(stack.reactor) {
        reactor.call([&] { end = std::make_unique<ProbeEnd>(stack.stack, seed); });
    }
    ~PyProbe() {
        reactor.call([&] { end.reset(); });
    }
    ReactorRef reactor;
    std::unique_ptr<ProbeEnd> end;
};

ip_addr_t probe_ip(const std::string &text) {
    ip_addr_t ip{};
    if (inet_pton(AF_INET, text.c_str(), &ip.u_addr.ip4.addr) == 1)
        ip.type = IPADDR_TYPE_V4;
    else if (inet_pton(AF_INET6, text.c_str(), ip.u_addr.ip6.addr) == 1)
        ip.type = IPADDR_TYPE_V6;
    else if (text.empty())
        ip.type = IPADDR_TYPE_ANY;
    else
        throw py::value_error("not an IP address: " + text);
    return ip;
}

void check(err_t error, const char *what) {
    if (error == ERR_OK) return;
    PyErr_SetString(stack_error_type(), (std::string(what) + ": lwIP error " + std::to_string(error)).c_str());
    throw py::error_already_set();
}

} // namespace

void bind_probe(py::module_ &module) {
    py::class_<PyProbe>(module, "Probe", "The stack's self-test: one TCP connection with a known pattern, and ICMP echo.")
        .def(py::init<PyStack &, uint64_t>(), py::arg("stack"), py::kw_only(), py::arg("seed") = 0, py::keep_alive<1, 2>())
        .def(
            "listen",
            [](PyProbe &self, int port, const std::string &ip) {
                ip_addr_t address = probe_ip(ip);
                err_t error = ERR_OK;
                self.reactor.call([&] { error = self.end->listen(address, static_cast<uint16_t>(port)); });
                check(error, "listen");
            },
            py::arg("port"), py::arg("ip") = "")
        .def(
            "connect",
            [](PyProbe &self, const std::string &ip, int port) {
                ip_addr_t address = probe_ip(ip);
                err_t error = ERR_OK;
                self.reactor.call([&] { error = self.end->connect(address, static_cast<uint16_t>(port)); });
                check(error, "connect");
            },
            py::arg("ip"), py::arg("port"))
        .def(
            "ping",
            [](PyProbe &self, const std::string &ip, int sequence, int length) {
                ip_addr_t address = probe_ip(ip);
                err_t error = ERR_OK;
                self.reactor.call(
                    [&] { error = self.end->ping(address, static_cast<uint16_t>(sequence), static_cast<uint16_t>(length)); });
                check(error, "ping");
            },
            py::arg("ip"), py::arg("sequence") = 1, py::arg("length") = 32)
        .def(
            "send", [](PyProbe &self, uint64_t bytes) { self.reactor.call([&] { self.end->send(bytes); }); }, py::arg("count"))
        .def("finish", [](PyProbe &self) { self.reactor.call([&] { self.end->finish(); }); })
        .def(
            "pause", [](PyProbe &self, bool paused) { self.reactor.call([&] { self.end->pause(paused); }); }, py::arg("paused"))
        .def(
            "keepalive",
            [](PyProbe &self, uint32_t idle_ms, uint32_t interval_ms, uint32_t count) {
                self.reactor.call([&] { self.end->keepalive(idle_ms, interval_ms, count); });
            },
            py::arg("idle_ms"), py::arg("interval_ms"), py::arg("count"))
        .def("abort", [](PyProbe &self) { self.reactor.call([&] { self.end->abort(); }); })
        .def("close", [](PyProbe &self) { self.reactor.call([&] { self.end->close(); }); })
        .def("state", [](PyProbe &self) {
            ProbeEnd::State state{};
            self.reactor.call([&] { state = self.end->state(); });
            py::dict out;
            out["connected"] = state.connected;
            out["eof"] = state.eof;
            out["open"] = state.open;
            out["sent"] = state.sent;
            out["acknowledged"] = state.acknowledged;
            out["received"] = state.received;
            out["bad_at"] = state.bad_at == UINT64_MAX ? py::object(py::none()) : py::object(py::int_(state.bad_at));
            out["echo_replies"] = state.echo_replies;
            out["error"] = state.error;
            out["mss"] = state.mss;
            return out;
        });
}

} // namespace netcon
