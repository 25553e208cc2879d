"""Published figures that ours are set beside, each with its source and the protocol it was made by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

E2E_FT = "Martin Garcia et al., WACV 2025, README of VisualComputingInstitute/diffusion-e2e-ft"
FE2E = "Wang et al., CVPR 2026, arXiv 2509.04338"
MARIGOLD_V2 = "Pavlovic et al., ACM TOG 45(6) 2026, table 1"
MARIGOLD_V2_NORMALS = "Pavlovic et al., ACM TOG 45(6) 2026, table 9"


@dataclass(frozen=True)
class Published:
    """The figures of one method.

    Attributes:
        method: its name.
        source: where the figures stand, which need not be the method's own paper.
        figures: by dataset.
    """

    method: str
    source: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class PublishedTable:
    """The figures of one metric under one protocol. Only what was made by the same protocol stands in it.

    Attributes:
        metric: name of our metric.
        heading: what it is called, with the unit.
        protocol: how predictions were brought to the truth.
        factor: from our unit to theirs.
        rows: figures by method.
    """

    metric: str
    heading: str
    protocol: str
    factor: float
    rows: Sequence[Published]


def _rows(names: Sequence[str], source: str, figures: Mapping[str, Sequence[float | None]]) -> list[Published]:
    """Return one record per method from figures in the order of ``names``; None where there is none."""
    return [
        Published(method, source, {name: value for name, value in zip(names, values, strict=True) if value is not None})
        for method, values in figures.items()
    ]


_DEPTH = ("nyuv2", "kitti", "eth3d", "scannet", "diode")
_NORMALS = ("nyuv2", "scannet", "ibims", "sintel")

PUBLISHED: list[PublishedTable] = [
    PublishedTable(
        "abs_rel",
        "AbsRel (%)",
        "least squares in depth",
        100.0,
        [
            *_rows(
                _DEPTH,
                E2E_FT,
                {
                    "Stable Diffusion 2 + E2E (2024)": (5.4, 9.6, 6.4, 5.8, 30.3),
                    "Marigold + E2E (2024)": (5.2, 9.6, 6.2, 5.8, 30.2),
                    "GeoWizard + E2E (2024)": (5.6, 9.8, 6.3, 5.9, 30.6),
                },
            ),
            *_rows(
                _DEPTH, FE2E, {"Lotus-D (2025)": (5.1, 8.1, 6.1, 5.5, 22.8), "FE2E (2026)": (4.1, 6.6, 3.8, 4.4, 22.8)}
            ),
        ],
    ),
    PublishedTable(
        "ransac_log/abs_rel",
        "AbsRel (%)",
        "RANSAC in log depth",
        100.0,
        _rows(
            _DEPTH,
            MARIGOLD_V2,
            {
                "Marigold (2024)": (5.5, 9.9, 6.5, 6.4, 10.0),
                "GeoWizard (2024)": (5.2, 9.7, 6.4, 6.1, 12.0),
                "Depth Anything V2, 62M images (2024)": (4.5, 7.4, 13.1, 6.5, 6.6),
                "GenPercept (2025)": (5.2, 9.4, 6.6, 5.6, None),
                "Lotus (2025)": (5.4, 8.5, 5.9, 5.9, 9.8),
                "Lotus-2 (2025)": (3.7, 6.7, 4.1, 4.0, 6.5),
                "MoGe-2, 9M images (2025)": (3.1, 6.9, 5.0, 3.1, 9.6),
                "Pixel-Perfect Depth, 1024 (2025)": (4.1, 7.0, 4.3, 4.6, 6.8),
                "DepthMaster (2026)": (4.8, 9.1, 5.4, 5.8, 8.0),
                "FE2E (2026)": (3.8, 6.5, 3.8, 4.3, 5.6),
                "Marigold V2 (2026)": (3.6, 5.4, 2.8, 3.7, 5.2),
            },
        ),
    ),
    PublishedTable(
        "ransac_log/delta1",
        "delta1 (%)",
        "RANSAC in log depth",
        100.0,
        _rows(
            _DEPTH,
            MARIGOLD_V2,
            {
                "Marigold (2024)": (96.4, 91.6, 96.0, 95.1, 90.7),
                "Lotus-2 (2025)": (97.6, 94.1, 98.6, 97.2, 95.5),
                "Pixel-Perfect Depth, 1024 (2025)": (97.7, 95.5, 98.0, 97.2, 95.9),
                "FE2E (2026)": (97.6, 96.0, 98.7, 97.1, 96.4),
                "Marigold V2 (2026)": (98.0, 97.4, 99.2, 97.9, 97.1),
            },
        ),
    ),
    PublishedTable(
        "ransac_log/see3",
        "SEE3 (m)",
        "RANSAC in log depth",
        1.0,
        [
            Published(method, "Pavlovic et al., ACM TOG 45(6) 2026, table 2", {"hypersim_edges": value})
            for method, value in (
                ("Pixel-Perfect Depth (2025)", 0.404),
                ("InfiniDepth (2026)", 0.470),
                ("Marigold V2 (2026)", 0.352),
            )
        ],
    ),
    PublishedTable(
        "mean_angle_deg",
        "mean angular error (degrees)",
        "all pixels pooled",
        1.0,
        [
            *_rows(
                _NORMALS,
                E2E_FT,
                {
                    "Stable Diffusion 2 + E2E (2024)": (16.5, 15.3, 16.1, 33.5),
                    "Marigold + E2E (2024)": (16.2, 14.7, 15.8, 33.5),
                    "GeoWizard + E2E (2024)": (16.1, 14.7, 16.2, 33.4),
                },
            ),
            *_rows(
                _NORMALS,
                MARIGOLD_V2_NORMALS,
                {
                    "DSINE (2024)": (16.4, 16.2, 17.1, 34.9),
                    "StableNormal (2024)": (18.6, 17.1, 18.2, 36.7),
                    "Lotus-D (2025)": (16.2, 14.7, 17.1, 32.3),
                    "Lotus-2 (2025)": (16.9, 14.2, 15.4, 30.3),
                    "MoGe-2, 9M images (2025)": (14.7, 12.8, 14.7, 29.3),
                    "FE2E (2026)": (16.2, 13.8, 15.1, 31.2),
                    "Marigold V2 (2026)": (16.6, 14.1, 15.9, 28.7),
                },
            ),
        ],
    ),
    PublishedTable(
        "share_under_11_25_deg",
        "within 11.25 degrees (%)",
        "all pixels pooled",
        100.0,
        _rows(
            _NORMALS,
            MARIGOLD_V2_NORMALS,
            {
                "Diffusion-E2E-FT (2024)": (60.4, 66.1, 69.7, 22.3),
                "MoGe-2, 9M images (2025)": (62.3, 68.4, 70.4, 24.8),
                "FE2E (2026)": (59.6, 67.2, 70.6, 22.3),
                "Marigold V2 (2026)": (61.2, 67.4, 70.9, 27.6),
            },
        ),
    ),
]
