"""The made-up UUID of a CPU slot, by which its workers are told from those of another machine."""

from __future__ import annotations

import uuid

from ..process_identity import this_machine


def slot_uuid(name: str) -> str:
    """The same for the same slot of this machine, whatever its host is called, until it is booted anew."""
    return f"CPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{this_machine()}/{name}')}"
