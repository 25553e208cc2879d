"""Panoramas of a room whose distances and normals are known: exact views, put together, are the truth."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from geometry.camera import camera_from_intrinsics, pixel_rays
from geometry.modalities import Depth, Normals
from geometry.panorama import panorama_directions, view_directions
from lightning_modules.inference.panorama import PanoramaPredictor
from tests.lightning_modules.inference.runs import make_run, photo, predict

pytestmark = pytest.mark.filterwarnings("ignore")

# Walls at left and right, floor and ceiling, front and back, in metres from the camera.
LOW, HIGH = torch.tensor([-2.0, -1.2, -3.5]).double(), torch.tensor([2.6, 1.5, 2.2]).double()
SIZE = (96, 192)


def room(directions):
    """Distance along unit vectors (3,...) to the walls of the room, and their normals (3,...)."""
    ends = torch.where(directions > 0, HIGH[:, None, None], LOW[:, None, None])
    to_walls = ends / torch.where(directions.abs() < 1e-12, 1e-12, directions)
    distance, axis = to_walls.min(dim=0)
    normals = torch.zeros_like(directions).scatter_(0, axis[None], -torch.sign(directions).gather(0, axis[None]))
    return distance, normals


class KnowsRoom(PanoramaPredictor):
    """Predicts the views of the room exactly, depth with a scale and a shift of each view's own."""

    def __init__(self, modality, seed=0, noise=0.0):
        self.modality = modality
        self.generator = np.random.default_rng(seed)
        self.noise = noise

    def _views(self, image, rotations):
        size = round(image.shape[1] / np.pi) * 2
        return [self._view(rotation, size) for rotation in rotations]

    def _view(self, rotation, size):
        directions = view_directions(rotation, size)
        distance, normals = room(directions)
        if isinstance(self.modality, Normals):
            return torch.einsum("ji,jhw->ihw", rotation, normals).float()
        half = size / 2
        pinhole = torch.tensor([[half, 0, half], [0, half, half], [0, 0, 1]], dtype=torch.float64)
        depth = distance / pixel_rays(camera_from_intrinsics(pinhole), size, size).norm(dim=0)
        space = self.modality.parameterization
        near, far = (
            float(depth.min()) * self.generator.uniform(0.4, 1),
            float(depth.max()) * self.generator.uniform(1, 2),
        )
        low, high = (float(space.apply(torch.tensor(end).double())) for end in (near, far))
        share = (space.apply(depth) - low) / (high - low)
        share = share + self.noise * torch.from_numpy(self.generator.normal(size=share.shape))
        return self.modality.from_affine(share.clamp(0, 1))[None].float()


@pytest.mark.parametrize("parameterization", ["linear", "log", "sqrt", "disparity"])
def test_exact_views_of_any_scale_and_shift_become_the_true_distances_up_to_one_scale(parameterization):
    found = KnowsRoom(Depth(parameterization)).predict([np.zeros((*SIZE, 3), np.uint8)])[0]
    truth, _ = room(panorama_directions(*SIZE))
    assert found.shape == SIZE and found.dtype == np.float32 and found.max() == 1
    ratio = torch.from_numpy(found).double() / truth
    relative = (ratio / ratio.median() - 1).abs()
    # What is left is interpolation, at the edges of the room above all.
    assert float(relative.median()) < 1e-3 and float(relative.quantile(0.99)) < 0.01 and float(relative.max()) < 0.05


def test_left_and_right_edge_meet_without_a_seam():
    found = KnowsRoom(Depth()).predict([np.zeros((*SIZE, 3), np.uint8)])[0]
    steps = np.abs(np.diff(found, axis=1))
    seam = np.abs(found[:, 0] - found[:, -1])
    assert seam.max() <= 1.5 * steps.max() and seam.mean() < 1.5 * steps.mean()


def test_noise_in_the_views_does_not_make_them_disagree_by_more():
    found = KnowsRoom(Depth(), noise=0.02).predict([np.zeros((*SIZE, 3), np.uint8)])[0]
    truth, _ = room(panorama_directions(*SIZE))
    ratio = torch.from_numpy(found).double() / truth
    assert float((ratio / ratio.median() - 1).abs().mean()) < 0.08


def test_normals_of_views_are_turned_into_one_frame():
    found = KnowsRoom(Normals()).predict([np.zeros((*SIZE, 3), np.uint8)])[0]
    _, truth = room(panorama_directions(*SIZE))
    cosine = (torch.from_numpy(found).movedim(-1, 0).double() * truth).sum(dim=0).clamp(-1, 1)
    angle = torch.rad2deg(torch.acos(cosine))
    assert np.abs(np.linalg.norm(found, axis=-1) - 1).max() < 1e-5
    assert float(angle.median()) < 0.1 and float((angle < 1).double().mean()) > 0.85


def test_the_command_writes_ray_distances_and_says_so(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    Image.fromarray(photo(48, 96)).save(tmp_path / "hall.png")
    Image.fromarray(photo(48, 60)).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    words = (tmp_path / "hall.png", tmp_path / "photo.png", "--panorama", "--ckpt_path", run, "--output", out)
    assert predict(*words) == 1
    captured = capsys.readouterr()
    assert "photo.png: an image of 60x48 pixels is no equirectangular panorama" in captured.err
    assert "1 predicted, 1 failed" in captured.out and "ray distance in" in captured.out
    found = np.load(out / "hall_ray_distance.npy")
    exact = cv2.imread(str(out / "hall_ray_distance.png"), cv2.IMREAD_UNCHANGED)
    assert (
        found.shape == (48, 96) and 0 < found.min() and found.max() == 1 and np.abs(exact / 65535 - found).max() < 1e-5
    )
    assert sorted(file.name for file in out.iterdir()) == [
        "hall_ray_distance.npy",
        "hall_ray_distance.png",
        "hall_ray_distance_color.png",
    ]
    for message, *more in (
        ("--point_cloud is of planar depth", "--point_cloud"),
        ("--uncertainty is of planar depth", "--uncertainty", "flip"),
        ("--panorama and --video", "--video"),
    ):
        assert predict(*words, *more) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_normals_of_a_panorama_are_unit_vectors(tmp_path):
    run = make_run(tmp_path / "run", task="Normals")
    Image.fromarray(photo(48, 96)).save(tmp_path / "hall.png")
    assert predict(tmp_path / "hall.png", "--panorama", "--ckpt_path", run, "--output", tmp_path / "out") == 0
    found = np.load(tmp_path / "out/hall_normals.npy")
    assert found.shape == (48, 96, 3) and np.abs(np.linalg.norm(found, axis=-1) - 1).max() < 1e-5
