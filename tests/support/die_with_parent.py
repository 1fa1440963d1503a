"""Runs a command that the kernel kills when its parent ends (Linux), so that a killed pytest leaves no server.

A script of its own because the request must be made in the child between fork and exec, where running Python
code is unsafe in a process that has threads: `python -I -S die_with_parent.py PARENT_PID COMMAND…`.
"""

import ctypes
import os
import signal
import sys

LINUX_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(LINUX_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the test's own command, without a shell
