"""`python -m pinpp_jax.tools.doctor`."""

import sys

from pinpp_jax.tools.doctor.cli import main

sys.exit(main())
