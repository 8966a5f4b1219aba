/* socket.h: what the files about the calls share. */
#ifndef NETCON_SOCKET_H
#define NETCON_SOCKET_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "rpc.h"

/* The kernel's TCP gives this buffer to a descriptor of ours: with the default one, one byte left of a large sendfile block
 * makes it unwritable for ever (intercept.md, "The pump and the stale byte"). */
#define PROGRAM_SEND_BUFFER 212992

/* A name that someone else has bound first is tried again, in another form. */
#define NAME_ATTEMPTS 8

/* A call about a socket of ours, to be completed. */
static inline struct rpc_call call_about(uint16_t operation, int descriptor, const struct netcon_name_program *name) {
    return (struct rpc_call){.operation = operation, .descriptor = descriptor, .about = name, .reply_descriptor = -1};
}

/**
 * socket_replace() - puts another socket at the number of one of ours
 * @descriptor: the number; its O_NONBLOCK, O_ASYNC and FD_CLOEXEC stay, and its time limits
 * @fresh: the socket that replaces it; closed in any case
 *
 * Copies of the old descriptor in this process and its epoll sets get the new one, too; other processes' keep the old socket.
 * Return: 0 or -errno.
 */
long socket_replace(int descriptor, int fresh);

/**
 * socket_end() - why a connection of ours ended, or was not made
 * @descriptor: the program's end, on which the kernel said ECONNRESET
 *
 * The pair can only say that. Why an attempt failed is in the name of its other end; a connection that a timer ended (keep-alive,
 * TCP_USER_TIMEOUT, retransmission) is known to the service. Return: -ETIMEDOUT and the like once, or -ECONNRESET.
 */
long socket_end(int descriptor);

/* Takes and closes what waits to be accepted: the service resets it. */
void accept_discard_queue(int descriptor);

/**
 * socket_give_to_kernel() - makes a socket of ours one of the kernel
 * @address: what it is to be bound or connected to: of loopback, a datagram socket stays on the interface lo
 *
 * For addresses that policy gives to the host. The flags and the options that can be read back are carried over; what the
 * service knows about the socket (a local address) is not. Return: 0 or -errno.
 */
long socket_give_to_kernel(int descriptor, const struct netcon_name_program *name, const struct netcon_address *address);

/**
 * socket_leaves_loopback() - would this datagram of a kernel's socket that is kept on `lo` take another interface?
 *
 * The kernel obeys the scope of an address and the index in IP_PKTINFO or IPV6_PKTINFO, whatever the socket is bound to. Costs
 * nothing for messages without them.
 */
bool socket_leaves_loopback(int descriptor, const struct msghdr *message);

#endif
