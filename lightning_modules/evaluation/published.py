"""Published figures that ours are set beside, from the tables in the README of the paper's authors."""

PAPER = "https://github.com/VisualComputingInstitute/diffusion-e2e-ft"

# By headline metric: heading of the table, factor from our unit to theirs, and per method the figure by data set.
PUBLISHED: dict[str, tuple[str, float, dict[str, dict[str, float]]]] = {
    "abs_rel": (
        "AbsRel (%)",
        100.0,
        {
            "Stable Diffusion 2 + E2E (published)": {
                "nyuv2": 5.4,
                "kitti": 9.6,
                "eth3d": 6.4,
                "scannet": 5.8,
                "diode": 30.3,
            },
            "Marigold + E2E (published)": {"nyuv2": 5.2, "kitti": 9.6, "eth3d": 6.2, "scannet": 5.8, "diode": 30.2},
            "GeoWizard + E2E (published)": {"nyuv2": 5.6, "kitti": 9.8, "eth3d": 6.3, "scannet": 5.9, "diode": 30.6},
        },
    ),
    "mean_angle_deg": (
        "mean angular error (degrees)",
        1.0,
        {
            "Stable Diffusion 2 + E2E (published)": {"nyuv2": 16.5, "scannet": 15.3, "ibims": 16.1, "sintel": 33.5},
            "Marigold + E2E (published)": {"nyuv2": 16.2, "scannet": 14.7, "ibims": 15.8, "sintel": 33.5},
            "GeoWizard + E2E (published)": {"nyuv2": 16.1, "scannet": 14.7, "ibims": 16.2, "sintel": 33.4},
        },
    ),
}
