"""Roles and templates to files and resources in memory."""

from meshctl.render.renderer import Renderer

__all__ = ["Renderer"]
