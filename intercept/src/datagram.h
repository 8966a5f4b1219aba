/* datagram.h: sockets of datagrams (UDP, ICMP, raw): one message on the pair is one datagram (socket_rpc.h, "datagrams").
 *
 * While a socket is not connected, and when ancillary data was asked for, each message begins with a header; otherwise it is the
 * payload alone. Which of both is the socket's mode, which the service keeps in SO_PRIORITY of the program's end.
 */
#ifndef NETCON_DATAGRAM_H
#define NETCON_DATAGRAM_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <sys/socket.h>

/* The mode of a socket now: enum netcon_datagram_mode, or -errno. */
long datagram_mode(int descriptor);

/* SO_ERROR, which it clears. Return: 0, -errno; -ENETDOWN if the service is gone. */
long datagram_error(int descriptor, const struct netcon_name_program *name);

/* The connected peer. Return: 0 or -errno, -ENOTCONN. */
long datagram_peer(int descriptor, const struct netcon_name_program *name, struct netcon_address *peer);

/* Neither bound nor used: nothing of it is known to any network. */
bool datagram_is_fresh(int descriptor, const struct netcon_name_program *name);

/* The length of the first datagram in the queue, 0 if there is none. */
long datagram_queued(int descriptor);

/**
 * datagram_receive() - recvmsg
 * @message: the address, the parts and the control data of the program; filled as the kernel would
 */
long datagram_receive(int descriptor, const struct netcon_name_program *name, struct msghdr *message, int flags);

/* sendmsg. `message->msg_name` may be NULL. */
long datagram_send(int descriptor, const struct netcon_name_program *name, const struct msghdr *message, int flags);

#endif
