/* address.h: between struct sockaddr and struct netcon_address, with the kernel's checks and errors. */
#ifndef NETCON_ADDRESS_H
#define NETCON_ADDRESS_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <sys/socket.h>

/**
 * address_read() - the address that a program gave to bind or connect
 * @descriptor: one of ours; the kernel, asked to bind it again, says whether the address can be read at all
 * @family: of the socket
 * @binding: bind accepts AF_UNSPEC with the wildcard address; connect accepts AF_UNSPEC, which disconnects (family 0)
 *
 * Return: 0, or -EINVAL, -EAFNOSUPPORT, -EFAULT as the kernel's TCP.
 */
long address_read(struct netcon_address *out, int descriptor, uint16_t family, const struct sockaddr *address, socklen_t length,
                  bool binding);

/**
 * address_write() - gives an address to a program, cut to its room
 * @family: of the socket: IPv4 addresses of an IPv6 socket become mapped ones
 *
 * Return: 0, or -EINVAL, -EFAULT.
 */
long address_write(const struct netcon_address *in, uint16_t family, struct sockaddr *address, socklen_t *length);

/* The local or the remote address in a name. */
struct netcon_address address_of_name(const struct netcon_name_service *name, bool remote);

/* 127.0.0.0/8, ::1, or the former as a mapped address. */
bool address_is_loopback(const struct netcon_address *address);

#endif
