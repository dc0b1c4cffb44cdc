"""Doing something inside another network namespace, in a thread of its own.

Python has os.setns only from 3.12, so the C library's is called.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def enter(path: Path) -> None:
    """Move the calling thread into the namespace. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def within(path: Path, function: Callable[[], T]) -> T:
    """What `function` returns when it is called inside the namespace; its exception is raised here.

    Sockets and devices that it opens stay in that namespace for life, whichever thread uses them. The thread ends with
    the call, so no other code ever runs in the wrong namespace.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            enter(path)
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=call, name=f"netns {path.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
