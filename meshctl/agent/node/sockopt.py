"""Options of sockets that Python has no names for, of asm-generic/socket.h."""

from __future__ import annotations

SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK = 32, 33, 36
