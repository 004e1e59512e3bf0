"""`python -m pinpp_jax.tools.parity`."""

import sys

from pinpp_jax.tools.parity.cli import main

sys.exit(main())
