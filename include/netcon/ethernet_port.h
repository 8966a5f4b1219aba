/* ethernet_port.h: the boundary at which a network's Ethernet frames change hands, in batches.
 *
 * A link joins two ends. Each end *delivers* to its peer; there is no direction in the type. A stack, a kernel TAP
 * device, the engine, a capture are one end; an impairment (delay, loss, reordering) has two and sits between.
 *
 *      stack end  <-->  [impairment left | impairment right]  <-->  switch or engine end
 *
 * Ends live on one reactor thread; every call is made there. The struct travels in a PyCapsule named
 * NETCON_ETHERNET_END_CAPSULE; whoever takes the capsule keeps a reference to it while attached.
 */
#ifndef NETCON_ETHERNET_PORT_H
#define NETCON_ETHERNET_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NETCON_ETHERNET_END_ABI 1u
#define NETCON_ETHERNET_END_CAPSULE "netcon.ethernet_end"

/* A whole Ethernet frame: destination 6, source 6, EtherType 2 (big-endian), payload. No preamble, no FCS. The bytes
 * belong to the caller and are valid, and may be rewritten in place, only during the call. */
struct netcon_frame {
    uint8_t *data;
    uint32_t length;
};

struct netcon_ethernet_end {
    uint32_t abi_version;
    uint32_t size;
    void *self;

    /* Hand frames to this end, oldest first. Returns how many it took; the caller keeps the rest and offers them
     * again after its own `resume` was called. An end that can never take a frame (malformed, too long) counts it as
     * an error and takes it. */
    size_t (*deliver)(void *self, const struct netcon_frame *frames, size_t count);

    /* The peer, which had taken fewer frames than this end offered, has room again. */
    void (*resume)(void *self);

    /* Frames that come out of this end go to `peer` from now on; NULL detaches (frames are then dropped and counted). */
    void (*attach)(void *self, const struct netcon_ethernet_end *peer);
};

#ifdef __cplusplus
}
#endif
#endif
