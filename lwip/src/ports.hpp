/* ports.hpp: who has which local port. The rules are Linux's (SO_REUSEADDR, SO_REUSEPORT, wildcard against specific,
 * IPv6 wildcard against IPv4), which are not lwIP's; so lwIP's own check is told to let everything pass, and this table decides.
 *
 * A binding is one socket's claim: bound, listening or connected. It lies inside its socket and is linked per port. */
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <random>
#include <unordered_map>

#include "address.hpp"
#include "network_sets.hpp"

namespace netcon::server {

class PortTable;

struct Binding {
    Address local;
    Address remote;       // of a connection
    uint64_t network = 0; // or a set; 0: every network
    uid_t uid = 0;
    bool v6_only = false;
    bool reuse_address = false;
    bool reuse_port = false;
    bool listening = false;
    bool automatic = false; // the port was chosen by connect(), and may be shared between different destinations

    Binding() = default;
    Binding(const Binding &) = delete;
    ~Binding() { release(); }
    bool held() const { return table_ != nullptr; }
    void release();

  private:
    friend class PortTable;
    PortTable *table_ = nullptr;
    Binding *next_ = nullptr;
    Binding **link_ = nullptr;
};

class PortTable {
  public:
    explicit PortTable(const NetworkSets &sets) : sets_(sets) {}
    /* Claim `binding.local`; a port of 0 gets an unused one. 0, or EADDRINUSE. */
    int claim(Binding &binding);
    /* Claim a port for a connection from binding.local to binding.remote. 0, or EADDRNOTAVAIL when none is left. */
    int claim_for_connect(Binding &binding);
    /* Has another socket a connection from this port to the same place? Two of them could not be told apart. */
    bool is_connected(const Binding &binding, uint64_t network, const Address &local, const Address &remote) const;
    /* Claim without a check: the connection came through a listener that has the port. */
    void inherit(Binding &binding);
    /* A socket that is bound wants to listen: 0, or EADDRINUSE when another one that listens forbids it. */
    int check(const Binding &binding) const;

  private:
    friend struct Binding;
    void insert(Binding &binding);
    /* In turn, from a random start: a port chosen at random would soon be one whose last connection the peer still has in
     * TIME_WAIT (after some 170 connections, as with birthdays). */
    uint16_t next_port();
    static constexpr uint16_t first = 32768, last = 60999; // as Linux's ip_local_port_range
    static constexpr unsigned range = last - first + 1;
    bool conflict(const Binding &wanted, const Binding &holder) const;
    const NetworkSets &sets_;
    std::unordered_map<uint16_t, Binding *> ports_;
    unsigned cursor_ = std::random_device{}() % range;
};

} // namespace netcon::server
