#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""without_io_uring.py COMMAND...: runs it where io_uring_setup(2) fails with EPERM, as under the
seccomp profiles of container runtimes. The system call has one number on all machines."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING_SETUP, EPERM = 425, 1


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


code = b"".join([
    struct.pack("HBBI", 0x20, 0, 0, 0),                   # load the number of the call
    struct.pack("HBBI", 0x15, 0, 1, IO_URING_SETUP),      # is it this one?
    struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | EPERM),  # then fail with EPERM
    struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000),          # else let it pass
])
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
    sys.exit("without_io_uring.py: no_new_privs: " + os.strerror(ctypes.get_errno()))
program = Program(len(code) // 8, code)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    sys.exit("without_io_uring.py: seccomp: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
