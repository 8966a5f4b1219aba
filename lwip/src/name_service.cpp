/* name_service.cpp: the host's name servers, as programs with a resolver of their own ask them: the service answers in their place.
 *
 * Theory of operation. A program that reads /etc/resolv.conf sends DNS queries to addresses that no network carries. None may leave
 * to the host by default, and by default they have an answer: a datagram for port 53 of such an address becomes a question
 * (questions.hpp), and its answer a datagram from that very address; a connection is handed, pair and all, to who answers. Neither
 * touches lwIP, so that no port is taken: a program's own server may have port 53 of every address and of the wildcard.
 *
 * Lines of the policy that name such an address decide as for any other one: `virtual` makes it ours, whatever `names` says.
 */
#include <algorithm>
#include <cerrno>

#include "server.hpp"

namespace netcon::server {

namespace {

constexpr uint16_t dns_port = 53;
constexpr uint8_t answer_ttl = 64;

/* The addresses of stub resolvers (systemd-resolved, Docker), which are nothing else. */
bool is_stub(const Address &at) {
    constexpr uint8_t systemd[4] = {127, 0, 0, 53}, docker[4] = {127, 0, 0, 11};
    return at.is_v4() && (std::memcmp(at.ip.data() + 12, systemd, 4) == 0 || std::memcmp(at.ip.data() + 12, docker, 4) == 0);
}

} // namespace

Server::NameService Server::name_service(int protocol, const Address &to, uint16_t flags) const {
    if (to.port != dns_port || protocol == NETCON_POLICY_ICMP || !questions_.are_taken()) return NameService::no;
    bool stub = is_stub(to);
    if (!stub && std::none_of(name_servers_.begin(), name_servers_.end(), [&](auto &each) { return each.same_ip(to); }))
        return NameService::no;
    if (!to.is_loopback()) // a network's member may have the address of the host's name server
        for (auto &[id, stack] : networks_)
            if (stack->running() && stack->source_for(to_lwip(to))) return NameService::no;
    const netcon_policy_rule *rule = netcon_policy_match(&policy_, NETCON_POLICY_CONNECT, protocol, to.ip.data(), to.port);
    bool made_virtual =
        to.is_loopback() && ((flags & NETCON_RPC_VIRTUAL) || (rule != nullptr && rule->target == NETCON_POLICY_VIRTUAL));
    if (rule != nullptr && rule->target == NETCON_POLICY_REFUSE) return NameService::no;
    if (made_virtual) return stub ? NameService::ours : NameService::unless_program;
    if (rule != nullptr) return NameService::no;
    bool host = policy_.names == NETCON_POLICY_HOST;
    if (flags & NETCON_RPC_NAMES_HOST) host = true;
    if (flags & NETCON_RPC_NAMES_REFUSE) host = false;
    return host ? NameService::host : NameService::ours;
}

bool Server::has_listener(const Address &at) const {
    return std::any_of(points.begin(), points.end(), [&](auto &point) {
        const Address &own = point->local;
        return own.port == at.port &&
               (own.is_any() ? own.is_v4() == at.is_v4() || (at.is_v4() && !point->v6_only) : own.same_ip(at));
    });
}

/* ---- by TCP ---- */

/* The pair leaves this server: what programs ask of the descriptor from now on, the names answer. */
int Socket::connect_to_names(const Address &to, uint64_t on_network, Reply &reply) {
    bool local_given = explicitly_bound_ && !bound_to_.is_any();
    if (!options.device.empty() && options.device != loopback_name) return ENETUNREACH;
    if (state == State::failed) {
        Descriptor unused;
        if (int error = new_pair(reply, unused)) return error;
        program.reset();
    }
    bool claimed = !binding.held();
    if (claimed) {
        binding.local = explicitly_bound_ ? bound_to_ : Address::loopback(to.is_v4());
        binding.remote = to;
        binding.uid = uid;
        binding.automatic = !explicitly_bound_;
        if (int error = explicitly_bound_ ? claim_port() : server.ports.claim_for_connect(binding)) return error;
    }
    local = local_given ? bound_to_ : Address::loopback(to.is_v4());
    local.port = binding.local.port;
    remote = to;
    drain_pair(); // what the program wrote to a socket that was not connected
    if (int error = name_pair('C', local, 0)) return error;
    server.reactor->unwatch(server.reactor->reactor, pair.get());
    Descriptor stream = std::move(pair);
    server.forget_id(*this); // and so it is retired when this request is done
    server.count.connects++;
    return server.questions().ask(stream, uid, network != 0 ? network : on_network);
}

/* ---- by UDP ---- */

int DatagramSocket::choose_names(Outgoing &out, std::shared_ptr<Stack> &stack) const {
    Server &server = owner.server;
    if (!options.device.empty() && options.device != loopback_name) return ENETUNREACH;
    stack = server.stack_of(server.loopback_network(narrowed(0)));
    if (!stack || !stack->running()) return ENETUNREACH;
    bool given = !local.is_any() && !local.is_multicast() && !local.is_broadcast();
    if (given && local.is_v4() != out.to.is_v4()) return out.to.is_v4() ? EINVAL : ENETUNREACH;
    out.source = given ? local : Address::loopback(out.to.is_v4());
    out.to_names = true;
    return 0;
}

void DatagramSocket::ask_names(const Outgoing &out, uint64_t on_network) {
    Address client = out.source;
    client.port = local.port;
    uint64_t visible = bound && binding.network != 0 ? binding.network : default_network_;
    owner.sent++;
    if (!owner.server.questions().ask({id, on_network, out.to, client}, uid, visible, out.data, out.length)) owner.unsendable++;
}

bool Datagrams::has_receiver(const Address &at) const {
    auto found = by_port_.find(at.port);
    Packet packet{};
    packet.source = Address::loopback(at.is_v4());
    packet.destination = at;
    return found != by_port_.end() && std::any_of(found->second.begin(), found->second.end(), [&](DatagramSocket *socket) {
               packet.network = socket->network;
               return !socket->connected && socket->score(packet) >= 0;
           });
}

void Datagrams::answer_query(const Asker &asker, const std::string &data) {
    DatagramSocket *socket = find(asker.socket);
    iovec part{const_cast<char *>(data.data()), data.size()};
    Packet packet{asker.network, asker.server, asker.client, answer_ttl, 0, false, &part, 1};
    if (socket != nullptr && !socket->retired && socket->local.port == asker.client.port && socket->score(packet) >= 0)
        socket->deliver(packet);
}

} // namespace netcon::server
