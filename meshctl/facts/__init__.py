"""What a host has: one shell script, and one pure parser of what it prints."""

from meshctl.facts.parse import parse
from meshctl.facts.request import FactsRequest, request_for
from meshctl.facts.script import script

__all__ = ["FactsRequest", "parse", "request_for", "script"]
