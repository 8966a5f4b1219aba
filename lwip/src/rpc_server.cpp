/* rpc_server.cpp: see rpc_server.hpp. */
#include "rpc_server.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>

namespace netcon::server {

namespace {

constexpr size_t rights_max = 253; // SCM_MAX_FD
constexpr unsigned requests_per_turn = 32;
constexpr unsigned accepts_per_turn = 64;
constexpr unsigned clients_per_process = 256;
constexpr unsigned clients_per_user = 2048;
constexpr size_t clients_in_all = 4096;
constexpr uint64_t pause_us = 100'000;

Descriptor make_reserve() { return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

bool is_dead_socket(const sockaddr_un &address, socklen_t length) {
    Descriptor probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return probe && connect(probe.get(), reinterpret_cast<const sockaddr *>(&address), length) != 0 && errno == ECONNREFUSED;
}

} // namespace

RpcServer::RpcServer(const netcon_reactor_api *reactor, RequestHandler &handler, Closer &closer)
    : reactor_(reactor), handler_(handler), closer_(closer), reserve_(make_reserve()) {
    fds_.reserve(rights_max);
    pause_ = reactor->timer_new(reactor->reactor, on_pause_over, this);
    if (pause_ == nullptr) throw std::bad_alloc();
}

RpcServer::~RpcServer() {
    while (!paths_.empty())
        unlisten(std::string(paths_.back()->name));
    reactor_->timer_free(pause_);
}

int RpcServer::listen(const std::string &name, uint64_t network, mode_t mode) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (name.empty() || name.size() >= sizeof address.sun_path) return ENAMETOOLONG;
    if (std::any_of(paths_.begin(), paths_.end(), [&](auto &p) { return p->name == name; })) return EADDRINUSE;
    std::memcpy(address.sun_path, name.data(), name.size());
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + 1);

    auto path = std::make_unique<Path>();
    path->server = this;
    path->name = name;
    path->network = network;
    path->fd = Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!path->fd) return errno;
    int fd = path->fd.get();
    fchmod(fd, mode); // so that the file is never open to more than this, not even between bind and chmod
    if (bind(fd, reinterpret_cast<sockaddr *>(&address), length) != 0) {
        struct stat status;
        if (errno != EADDRINUSE) return errno;
        if (lstat(name.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode) || !is_dead_socket(address, length)) return EADDRINUSE;
        unlink(name.c_str());
        if (bind(fd, reinterpret_cast<sockaddr *>(&address), length) != 0) return errno;
    }
    struct stat status;
    int yes = 1;
    if (chmod(name.c_str(), mode) != 0 || lstat(name.c_str(), &status) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) != 0 || ::listen(fd, SOMAXCONN) != 0) {
        int error = errno;
        unlink(name.c_str());
        return error;
    }
    path->device = status.st_dev;
    path->inode = status.st_ino;
    if (int error = reactor_->watch(reactor_->reactor, fd, EPOLLIN, on_path, path.get()); error < 0) {
        unlink(name.c_str());
        return -error;
    }
    paths_.push_back(std::move(path));
    return 0;
}

bool RpcServer::unlisten(const std::string &name) {
    auto found = std::find_if(paths_.begin(), paths_.end(), [&](auto &p) { return p->name == name; });
    if (found == paths_.end()) return false;
    Path *path = found->get();
    reactor_->unwatch(reactor_->reactor, path->fd.get());
    std::vector<Client *> leaving;
    for (auto &[fd, client] : clients_)
        if (client->path == path) leaving.push_back(client.get());
    for (Client *client : leaving)
        drop(*client);
    struct stat status; // the file may be somebody else's by now
    if (lstat(name.c_str(), &status) == 0 && status.st_dev == path->device && status.st_ino == path->inode) unlink(name.c_str());
    paths_.erase(found);
    return true;
}

void RpcServer::on_path(void *context, int, uint32_t) {
    auto *path = static_cast<Path *>(context);
    path->server->accept(*path);
}

bool RpcServer::within_budget(const Caller &peer) const {
    auto count = [](const auto &table, auto key) {
        auto found = table.find(key);
        return found == table.end() ? 0u : found->second;
    };
    return clients_.size() < clients_in_all && count(clients_of_process_, peer.pid) < clients_per_process &&
           count(clients_of_user_, peer.uid) < clients_per_user;
}

/* The table is full: the client gets the descriptor held back for that, otherwise the path would stay readable, and loses it.
 * False: there is no other client, or that descriptor is gone, too, for what the client had sent is still being closed elsewhere;
 * then nobody is accepted for a while. */
bool RpcServer::turn_away(Path &path) {
    reserve_.reset();
    Descriptor away(accept4(path.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    bool any = static_cast<bool>(away);
    counters_.refused += any;
    if (any && !harmless(away.get())) closer_.close(away.release());
    away.reset();
    reserve_ = make_reserve();
    if (reserve_) return any;
    for (auto &each : paths_)
        reactor_->rewatch(reactor_->reactor, each->fd.get(), 0);
    reactor_->timer_set(pause_, reactor_->now_us(reactor_->reactor) + pause_us);
    return false;
}

void RpcServer::on_pause_over(void *context) {
    auto *server = static_cast<RpcServer *>(context);
    for (auto &path : server->paths_)
        server->reactor_->rewatch(server->reactor_->reactor, path->fd.get(), EPOLLIN);
}

void RpcServer::accept(Path &path) {
    for (unsigned i = 0; i < accepts_per_turn; i++) {
        Descriptor fd(accept4(path.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!fd) {
            if ((errno != EMFILE && errno != ENFILE) || !turn_away(path)) return;
            continue;
        }
        ucred credentials{};
        socklen_t length = sizeof credentials;
        int yes = 1;
        if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 ||
            setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) != 0)
            continue;
        auto client = std::make_unique<Client>();
        client->server = this;
        client->path = &path;
        client->network = path.network;
        client->peer = {credentials.pid, credentials.uid};
        if (!within_budget(client->peer)) {
            counters_.refused++;
            closer_.close(fd.release()); // its queue may hold anything already
            continue;
        }
        int number = fd.get();
        if (reactor_->watch(reactor_->reactor, number, EPOLLIN | EPOLLRDHUP, on_client, client.get()) < 0) {
            closer_.close(fd.release());
            continue;
        }
        client->fd = std::move(fd);
        clients_of_process_[client->peer.pid]++;
        clients_of_user_[client->peer.uid]++;
        clients_.emplace(number, std::move(client));
    }
}

void RpcServer::drop(Client &client) {
    int fd = client.fd.get();
    reactor_->unwatch(reactor_->reactor, fd);
    if (auto found = clients_of_process_.find(client.peer.pid); --found->second == 0) clients_of_process_.erase(found);
    if (auto found = clients_of_user_.find(client.peer.uid); --found->second == 0) clients_of_user_.erase(found);
    if (!harmless(fd)) closer_.close(client.fd.release());
    clients_.erase(fd);
}

void RpcServer::on_client(void *context, int, uint32_t) {
    auto *client = static_cast<Client *>(context);
    RpcServer *server = client->server;
    bool received = true;
    for (unsigned i = 0; i < requests_per_turn && received; i++)
        if (!server->receive_one(*client, received)) {
            server->drop(*client);
            return;
        }
}

bool RpcServer::receive_one(Client &client, bool &received) {
    alignas(cmsghdr) char control[CMSG_SPACE(rights_max * sizeof(int)) + CMSG_SPACE(sizeof(ucred)) + 64];
    iovec part{message_, sizeof message_};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = recvmsg(client.fd.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        received = false;
        return errno == EAGAIN || errno == EINTR || errno == ENOMEM || errno == ENOBUFS;
    }
    Caller caller = client.peer;
    fds_.clear();
    for (cmsghdr *c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET) continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
                int fd;
                std::memcpy(&fd, reinterpret_cast<char *>(c) + at, sizeof fd);
                fds_.push_back(fd);
            }
        } else if (c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len >= CMSG_LEN(sizeof(ucred))) {
            ucred credentials;
            std::memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
            caller = {credentials.pid, credentials.uid};
        }
    }
    if (n == 0 && fds_.empty()) {
        received = false;
        return false; // end of file, or an empty message, which nobody has reason to send
    }
    bool good = dispatch(client, static_cast<size_t>(n), (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0, fds_, caller);
    for (int fd : fds_)
        if (fd >= 0) closer_.close(fd);
    return good;
}

/* Checks the message and answers it. Takes out of `fds` what it has dealt with. False: this client does not speak our
 * language. */
bool RpcServer::dispatch(Client &client, size_t length, bool truncated, std::vector<int> &fds, Caller caller) {
    constexpr size_t head = offsetof(netcon_rpc_request, data);
    auto *header = reinterpret_cast<const netcon_rpc_request *>(message_);
    if (length < head || header->magic != NETCON_RPC_MAGIC) {
        counters_.bad_requests++;
        return false;
    }
    bool posted = (header->flags & NETCON_RPC_POSTED) != 0;
    bool formed = !truncated &&
                  header->data_length <= (header->operation == NETCON_RPC_SENDTO ? NETCON_RPC_SENDTO_MAX : NETCON_RPC_DATA_MAX) &&
                  length == head + header->data_length;
    bool about_nothing = header->operation == NETCON_RPC_HELLO || header->operation == NETCON_RPC_INTERFACES ||
                         header->operation == NETCON_RPC_RESOLVE;
    size_t subjects = about_nothing ? 0 : 1;
    bool counted = fds.size() == subjects + (posted ? 0 : 1);
    if (!posted && (fds.empty() || fds.size() > 2 || classify(fds.back()) != Kind::seqpacket)) {
        counters_.bad_requests++; // there is nowhere to answer
        return formed;
    }
    Descriptor reply_end;
    if (!posted) {
        reply_end = Descriptor(fds.back());
        fds.pop_back();
    }
    Reply reply;
    if (header->version != NETCON_RPC_VERSION) {
        reply.error = EPROTO;
    } else if (!formed || !counted) {
        // A subject that the caller's or our descriptor table had no room for is missing, too.
        reply.error = truncated ? ENFILE : EINVAL;
    } else {
        Request request{header,
                        header->network != 0 ? header->network : client.network,
                        client.path->network,
                        &client.network,
                        caller,
                        Descriptor(),
                        std::move(reply_end)};
        if (subjects != 0) {
            request.subject = Descriptor(fds.front());
            fds.clear();
        }
        counters_.requests++;
        handler_.handle(request, reply);
        if (request.subject) fds.push_back(request.subject.release());
        reply_end = std::move(request.reply_end);
    }
    if (reply.error == EPROTO || reply.error == EINVAL) counters_.bad_requests += reply.error == EPROTO || !formed || !counted;
    if (reply_end) answer(std::move(reply_end), header->operation, reply);
    return formed;
}

void RpcServer::answer(Descriptor reply_end, uint16_t operation, Reply &reply, const std::string *data) {
    // Looked at before the reply goes out: after it the other end may be closed already, which looks like a message.
    bool can_close = harmless(reply_end.get());
    send_reply(reply_end.get(), operation, reply, data);
    if (!can_close) closer_.close(reply_end.release());
}

void RpcServer::send_reply(int fd, uint16_t operation, Reply &reply, const std::string *data) {
    constexpr size_t head = offsetof(netcon_rpc_reply, data);
    netcon_rpc_reply header{};
    header.magic = NETCON_RPC_MAGIC;
    header.version = NETCON_RPC_VERSION;
    header.operation = operation;
    header.policy = policy_;
    header.error = reply.error;
    header.value = reply.value;
    iovec parts[2] = {{&header, head}, {reply.data, reply.length}};
    if (data != nullptr) parts[1] = {const_cast<char *>(data->data()), data->size()};
    header.data_length = static_cast<uint32_t>(parts[1].iov_len);
    int error = send_message(fd, parts, 2, reply.descriptor.get());
    if (error == ETOOMANYREFS) { // too many descriptors of this user are in flight: answer without one
        header.error = ENFILE;
        header.data_length = 0;
        error = send_message(fd, parts, 1, -1);
    }
    if (error != 0) counters_.lost_replies++;
}

} // namespace netcon::server
