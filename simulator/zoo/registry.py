"""The registry of the zoo's families."""

from .fleet_families import FLEET_FAMILIES
from .load_families import LOAD_FAMILIES

FAMILIES = {family.name: family for family in (*LOAD_FAMILIES, *FLEET_FAMILIES)}
