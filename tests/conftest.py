"""What every test needs first."""

from hypothesis import settings

import dg  # noqa: F401  before torch: it sets how OpenMP threads wait

# Timings decide no test: on a busy machine an example takes as long as it takes.
settings.register_profile("dg", deadline=None)
settings.load_profile("dg")
