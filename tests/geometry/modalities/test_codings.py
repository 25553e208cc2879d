import math

import numpy as np
import torch

from geometry.modalities import registered
from geometry.modalities.codings import OctahedralDirections

CODING = OctahedralDirections()
# Half a level in both coordinates, seen from the centre of a face of the octahedron.
WORST_DEG = math.degrees(math.sqrt(18) / 2 / 4095)


def directions(count, seed=0):
    """Random unit vectors, a third of them beside the folds of the octahedron, and its corners; (3,1,N)."""
    vectors = np.random.default_rng(seed).normal(size=(3, 1, count))
    vectors[2, :, : count // 6] *= 1e-4
    vectors[0, :, count // 6 : count // 3] *= 1e-4
    corners = np.concatenate([np.eye(3), -np.eye(3), np.ones((3, 1)), -np.ones((3, 1))], axis=1)[:, None]
    vectors = np.concatenate([corners, vectors], axis=2)
    return (vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32)


def decoded(codes):
    return CODING.decode(torch.from_numpy(codes)[None])[0].numpy()


def angles_deg(first, second):
    return np.degrees(2 * np.arcsin(np.linalg.norm(first.astype(np.float64) - second, axis=0) / 2))


def test_a_normal_comes_back_within_three_hundredths_of_a_degree():
    normals = directions(300_000)
    codes = CODING.encode(normals, np.ones(normals.shape[1:], bool))
    assert codes.dtype == np.int16 and codes.min() >= 0 and codes.max() <= 8190
    errors = angles_deg(decoded(codes), normals)
    assert WORST_DEG < 0.03 and errors.max() < WORST_DEG + 1e-4
    assert errors[0, :6].max() < 1e-6, "an axis is exact"


def test_as_float16_a_coded_normal_is_within_six_hundredths_of_a_degree():
    normals = directions(100_000)
    values = CODING.decode_image(CODING.encode(normals, np.ones(normals.shape[1:], bool)))
    assert values.dtype == np.float16
    assert (
        angles_deg(values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=0), normals).max() < 0.06
    )


def test_mirrored_codes_are_mirrored_normals_to_the_bit():
    normals = directions(10_000)
    codes = CODING.encode(normals, np.ones(normals.shape[1:], bool))
    mirrored = torch.from_numpy(codes.copy())
    CODING.mirror_(mirrored)
    expected = decoded(codes) * np.array([-1, 1, 1], np.float32)[:, None, None]
    np.testing.assert_array_equal(decoded(mirrored.numpy()), expected)


def test_unknown_normals_stay_unknown_also_mirrored():
    normals, known = directions(40), np.ones((1, 48), bool)
    known[0, :4] = False
    normals[:, 0, 4:6], normals[:, 0, 6:8] = np.nan, 0
    codes = torch.from_numpy(CODING.encode(normals, known))
    for _ in range(2):
        lengths = CODING.decode(codes[None])[0].norm(dim=0)
        assert (lengths[0, :8] == 0).all() and (lengths[0, 8:] > 0.999).all()
        CODING.mirror_(codes)


def test_any_number_is_a_unit_vector_or_unknown():
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    codes = torch.stack([every, every.flip(0)]).reshape(1, 2, 256, 256)
    lengths = CODING.decode(codes).norm(dim=1)
    assert torch.isfinite(lengths).all()
    inside = ((codes >= 0) & (codes <= 8190)).all(dim=1)
    torch.testing.assert_close(lengths, inside.float(), atol=1e-6, rtol=0)


def test_names_of_codings_are_no_names_of_formats():
    names = [modality.coding.name for modality in registered().values() if modality.coding]
    assert names and not {"jpg", "png", "npy", "blosc", "json"} & set(names)
