"""What every test needs first."""

import dg  # noqa: F401  before torch: it sets how OpenMP threads wait
