/* pump.cpp: moves bytes between lwIP and the program's descriptor, and carries the ends of streams across.
 *
 * Theory of operation.
 *
 * To the program (`deliver`): lwIP's buffers go to S with one sendmsg for up to 64 of them; what S took is acknowledged to the
 * window. When S is full nothing is tried until EPOLLOUT, and the peer's window closes: that is the back-pressure.
 *
 * From the program (`collect`): FIONREAD says how much there is, and it is read into the connection's chunks, but the last byte
 * is only peeked at and stays in S's queue: the *stale byte*. A reset can be shown to the program only by closing S with unread
 * data, so there always is some. S is therefore always readable and watched edge-triggered; whoever stops early stays dirty, or
 * is woken by an acknowledgement. No answer of S is trusted (a copy of it may be in the program's hands): each call says
 * MSG_DONTWAIT, and a turn that moved nothing ends.
 *
 *     program                         S's queue                peer
 *     shutdown(SHUT_WR)   EPOLLRDHUP, only the stale byte left  FIN after all that was sent
 *     close               EPOLLHUP                              FIN; RST if data was unread, or SO_LINGER is 0, or it was
 *                                                               closed unaccepted, in the queue of a listener
 *     end of file         shutdown(S, SHUT_WR) after all data   FIN
 *     ECONNRESET          close(S), stale byte unread           RST (after all data that had arrived before it)
 *     end of file, EPIPE  stale byte read, then close(S)        RST after FIN
 */
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include "server.hpp"
#include "socket.hpp"

namespace netcon::server {

namespace {

constexpr size_t parts_max = 64;
constexpr unsigned writes_per_turn = 16;
constexpr size_t worth_reading = 32768; // do not read in small slices while the peer's acknowledgements trickle in

/* What was written to S and the program has not read, with the kernel's overhead. */
size_t unread(int fd) {
    int bytes = 0;
    return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

} // namespace

void Socket::pump() {
    deliver();
    collect();
    if (hung_up_) {
        hang_up();
        return;
    }
    if (tcp.gone && tcp.was_reset) {
        if (tcp.rx_empty()) peer_reset();
        return;
    }
    if (tcp.rx_fin && tcp.rx_empty() && !end_delivered_) {
        end_delivered_ = true;
        ::shutdown(pair.get(), SHUT_WR);
    }
    if (end_of_stream_ && pair_drained_ && tcp.tx_all_submitted() && !fin_sent_) {
        fin_sent_ = true;
        tcp.shutdown_send();
    }
    if (fin_sent_ && tcp.rx_fin && tcp.tx_held() == 0) tcp.detach(); // both directions are finished: lwIP sees it to its end alone
}

void Socket::deliver() {
    if (output_blocked_ || tcp.rx_empty()) return;
    bool prompt = tcp.window_may_grow() && unread(pair.get()) < tcp.connection.window;
    for (unsigned i = 0; i < writes_per_turn && !tcp.rx_empty(); i++) {
        iovec parts[parts_max];
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = tcp.rx_parts(parts, parts_max);
        ssize_t n = sendmsg(pair.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                output_blocked_ = true;
                want_output(true);
                return;
            }
            if (errno == ENOMEM || errno == ENOBUFS || errno == EINTR) { // the kernel's trouble, not an end: in the next round
                server.mark_dirty(*this);
                return;
            }
            // The program reads no more: it has closed (EPOLLHUP will say so) or shut this direction down. TCP goes on to
            // acknowledge, and answers a close with unread data by RST.
            unread_by_program_ = true;
            size_t all = 0;
            for (size_t p = 0; p < message.msg_iovlen; p++)
                all += parts[p].iov_len;
            tcp.consume(all, false);
            continue;
        }
        server.count.bytes_in += static_cast<uint64_t>(n);
        tcp.consume(static_cast<size_t>(n), prompt);
    }
    if (tcp.rx_empty())
        want_output(false);
    else
        server.mark_dirty(*this); // more in the next round
}

void Socket::collect() {
    if (!readable_ || fin_sent_ || tcp.gone) return;
    int fd = pair.get();
    size_t held = queued(fd), fresh = held - std::min<size_t>(held, stale_);
    if (fresh == 0) {
        readable_ = false;
        pair_drained_ = end_of_stream_;
        return;
    }
    if (tcp.tx_room() < std::min({fresh, worth_reading, tcp.tx_limit()})) return; // an acknowledgement will call us
    char scratch;
    iovec parts[parts_max];
    size_t lead = stale_ ? 1 : 0;
    parts[0] = {&scratch, 1};
    size_t count = tcp.tx_space(fresh, parts + 1, parts_max - 1), capacity = 0;
    if (count == 0) {
        server.mark_dirty(*this); // no memory just now
        return;
    }
    for (size_t i = 1; i <= count; i++)
        capacity += parts[i].iov_len;
    bool whole = capacity == fresh;
    size_t wanted = whole ? fresh - 1 : capacity, moved = 0;
    if (whole) parts[count].iov_len--; // the last byte stays
    if (wanted + lead > 0) {
        ssize_t n = receive(fd, parts + 1 - lead, count + lead, 0, server.closer);
        if (n <= 0) {
            unread_by_program_ |= n == -ECONNRESET;
            readable_ = n == -ECONNRESET;
            tcp.fill(0);
            return;
        }
        stale_ = false;
        moved = static_cast<size_t>(n) - lead;
        tcp.fill(moved);
    }
    if (whole && moved == wanted) {
        iovec last;
        if (tcp.tx_space(1, &last, 1) == 1 && receive(fd, &last, 1, MSG_PEEK, server.closer) == 1) {
            tcp.fill(1);
            moved++;
            stale_ = true;
        }
        // What comes from now on is announced by a new edge.
        readable_ = false;
        pair_drained_ = end_of_stream_;
    } else {
        server.mark_dirty(*this);
    }
    server.count.bytes_out += moved;
    tcp.submit();
}

/* The program has closed its last descriptor, or shut down both directions. */
void Socket::hang_up() {
    if (tcp.gone) {
        if (!tcp.was_reset || end_delivered_)
            drain_pair(); // both directions ended in order, and the program may still hold its end: no ECONNRESET
        server.retire(*this);
        return;
    }
    // Nobody accepted it before its listener was closed: as any connection in a queue that is given up.
    if (!was_accepted() || (options.linger && options.linger_seconds == 0) || unread_by_program_ || !tcp.rx_empty()) {
        tcp.abort();
        server.retire(*this);
        return;
    }
    if (!pair_drained_ || !tcp.tx_all_submitted()) {
        server.expect_orphan(); // what it wrote before is still to be sent
        return;
    }
    drain_pair(); // after SHUT_RDWR the program still holds its end
    leave_pair();
    state = State::closing;
    tcp.close();
    finish_closing();
}

void Socket::finish_closing() {
    if (!tcp.gone && tcp.tx_held() > 0) {
        server.expect_orphan();
        return;
    }
    tcp.detach();
    server.retire(*this);
}

/* The connection is gone, and all that came before has been delivered. */
void Socket::peer_reset() {
    server.count.resets++;
    if (tcp.error == ERR_ABRT) server.remember_end(id, ETIMEDOUT); // a timer of lwIP's ended it, not the peer
    if (end_delivered_) drain_pair();                              // after the peer's FIN a reset is a clean close
    server.retire(*this);
}

} // namespace netcon::server
