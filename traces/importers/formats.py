"""The frameworks whose logs are read, by name."""

from traces.importers.rules import Framework
from traces.importers.slime import SLIME
from traces.importers.verl import VERL

FRAMEWORKS: dict[str, Framework] = {framework.name: framework for framework in (VERL, SLIME)}
