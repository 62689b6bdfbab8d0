"""All seeded bugs, in the order in which a value travels."""

from mutants.catalogue.accounting import ACCOUNTING
from mutants.catalogue.contribution import CONTRIBUTION
from mutants.catalogue.durability import DURABILITY
from mutants.catalogue.nodes import NODES
from mutants.catalogue.release import RELEASE
from mutants.catalogue.wire import WIRE

MUTANTS = (*CONTRIBUTION, *NODES, *WIRE, *RELEASE, *DURABILITY, *ACCOUNTING)
