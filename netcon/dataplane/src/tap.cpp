/* tap.cpp: frames between a peer and a kernel TAP device; theory of operation in tap.hpp. */
#include "tap.hpp"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

namespace netcon {

Tap::~Tap() {
    if (watched_) reactor_.unwatch(reactor_.reactor, fd_.get());
    if (again_) reactor_.timer_free(again_);
}

int Tap::open(const char *name) {
    ifreq request{};
    if (strlen(name) >= sizeof request.ifr_name) return -ENAMETOOLONG;
    Fd fd{::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
    if (!fd) return -errno;
    strcpy(request.ifr_name, name);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI);
    if (ioctl(fd.get(), TUNSETIFF, &request) < 0) return -errno;
    buffers_ = std::make_unique_for_overwrite<uint8_t[]>(batch * frame_max);
    fd_ = std::move(fd);
    return 0;
}

int Tap::start() {
    again_ = reactor_.timer_new(
        reactor_.reactor, [](void *self) { static_cast<Tap *>(self)->offer_again(); }, this);
    if (!again_) return -ENOMEM;
    auto on_ready = [](void *self, int, uint32_t events) { static_cast<Tap *>(self)->ready(events); };
    int result = reactor_.watch(reactor_.reactor, fd_.get(), EPOLLIN, on_ready, this);
    watched_ = result == 0;
    return result;
}

void Tap::rewatch() {
    if (!watched_) return;
    uint32_t events = (paused_ ? 0u : static_cast<uint32_t>(EPOLLIN)) | (starved_ ? static_cast<uint32_t>(EPOLLOUT) : 0u);
    reactor_.rewatch(reactor_.reactor, fd_.get(), events);
}

void Tap::ready(uint32_t events) {
    if (starved_ && events & EPOLLOUT) {
        starved_ = false;
        rewatch();
        if (peer_) peer_->resume(peer_->self);
    }
    if (!paused_ && events & EPOLLIN) read_batch();
    /* A device that was deleted under us reports EPOLLERR for ever; whoever owns us notices by its name and makes another. */
    if (events & EPOLLERR) {
        reactor_.unwatch(reactor_.reactor, fd_.get());
        watched_ = false;
    }
}

void Tap::read_batch() {
    first_ = count_ = 0;
    while (count_ < batch) {
        uint8_t *into = buffers_.get() + count_ * frame_max;
        ssize_t length = read(fd_.get(), into, frame_max);
        if (length < 0 && errno == EINTR) continue;
        if (length <= 0) break;
        held_[count_++] = {into, static_cast<uint32_t>(length)};
    }
    counters.frames_in += count_;
    offer();
}

/* offer: hand the peer what was read and is not yet taken. */
void Tap::offer() {
    size_t waiting = count_ - first_;
    if (waiting == 0) return;
    if (!peer_) {
        counters.detached += waiting;
        first_ = count_;
        return;
    }
    bool was_paused = paused_;
    paused_ = true; /* before the call: the peer may resume us inside it */
    size_t taken = peer_->deliver(peer_->self, held_ + first_, waiting);
    first_ += taken;
    if (taken == waiting) paused_ = false;
    if (paused_ != was_paused) rewatch();
}

size_t Tap::deliver(const netcon_frame *frames, size_t count) {
    for (size_t taken = 0; taken < count; ++taken) {
        ssize_t written;
        do
            written = write(fd_.get(), frames[taken].data, frames[taken].length);
        while (written < 0 && errno == EINTR);
        if (written >= 0) {
            ++counters.frames_out;
        } else if (errno == EAGAIN) {
            starved_ = true;
            rewatch();
            return taken;
        } else {
            ++counters.refused;
        }
    }
    return count;
}

void Tap::resume() {
    if (paused_)
        reactor_.timer_set(again_, reactor_.now_us(reactor_.reactor)); /* not here: the peer is in the middle of its own work */
}

/* offer_again: the peer has room. */
void Tap::offer_again() {
    if (first_ < count_) {
        offer();
    } else if (paused_) {
        paused_ = false;
        rewatch();
    }
}

void Tap::attach(const netcon_ethernet_end *peer) {
    peer_ = peer;
    starved_ = false;
    if (paused_) { /* what the former peer left is for nobody */
        paused_ = false;
        first_ = count_;
    }
    rewatch();
}

} // namespace netcon
