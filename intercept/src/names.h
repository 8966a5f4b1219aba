/* names.h: the abstract AF_UNIX names by which a descriptor describes itself (socket_rpc.h, "names").
 *
 * Whether a descriptor is ours, and what it is, is asked of the kernel each time and never remembered: the number may have
 * been closed and used again behind our back. Reading a name costs as much as any getsockopt and needs no RPC.
 */
#ifndef NETCON_NAMES_H
#define NETCON_NAMES_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <sys/socket.h>

/* "\0znc1P" and the base64url of the struct, as they stand in sun_path. */
#define NAME_HEAD (1 + NETCON_NAME_PREFIX_LENGTH + 1)
#define NAME_MAX_LENGTH (NAME_HEAD + (sizeof(struct netcon_name_service) * 4 + 2) / 3)

/**
 * names_program() - is this descriptor the program's end of one of our sockets?
 * @name: filled if it is
 */
bool names_program(int descriptor, struct netcon_name_program *name);

/**
 * names_connected() - is it a connected stream of ours?
 *
 * Then recv and send without an address or an unusual flag are the kernel's. One look at the name of the other end decides.
 * Return: 1 yes; 0 surely none of ours; -1: to be looked at.
 */
int names_connected(int descriptor);

/* Is it one of ours that carries datagrams (UDP, ICMP, raw)? One look at the type of the descriptor decides for all others. */
bool names_datagrams(int descriptor, struct netcon_name_program *name);

/**
 * names_service() - what the service's end says
 * @descriptor: one of ours
 * @name: filled unless 0 is returned; may be NULL
 *
 * Return: 'L' listening, 'C' connected, 'F' failed, or 0: none of them yet (or datagrams, whose name says nothing more).
 */
char names_service(int descriptor, struct netcon_name_service *name);

/* Of one of ours: datagrams, not a stream. */
static inline bool is_datagrams(const struct netcon_name_program *name) { return name->type != SOCK_STREAM; }

/* Of a stream of ours: is it neither connected nor connecting (nor failed, nor without its service)? */
bool names_unconnected(int descriptor);

/* Has the other end closed, or (POLLRDHUP) shut down its side? `events`: POLLHUP, POLLRDHUP. */
bool names_hung_up(int descriptor, short events);

/* Binds the name of a new program's end. Returns 0 or -errno; -EADDRINUSE if someone took the name first. */
long names_bind(int descriptor, const struct netcon_name_program *name);

#endif
