/* engine_rings.cpp: doorbells and push-back between the planes; see engine_rings.hpp. */
#include "engine_rings.hpp"

namespace netcon {

EngineRings::EngineRings(netcon_reactor &reactor, size_t slots) : reactor(reactor), slots(slots), up(slots) {
    auto on_bell = [](void *self, int, uint32_t) { static_cast<EngineRings *>(self)->rung(); };
    if (int result = reactor.watch(reactor_bell_.fd(), EPOLLIN, on_bell, this); result < 0)
        throw std::system_error(-result, std::generic_category(), "epoll_ctl");
}

EngineRings::~EngineRings() { reactor.unwatch(reactor_bell_.fd()); }

void EngineRings::rung() {
    reactor_bell_.clear();
    /* The mark is gone only when the engine has taken it: then half of the ring is free. */
    if (!up.wanted())
        for (RingPort *port : ports_)
            port->up_room();
    for (RingPort *port : ports_)
        drain(port);
    reactor_bell_.arm();
    for (RingPort *port : ports_)
        drain(port);
}

void EngineRings::drain(RingPort *port) {
    port->drain();
    if (port->down.room_due()) engine_bell.signal();
}

void EngineRings::drain_later() {
    if (drain_deferred_) return;
    drain_deferred_ = true;
    auto task = [](void *context) {
        auto *self = static_cast<EngineRings *>(context);
        self->drain_deferred_ = false;
        for (RingPort *port : self->ports_)
            self->drain(port);
    };
    reactor.defer(task, this);
}

void EngineRings::received() {
    if (up.room_due()) reactor_bell_.signal();
    if (!up.empty()) return; /* the doorbell stays rung */
    engine_bell.clear();
    engine_bell.arm();
    if (!up.empty()) engine_bell.ring();
}

} // namespace netcon
