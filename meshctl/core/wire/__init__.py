"""Formats that strangers send: STUN, PCP, NAT-PMP, SSDP and UPnP IGD. Bytes in, frozen dataclasses out, and back.

Nothing here opens a socket, reads a clock or draws a random number; every parser raises `WireError` and nothing else.
"""
