/* wrapped.h: the functions that the library exports (wrapped_*) and those that do their work (virtual_*).
 *
 * Both are declared by what generate.py makes of symbols.toml. A virtual function may assume that the library is active; it
 * returns -errno. entered_* is the same with its trace, if there is a tracer: what a program's call goes through.
 */
#ifndef NETCON_WRAPPED_H
#define NETCON_WRAPPED_H

#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

struct addrinfo;
struct gaicb;
struct hostent;
struct ifaddrs;
struct if_nameindex;

#include "declarations.h"

#endif
