/* syscall.c: syscall(). The system calls that the library handles go the same way by number; all others pass as they are. */
#include <stdarg.h>

#include "environment.h"
#include "kernel.h"
#include "wrapped.h"

static long dispatched(long number, const long a[6]) {
    switch (number) {
#include "dispatch.h"
    default:
        return raw6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

long wrapped_syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    return result(is_active() ? dispatched(number, a) : raw6(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
