/* kernel.h: raw system calls.
 *
 * The library is loaded into programs of different C libraries and may link none of them, so it speaks to the kernel
 * itself. raw() returns what the kernel returns: the result, or -errno. Inside the library every function that can fail
 * does the same; only the exported functions turn that into -1 and errno, with result().
 *
 * Raw calls are no cancellation points: pthread_cancel does not end a wrapped accept, recv or connect (a known limit).
 */
#ifndef NETCON_KERNEL_H
#define NETCON_KERNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined(__x86_64__) && defined(__LP64__)
static inline long raw6(long number, long a, long b, long c, long d, long e, long f) {
    long returned;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(returned)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return returned;
}
#elif defined(__aarch64__) && defined(__LP64__)
static inline long raw6(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "the intercept library knows the system calls of x86-64 and aarch64"
#endif

/* raw(SYS_name, arguments...): what is not given is 0. */
#define raw(...) raw_padded(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define raw_padded(number, a, b, c, d, e, f, ...)                                                                                  \
    raw6((long)(number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* errno belongs to the program's C library; glibc and musl give it under the same name. */
extern int *__errno_location(void) __attribute__((weak));

/**
 * result() - what a C function returns for what the kernel returned
 * @returned: a result, or -errno
 */
static inline long result(long returned) {
    if ((unsigned long)returned > -4096UL) {
        if (__errno_location) *__errno_location() = (int)-returned;
        return -1;
    }
    return returned;
}

static inline void close_descriptor(int descriptor) {
    if (descriptor >= 0) raw(SYS_close, descriptor);
}

#endif
