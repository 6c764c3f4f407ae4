"""The made-up UUID of a CPU slot, by which its workers are told from those of another machine."""

from __future__ import annotations

import uuid
from functools import lru_cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def slot_uuid(name: str) -> str:
    """The same for the same slot of this machine until it is booted anew, which no worker outlives.

    Made from the boot and not from the host's name, which may change while workers run.
    """
    return f"CPU-{uuid.uuid5(uuid.UUID(_boot()), name)}"


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return str(uuid.UUID(BOOT_ID.read_text().strip()))
    except (OSError, ValueError):  # not Linux
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(uuid.getnode())))
