"""The figures by name; each is defined in one of the modules imported here."""

from dg.eval.images import PSNR_CEILING_DB, facing, psnr, psnr_over, saturation, silhouette_iou, ssim
from dg.eval.shape import chamfer, f_score, normal_consistency, sample_surface
from dg.eval.topology import Topology, topology
from dg.eval.volume import Inside, directions, lattice, occupancy, volume_iou

__all__ = [
    "PSNR_CEILING_DB",
    "Inside",
    "Topology",
    "chamfer",
    "directions",
    "f_score",
    "facing",
    "lattice",
    "normal_consistency",
    "occupancy",
    "psnr",
    "psnr_over",
    "sample_surface",
    "saturation",
    "silhouette_iou",
    "ssim",
    "topology",
    "volume_iou",
]
