/* rpc.h: requests to the service (socket_rpc.h).
 *
 * One connection to the service is cached for the process (kept.h). It is shared by threads and by forked children without a
 * lock, since each waiting call brings its own end for the reply. When it is gone the path is dialled again.
 */
#ifndef NETCON_RPC_H
#define NETCON_RPC_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct rpc_call {
    uint16_t operation;
    uint16_t flags; /* NETCON_RPC_VIRTUAL */
    bool optional;  /* the caller can do without an answer: nothing is said where the service is not there */
    uint64_t network;
    int descriptor;                          /* the subject */
    const struct netcon_name_program *about; /* its name */
    int32_t args[4];
    const void *data;
    uint32_t data_length;
    const struct iovec *tail; /* goes behind `data` (the payload of a datagram), may be NULL */
    size_t tail_count;
    uint32_t tail_length; /* bytes in all of it */

    void *reply; /* in: room for the reply's data, may be NULL */
    uint32_t reply_room;
    uint32_t reply_length; /* out: how much the service sent, at most the room */
    int32_t value;         /* out */
    int reply_descriptor;  /* out: -1 if the reply carried none */
};

/**
 * rpc_call() - asks and waits for the answer
 *
 * Signals do not interrupt it: the service answers at once. Return: 0, -errno as the service says, or
 *   -ENETDOWN   no service (a line on standard error has said why) or it went away
 *   -EMFILE     no room in the descriptor table for the reply's end
 *   -ENFILE     too many descriptors of this user are in flight
 *   -NETCON_RPC_TO_HOST   the address is the host's; of BIND, CONNECT and SENDTO alone. Not for programs: policy.h
 */
long rpc_call(struct rpc_call *call);

/* Asks without waiting; what the service thinks of it is not told. (Where no connection can be cached it does wait, so that
 * what is asked next finds it done.) Return as rpc_call(), for the sending only. */
long rpc_post(const struct rpc_call *call);

/* Bits of netcon_rpc_policy, as the latest reply said. */
unsigned rpc_policy(void);

/* The persistent id of the service, for names. Return: 0 or -errno. */
long rpc_service(uint64_t *service);

/* The id of the service that was dialled last: another one after a call means that the call went to another service. */
uint64_t rpc_last_service(void);

#endif
