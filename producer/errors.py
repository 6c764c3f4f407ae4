"""The errors under the name by which stored results refer to them (``contract.errors.WIRE_MODULE``)."""

from .contract.errors import *  # noqa: F403  a second name for all of them, and nothing else
