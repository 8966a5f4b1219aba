/* interfaces.h: the interfaces that a program may see: lo and one for each network (socket_rpc.h, "interfaces"). */
#ifndef NETCON_INTERFACES_H
#define NETCON_INTERFACES_H

/* SIOCGIFCONF: `argument` is a struct ifconf. Return: 0 or -errno. */
long interfaces_configuration(void *argument);

#endif
