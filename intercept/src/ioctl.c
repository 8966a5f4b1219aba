/* ioctl.c: the few requests that a descriptor of ours would answer differently from TCP.
 *
 * FIONREAD is exact on a stream, FIONBIO, FIOASYNC and the owner of signals are the kernel's. All other requests pass without a
 * look at the descriptor: terminals and devices use ioctl too.
 */
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "datagram.h"
#include "environment.h"
#include "interfaces.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "socket.h"
#include "wrapped.h"

#define INTERFACE_REQUEST_LENGTH 40 /* struct ifreq */
#define INTERFACE_FIRST SIOCGIFNAME
#define INTERFACE_LAST SIOCSIFTXQLEN

/* Asks the service; `length` bytes at the argument go there and come back. */
static long ask(int descriptor, const struct netcon_name_program *name, unsigned int request, void *argument, uint32_t length,
                bool sends) {
    struct rpc_call call = call_about(NETCON_RPC_IOCTL, descriptor, name);
    call.args[0] = (int32_t)request;
    call.reply = argument;
    call.reply_room = length;
    if (!argument) return -EFAULT;
    if (sends) {
        call.data = argument;
        call.data_length = length;
    }
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done;
}

/* Of the first datagram; the descriptor itself would add up all, with their headers. */
static long give_queued(int descriptor, void *argument) {
    int queued = (int)datagram_queued(descriptor);
    if (!argument) return -EFAULT;
    memcpy(argument, &queued, sizeof queued);
    return 0;
}

/* What an AF_INET socket alone answers. */
static bool is_of_ipv4(unsigned int request) {
    return request == SIOCGIFADDR || request == SIOCGIFDSTADDR || request == SIOCGIFBRDADDR || request == SIOCGIFNETMASK;
}

long virtual_ioctl(int descriptor, unsigned long wide, void *argument) {
    struct netcon_name_program name;
    unsigned int request = (unsigned int)wide; /* musl passes an int */
    bool of_interface = request >= INTERFACE_FIRST && request <= INTERFACE_LAST;
    if ((request != FIONREAD && request != SIOCOUTQ && request != SIOCATMARK && !of_interface) || !names_program(descriptor, &name))
        return raw(SYS_ioctl, descriptor, wide, argument);
    if (is_datagrams(&name)) {
        if (request == SIOCATMARK) return -ENOTTY;
        if (request == FIONREAD) return give_queued(descriptor, argument);
    }
    if (request == FIONREAD) /* a listener's queue holds records, not bytes */
        return names_service(descriptor, NULL) == 'L' ? -EINVAL : raw(SYS_ioctl, descriptor, wide, argument);
    if (!of_interface) return ask(descriptor, &name, request, argument, sizeof(int), false);
    /* An AF_UNIX socket would answer with the host's interfaces. */
    if (name.family == AF_INET6 && is_of_ipv4(request)) return -ENOTTY;
    if (request == SIOCGIFCONF) return interfaces_configuration(argument);
    return ask(descriptor, &name, request, argument, INTERFACE_REQUEST_LENGTH, true);
}

int wrapped_ioctl(int descriptor, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return (int)result(is_active() ? entered_ioctl(descriptor, request, argument) : raw(SYS_ioctl, descriptor, request, argument));
}

int wrapped_sockatmark(int descriptor) {
    int at_mark = 0;
    long done = is_active() ? entered_ioctl(descriptor, SIOCATMARK, &at_mark) : raw(SYS_ioctl, descriptor, SIOCATMARK, &at_mark);
    return done < 0 ? (int)result(done) : at_mark;
}
