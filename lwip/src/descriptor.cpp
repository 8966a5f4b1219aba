/* descriptor.cpp: see descriptor.hpp. */
#include "descriptor.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace netcon::server {

void Closer::close(int fd) {
    {
        std::lock_guard lock(state_->mutex);
        state_->queue.push_back(fd);
        // A thread that is stuck in a close is not waited for: each new descriptor may have a thread of its own.
        state_->queued.notify_one();
        if (state_->threads >= max_threads || state_->threads > state_->busy) return;
        state_->threads++;
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); // the thread inherits it: signals are for the program's own threads
    try {
        std::thread(run, state_).detach();
    } catch (const std::system_error &) {
        // No thread now: the next call tries again. The descriptor waits; closing it here could stop the reactor.
        std::lock_guard lock(state_->mutex);
        state_->threads--;
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void Closer::run(std::shared_ptr<State> state) {
    pthread_setname_np(pthread_self(), "netcon-closer");
    std::unique_lock lock(state->mutex);
    while (state->queued.wait_for(lock, idle, [&] { return !state->queue.empty(); })) {
        int fd = state->queue.front();
        state->queue.pop_front();
        state->busy++;
        lock.unlock();
        ::close(fd);
        lock.lock();
        state->busy--;
    }
    state->threads--;
}

size_t Closer::pending() const {
    std::lock_guard lock(state_->mutex);
    return state_->queue.size() + state_->busy;
}

Kind classify(int fd) {
    int domain = 0, type = 0, listening = 0;
    socklen_t length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 || domain != AF_UNIX) return Kind::foreign;
    length = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0) return Kind::foreign;
    length = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening) return Kind::foreign;
    return type == SOCK_STREAM ? Kind::stream : type == SOCK_SEQPACKET ? Kind::seqpacket : Kind::foreign;
}

uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

bool refuse_rights(int fd) {
    int no = 0;
    return setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof no) == 0;
}

bool harmless(int fd) {
    refuse_rights(fd);
    char byte;
    int from_the_first = -1; // an offset would look past what is there
    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from_the_first, sizeof from_the_first);
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
    return n < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == ECONNRESET);
}

void dispose(Descriptor given, Closer &closer) {
    if (given && queued(given.get()) != 0) closer.close(given.release());
}

ssize_t receive(int fd, const iovec *parts, size_t count, int flags, Closer &closer) {
    // Without room for them the kernel would drop smuggled descriptors inside recvmsg: on this thread, blocking.
    alignas(cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))];
    msghdr message{};
    message.msg_iov = const_cast<iovec *>(parts);
    message.msg_iovlen = count;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = recvmsg(fd, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) return -errno;
    if (message.msg_controllen != 0)
        for (cmsghdr *c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
                for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
                    int smuggled;
                    std::memcpy(&smuggled, reinterpret_cast<char *>(c) + at, sizeof smuggled);
                    closer.close(smuggled);
                }
    return n;
}

int send_message(int fd, const iovec *parts, size_t count, int passed) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = const_cast<iovec *>(parts);
    message.msg_iovlen = count;
    if (passed >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(c), &passed, sizeof passed);
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

int make_pair(int type, Descriptor &program, Descriptor &service) {
    int ends[2];
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) return errno;
    program = Descriptor(ends[0]);
    service = Descriptor(ends[1]);
    return 0;
}

size_t queued(int fd) {
    int bytes = 0;
    return ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

} // namespace netcon::server
