/* ancillary.h: control data of datagrams: between struct cmsghdr and the datagram's header. */
#ifndef NETCON_ANCILLARY_H
#define NETCON_ANCILLARY_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <sys/socket.h>

/**
 * ancillary_write() - gives the program what a header says, cut to its room (MSG_CTRUNC)
 * @family: of the socket
 */
void ancillary_write(struct msghdr *message, const struct netcon_datagram_header *header, uint16_t family);

/**
 * ancillary_read() - takes what a program gives for one datagram into its header
 * @family: of the socket
 * @to_ipv4: the destination is an IPv4 address
 *
 * Return: 0, or -EINVAL, -EPERM as the kernel.
 */
long ancillary_read(struct netcon_datagram_header *header, const struct msghdr *message, uint16_t family, bool to_ipv4);

#endif
