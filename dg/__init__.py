"""DreamGaussian Lab: one picture or a prompt becomes a textured 3D mesh, and the result is measured.

Nothing heavy is imported here: `import dg` needs no torch, no CUDA, no compiler and no network.
"""

import os

# Threads that spin while they wait slow each other down tenfold where cores are shared, and gain nothing where they are
# not (measured). Read when torch is first imported, which is later than this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
