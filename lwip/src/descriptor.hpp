/* descriptor.hpp: descriptors that came from programs, and how to be rid of them.
 *
 * Closing a descriptor that somebody else made can block whoever closes it: a TCP socket with SO_LINGER and unsent data, a
 * file on FUSE, or an AF_UNIX socket in whose queue such a descriptor waits (intercept.md, "The RPC"). The reactor must
 * never block. So a descriptor is closed on the spot only when it is known to be harmless, and otherwise given to the
 * Closer, whose threads live only while there is something to close.
 */
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

namespace netcon::server {

/* An owned descriptor, closed on the spot. For descriptors that we made or have checked. */
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor &operator=(Descriptor &&other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Descriptor() { reset(); }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    void reset() {
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }

  private:
    int fd_ = -1;
};

/* Closes descriptors that may block, on threads of their own. */
class Closer {
  public:
    Closer() : state_(std::make_shared<State>()) {}

    /* Takes the descriptor; returns at once. */
    void close(int fd);

    /* Descriptors that are still to be closed. */
    size_t pending() const;

  private:
    static constexpr unsigned max_threads = 32;
    static constexpr std::chrono::seconds idle{1}; // a thread that was just made is worth keeping for a moment
    struct State {
        mutable std::mutex mutex;
        std::condition_variable queued;
        std::deque<int> queue;
        unsigned threads = 0;
        unsigned busy = 0; // descriptors that a thread is closing right now
    };
    static void run(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

enum class Kind { stream, seqpacket, foreign };

/* What it is: a connected AF_UNIX stream or sequenced-packet socket, or anything else. */
Kind classify(int fd);

/* The kernel's number for this socket, never given twice; 0 when it is not a socket. */
uint64_t cookie_of(int fd);

/* Nothing can be, or be put, into the queue of this AF_UNIX socket: closing it cannot block. From Linux 6.16 the kernel
 * refuses descriptors to a socket that says so; before, the look into the queue is what there is. */
bool harmless(int fd);

/* Close a stream socket that a program gave us. It may have kept the other end, and put a descriptor into this one's queue. */
void dispose(Descriptor given, Closer &closer);

/* From now on no descriptor can be put into this socket's receive queue. False where the kernel cannot promise that. */
bool refuse_rights(int fd);

/* recvmsg that cannot block, and into which a program cannot smuggle a descriptor: what comes goes to the closer.
 * Returns the number of bytes, or -errno. */
ssize_t receive(int fd, const iovec *parts, size_t count, int flags, Closer &closer);

/* sendmsg that cannot block, with the descriptor `passed` unless that is negative. 0 or an errno. */
int send_message(int fd, const iovec *parts, size_t count, int passed);

/* A connected pair of the given type, close-on-exec. 0 or an errno. */
int make_pair(int type, Descriptor &program, Descriptor &service);

/* Bytes waiting in the receive queue; 0 when the kernel does not say. */
size_t queued(int fd);

} // namespace netcon::server
