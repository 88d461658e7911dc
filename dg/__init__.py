"""DreamGaussian Lab: one picture or a prompt becomes a textured 3D mesh, and the result is measured.

Nothing heavy is imported here: `import dg` needs no torch, no CUDA, no compiler and no network.
"""

__version__ = "0.1.0"
