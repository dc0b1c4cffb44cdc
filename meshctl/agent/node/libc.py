"""Calls of Linux that Python's library lacks (timerfd came with 3.13, inotify never), by way of the C library; and the
structures of recvmmsg and sendmmsg, which it lacks too."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2  # linux/timerfd.h
_CLOCK_REALTIME = 0
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # the values of TFD_* and IN_* of the same names
_IN_CLOSE_WRITE, _IN_MOVED_TO = 0x8, 0x80  # linux/inotify.h
_ITIMERSPEC = struct.Struct("llll")  # interval, then value; time_t and the rest are C longs
# Further than this no timerfd may be set on every kernel; a timer that ends is set anew.
_FAR_S = 10 * 365 * 86_400


class Iovec(ctypes.Structure):
    """struct iovec: where some bytes are."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("parts", ctypes.POINTER(Iovec)),
        ("part_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class Message(ctypes.Structure):
    """struct mmsghdr, of recvmmsg and sendmmsg: with how long the message is that came."""

    _fields_ = (("header", Header), ("size", ctypes.c_uint32))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def clock_watch() -> int:
    """A descriptor that becomes readable when the wall clock is set, by somebody or after a sleep. Raises OSError."""
    return _checked(_libc.timerfd_create(_CLOCK_REALTIME, _FLAGS))


def arm_clock_watch(descriptor: int, wall: float) -> None:
    """Have it report the next change of the clock. Raises OSError."""
    spec = ctypes.create_string_buffer(_ITIMERSPEC.pack(0, 0, int(wall) + _FAR_S, 0), _ITIMERSPEC.size)
    _checked(_libc.timerfd_settime(descriptor, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, spec, None))


def file_watch() -> int:
    """A descriptor that becomes readable when something happens to what it watches. Raises OSError."""
    return _checked(_libc.inotify_init1(_FLAGS))


def watch_folder(descriptor: int, folder: str) -> None:
    """Have it report files in this folder that were written or put in place. One that is watched already is watched
    once; one that was removed, and made again, is another. Raises OSError."""
    _checked(_libc.inotify_add_watch(descriptor, folder.encode(), _IN_CLOSE_WRITE | _IN_MOVED_TO))
