/* reactor.h: the event loop that moves bytes, as seen by what is registered with it.
 *
 * One reactor is one thread (or none: in manual mode a test turns it and supplies the time). Whoever registers a
 * descriptor, timer or task is called on that thread only, one call at a time, and never with Python's GIL held.
 * A batch is: wait, run every ready descriptor and due timer, run what was deferred, wait again.
 *
 * The struct travels in a PyCapsule named NETCON_REACTOR_CAPSULE. Its layout is fixed by `abi_version`; a user
 * checks `abi_version` and `size` when it takes the capsule, and raises ImportError when they do not fit.
 */
#ifndef NETCON_REACTOR_H
#define NETCON_REACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NETCON_REACTOR_ABI 1u
#define NETCON_REACTOR_CAPSULE "netcon.reactor"
#define NETCON_NEVER UINT64_MAX

struct netcon_reactor;
struct netcon_timer;

/* Called with the EPOLL* bits that are ready. */
typedef void (*netcon_fd_fn)(void *context, int fd, uint32_t events);
typedef void (*netcon_task_fn)(void *context);

struct netcon_reactor_api {
    uint32_t abi_version;
    uint32_t size;
    struct netcon_reactor *reactor;

    /* Microseconds on a clock that never goes back; read once per batch. Virtual in manual mode. */
    uint64_t (*now_us)(struct netcon_reactor *reactor);

    /* Watch a descriptor for EPOLL* events (EPOLLET is the caller's choice). One watch per descriptor. The descriptor
     * stays the caller's: unwatch it before closing it. 0, or -errno. Reactor thread only. */
    int (*watch)(struct netcon_reactor *reactor, int fd, uint32_t events, netcon_fd_fn fn, void *context);
    int (*rewatch)(struct netcon_reactor *reactor, int fd, uint32_t events);
    /* After this returns, fn is not called again, not even for an event of the current batch. */
    void (*unwatch)(struct netcon_reactor *reactor, int fd);

    /* A timer is armed while its deadline is not NETCON_NEVER; it disarms itself before fn runs. Reactor thread only
     * (timer_new and timer_free too). NULL: no memory. */
    struct netcon_timer *(*timer_new)(struct netcon_reactor *reactor, netcon_task_fn fn, void *context);
    void (*timer_set)(struct netcon_timer *timer, uint64_t deadline_us);
    void (*timer_free)(struct netcon_timer *timer);

    /* Run fn once at the end of the current batch ("again" lists, flushes). Reactor thread only. */
    void (*defer)(struct netcon_reactor *reactor, netcon_task_fn fn, void *context);

    /* Run fn on the reactor thread, from any thread. In order. 0, or -ENOMEM, or -ESHUTDOWN once the reactor stopped. */
    int (*post)(struct netcon_reactor *reactor, netcon_task_fn fn, void *context);
    /* The same, and wait until it has run. Called on the reactor thread (or in manual mode) it runs at once. Release the GIL first.
     */
    int (*call)(struct netcon_reactor *reactor, netcon_task_fn fn, void *context);
};

#ifdef __cplusplus
}
#endif
#endif
