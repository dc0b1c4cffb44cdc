"""From changes to commands: what the applier runs on a host, each step idempotent, quoted by type (argv, no shell)."""

from meshctl.ops.steps import steps_for

__all__ = ["steps_for"]
