"""``python -m moe_routing.conformance.cli`` is ``moe-routing``."""

import sys

from moe_routing.conformance.cli import main

sys.exit(main())
