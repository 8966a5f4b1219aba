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
 * address_of_destination() - the address that a program gave to sendto or sendmsg
 * @family: of the socket
 * @length: not 0
 *
 * Return: 0 (family 0: an AF_INET6 socket was given AF_UNSPEC, which is no address), or -EINVAL, -EAFNOSUPPORT, -EFAULT as the
 * kernel's UDP. An AF_INET6 socket takes IPv4 addresses, too.
 */
long address_of_destination(struct netcon_address *out, uint16_t family, const struct sockaddr *address, socklen_t length);

/**
 * address_write() - gives an address to a program, cut to its room
 * @family: of the socket: IPv4 addresses of an IPv6 socket become mapped ones
 *
 * Return: 0, or -EINVAL, -EFAULT.
 */
long address_write(const struct netcon_address *in, uint16_t family, struct sockaddr *address, socklen_t *length);

/* The local or the remote address in a name. */
struct netcon_address address_of_name(const struct netcon_name_service *name, bool remote);

/* The address in a datagram's header, where IPv4 is IPv4-mapped. */
struct netcon_address address_of_header(const uint8_t ip[16], uint16_t port, uint32_t scope);

/* The 16 bytes for a datagram's header. */
void address_to_header(const struct netcon_address *in, uint8_t ip[16]);

/* ::ffff:0.0.0.0/96 */
bool address_is_mapped(const uint8_t ip[16]);

/* 127.0.0.0/8, ::1, or the former as a mapped address. */
bool address_is_loopback(const struct netcon_address *address);

#endif
