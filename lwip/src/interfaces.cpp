/* interfaces.cpp: the networks as programs see interfaces: indices, names, SIOCGIF*, and the list for getifaddrs. */
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

namespace {

constexpr uint32_t interface_flags = IFF_UP | IFF_BROADCAST | IFF_RUNNING | IFF_MULTICAST;

/* In network order. Not htonl: lwIP's headers make that a function of lwIP's. */
uint32_t netmask(uint8_t bits) {
    uint32_t ones = bits == 0 ? 0 : UINT32_MAX << (32 - bits), mask;
    uint8_t bytes[4] = {static_cast<uint8_t>(ones >> 24), static_cast<uint8_t>(ones >> 16), static_cast<uint8_t>(ones >> 8),
                        static_cast<uint8_t>(ones)};
    std::memcpy(&mask, bytes, sizeof mask);
    return mask;
}

void set_ip4(sockaddr &out, uint32_t address) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = address;
    std::memcpy(&out, &in, sizeof in);
}

/* The host's and the virtual loopback look the same. */
void loopback_control(uint32_t request, ifreq &ask) {
    constexpr uint8_t address[4] = {127, 0, 0, 1};
    uint32_t word;
    std::memcpy(&word, address, sizeof word);
    switch (request) {
    case SIOCGIFNAME:
        std::memset(ask.ifr_name, 0, sizeof ask.ifr_name);
        std::memcpy(ask.ifr_name, loopback_name, sizeof loopback_name);
        break;
    case SIOCGIFINDEX:
        ask.ifr_ifindex = static_cast<int>(loopback_index);
        break;
    case SIOCGIFFLAGS:
        ask.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
        break;
    case SIOCGIFMTU:
        ask.ifr_mtu = loopback_mtu;
        break;
    case SIOCGIFMETRIC:
        ask.ifr_metric = 0;
        break;
    case SIOCGIFHWADDR:
        ask.ifr_hwaddr = {};
        ask.ifr_hwaddr.sa_family = ARPHRD_LOOPBACK;
        break;
    case SIOCGIFNETMASK:
        set_ip4(ask.ifr_addr, netmask(8));
        break;
    default:
        set_ip4(ask.ifr_addr, request == SIOCGIFBRDADDR ? 0 : word);
    }
}

} // namespace

uint32_t Server::interface_of(uint64_t network) const {
    auto found = interfaces_.find(network);
    return found == interfaces_.end() ? 0 : found->second;
}

uint64_t Server::network_of_interface(uint32_t index) const {
    for (auto &[network, known] : interfaces_)
        if (known == index && networks_.contains(network)) return network;
    return 0;
}

uint64_t Server::network_named(const std::string &name) const {
    if (name == loopback_name) return loopback_network(0); // whoever has it: a run may want the virtual one
    for (auto &[network, stack] : networks_)
        if (stack->name() == name) return network;
    return 0;
}

int Server::interface_control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const {
    switch (request) {
    case SIOCGIFNAME:
    case SIOCGIFINDEX:
    case SIOCGIFFLAGS:
    case SIOCGIFMTU:
    case SIOCGIFHWADDR:
    case SIOCGIFADDR:
    case SIOCGIFNETMASK:
    case SIOCGIFBRDADDR:
    case SIOCGIFDSTADDR:
    case SIOCGIFMETRIC:
        break;
    default:
        return ENOTTY;
    }
    ifreq ask;
    if (length < sizeof ask) return EFAULT;
    std::memcpy(&ask, data, sizeof ask);
    ask.ifr_name[IFNAMSIZ - 1] = 0;
    if (request == SIOCGIFNAME ? ask.ifr_ifindex == static_cast<int>(loopback_index)
                               : std::strcmp(ask.ifr_name, loopback_name) == 0) {
        loopback_control(request, ask);
        std::memcpy(reply.data, &ask, sizeof ask);
        reply.length = sizeof ask;
        return 0;
    }
    uint64_t network =
        request == SIOCGIFNAME ? network_of_interface(static_cast<uint32_t>(ask.ifr_ifindex)) : network_named(ask.ifr_name);
    std::shared_ptr<Stack> stack = stack_of(network);
    if (!stack) return ENODEV;
    std::optional<lwip_core_address> first;
    for (const lwip_core_address &own : stack->addresses())
        if (!IP_IS_V6(&own.ip) && !first) first = own;
    uint32_t address = first ? ip_2_ip4(&first->ip)->addr : 0;
    uint32_t mask = first ? netmask(first->bits) : 0;
    switch (request) {
    case SIOCGIFNAME:
        std::memset(ask.ifr_name, 0, sizeof ask.ifr_name);
        stack->name().copy(ask.ifr_name, IFNAMSIZ - 1);
        break;
    case SIOCGIFINDEX:
        ask.ifr_ifindex = static_cast<int>(interface_of(network));
        break;
    case SIOCGIFFLAGS:
        ask.ifr_flags = static_cast<short>(interface_flags);
        break;
    case SIOCGIFMTU:
        ask.ifr_mtu = stack->mtu();
        break;
    case SIOCGIFMETRIC:
        ask.ifr_metric = 0;
        break;
    case SIOCGIFHWADDR:
        ask.ifr_hwaddr = {};
        ask.ifr_hwaddr.sa_family = ARPHRD_ETHER;
        std::copy(stack->mac().begin(), stack->mac().end(), ask.ifr_hwaddr.sa_data);
        break;
    default:
        if (!first) return EADDRNOTAVAIL;
        set_ip4(ask.ifr_addr, request == SIOCGIFNETMASK ? mask : request == SIOCGIFBRDADDR ? address | ~mask : address);
    }
    std::memcpy(reply.data, &ask, sizeof ask);
    reply.length = sizeof ask;
    return 0;
}

void Server::interfaces(Request &request, Reply &reply) const {
    int wanted = std::max(request.header->args[0], 0), at = 0;
    auto add = [&](const netcon_interface &entry) {
        if (at++ < wanted || reply.length + sizeof entry > sizeof reply.data) return;
        std::memcpy(reply.data + reply.length, &entry, sizeof entry);
        reply.length += sizeof entry;
    };
    for (auto &[network, stack] : networks_) {
        netcon_interface entry{};
        entry.network = network;
        entry.index = interface_of(network);
        entry.flags = interface_flags;
        entry.mtu = stack->mtu();
        stack->name().copy(entry.name, sizeof entry.name - 1);
        std::copy(stack->mac().begin(), stack->mac().end(), entry.mac);
        std::vector<lwip_core_address> addresses = stack->addresses();
        for (const lwip_core_address &own : addresses) {
            Address address = from_lwip(own.ip, 0);
            address.scope = address.is_link_local() ? entry.index : 0;
            entry.prefix = own.bits;
            entry.address = address.to(address.is_v4() ? AF_INET : AF_INET6);
            add(entry);
        }
        if (addresses.empty()) add(entry);
    }
    reply.value = at;
}

} // namespace netcon::server
