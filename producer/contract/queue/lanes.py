"""Constants of the lanes of tenants (``lanes.lua``)."""

DUE = 17
"""Characters of a due time before an entry's separator and message: Unix seconds as ``%.6f``."""
REMEMBERED = 10_000
"""Tenants that left whose counters are kept; beyond that, those are forgotten that would be lifted anyway."""
