"""Execute a program without privilege, in a network namespace of its own that has nothing but lo: `confine.py PROGRAM ARGUMENT...`

What CPython's tests send cannot leave the machine, nor can they meet ports that something else on it uses. Root becomes nobody;
an ordinary user stays who he is and gets the namespace by way of a user namespace. Runs alone, without this package.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def main() -> None:
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)) != 0:
        raise OSError(ctypes.get_errno(), "unshare: no network namespace can be made here")
    if user:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    if not user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    # The environment of the program is given as assignments, so that it does not count for this one.
    place = sys.argv.index("--")
    environment = dict(assignment.split("=", 1) for assignment in sys.argv[1:place])
    os.execve(sys.argv[place + 1], sys.argv[place + 1 :], environment)


if __name__ == "__main__":
    main()
