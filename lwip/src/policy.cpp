/* policy.cpp: the service's policy, and which network's loopback is meant. The library has asked the run's policy before; what it
 * says is a wish, and a client that lies about it reaches nothing that a line here refuses. */
#include "netcon/policy.h"

#include <cerrno>

#include "server.hpp"

namespace netcon::server {

void Server::set_policy(const netcon_policy &policy) {
    policy_ = policy;
    bool host = policy.fallback == NETCON_POLICY_HOST;
    for (unsigned i = 0; i < policy.count; i++) {
        const netcon_policy_rule &rule = policy.rules[i];
        Address prefix = Address::v6(rule.ip, 0);
        bool inside_loopback = prefix.is_loopback() && rule.prefix >= (prefix.is_v4() ? 104 : 128);
        host |= rule.target == NETCON_POLICY_HOST && (rule.directions & NETCON_POLICY_CONNECT) && !inside_loopback;
    }
    host |= policy.names == NETCON_POLICY_HOST;
    rpc_.set_policy(
        static_cast<uint16_t>((loopback_is_virtual() ? NETCON_RPC_POLICY_VIRTUAL : 0) | (host ? NETCON_RPC_POLICY_HOST : 0)));
}

int Server::decide(int direction, int protocol, const Address &to, uint16_t flags, uint64_t &network) const {
    const netcon_policy_rule *rule = netcon_policy_match(&policy_, direction, protocol, to.ip.data(), to.port);
    bool loopback = to.is_loopback();
    int target = loopback ? NETCON_POLICY_HOST : NETCON_POLICY_UNDECIDED;
    if (rule != nullptr) target = rule->target;
    if (loopback && target == NETCON_POLICY_HOST && (flags & NETCON_RPC_VIRTUAL)) target = NETCON_POLICY_VIRTUAL;
    switch (target) {
    case NETCON_POLICY_REFUSE:
        return EACCES;
    case NETCON_POLICY_HOST:
        return NETCON_RPC_TO_HOST;
    case NETCON_POLICY_NETWORK:
        if (rule->network != 0) network = rule->network;
        break;
    default:
        break;
    }
    if (loopback) network = loopback_network(network);
    return 0;
}

int Server::uncarried(int direction, int protocol, const Address &to, int error) const {
    bool decided = netcon_policy_match(&policy_, direction, protocol, to.ip.data(), to.port) != nullptr;
    return policy_.fallback == NETCON_POLICY_HOST && !decided ? NETCON_RPC_TO_HOST : error;
}

uint64_t Server::loopback_network(uint64_t network) const {
    if (network != 0 && !sets.is_set(network)) return network;
    uint32_t first = UINT32_MAX;
    uint64_t found = 0;
    for (auto &[id, stack] : networks_)
        if (uint32_t index = interface_of(id); sets.covers(network, id) && stack->running() && index < first) {
            first = index;
            found = id;
        }
    return found;
}

bool Server::loopback_is_virtual() const {
    Address loopback = Address::loopback(true);
    const netcon_policy_rule *rule = netcon_policy_match(&policy_, NETCON_POLICY_CONNECT, 0xff, loopback.ip.data(), 0);
    return rule != nullptr && rule->target == NETCON_POLICY_VIRTUAL;
}

bool Server::may_cross(const Stack &stack, const std::string &device, const Address &from, const Address &to) {
    bool here = stack.is_local(to_lwip(to));
    if ((from.is_loopback() || device == loopback_name) && !here) return false;
    return device.empty() || device == loopback_name || !to.is_loopback();
}

} // namespace netcon::server
