/* policy.h: the run's policy (NETCON_POLICY), which is asked before the service and its own. */
#ifndef NETCON_INTERCEPT_POLICY_H
#define NETCON_INTERCEPT_POLICY_H

#include <netcon/policy.h>
#include <netcon/socket_rpc.h>
#include <stdbool.h>

#include "rpc.h"

/* Reads the text of NETCON_POLICY. False: it is none. */
bool policy_read(const char *text);

/**
 * policy_ask() - what the run's policy says of an address
 * @direction: NETCON_POLICY_BIND or NETCON_POLICY_CONNECT
 * @call: to be sent if the service is to be asked: gets the network and the flags of the line that decides
 *
 * Return: 0: ask the service; -NETCON_RPC_TO_HOST: the host's; -EACCES: refused.
 */
long policy_ask(int direction, const struct netcon_name_program *name, const struct netcon_address *address, struct rpc_call *call);

/**
 * policy_answer() - what the service's answer means under the run's policy
 * @done: of rpc_call() with a call that policy_ask() has prepared
 *
 * Return: -NETCON_RPC_TO_HOST: the host's; else @done, or -ENETUNREACH where the run wants no way by the host.
 */
long policy_answer(int direction, const struct netcon_name_program *name, const struct netcon_address *address, long done);

/* May any destination but loopback be the host's? Then each sendto must ask. */
bool policy_has_host(void);

/* Has the run a word about a DNS server there? Then the service must hear it. */
bool policy_says_names(const struct netcon_address *to);

/* What the service's answer to a question about a name (enum netcon_resolve_status) means under the run's policy. */
unsigned policy_names(unsigned status);

#endif
