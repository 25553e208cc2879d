"""The ray caster's geometry is exact, and its files read back as what was rendered."""

import hashlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.sources.hypersim import Hypersim
from datamodules.sources.virtual_kitti import VirtualKitti
from geometry import align_scale_shift, camera_from_intrinsics, normals_from_depth, pixel_rays
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti
from synthetic_scenes.command import main
from synthetic_scenes.materials import Material
from synthetic_scenes.primitives import Box, Cylinder, Ground, Opening, Room, Sphere, vector
from synthetic_scenes.render import Light, Pose, Scene, look, render
from synthetic_scenes.rooms import ROOMS, STYLES

WHITE = [Material((0.8, 0.8, 0.8), grain=0)]
ORIGIN = Pose(np.zeros(3, np.float32), look(0, 0, 0))
ROOM_SIZE = (48, 64)


def rays(height=33, width=33, focal_length_px=40.0):
    intrinsics = torch.tensor([[focal_length_px, 0, width / 2], [0, focal_length_px, height / 2], [0, 0, 1]])
    return pixel_rays(camera_from_intrinsics(intrinsics), height, width).numpy().astype(np.float32)


def scene(*shapes, lights=()):
    return Scene(list(shapes), list(lights), vector(0.3, 0.3, 0.3), np.ones((2, 3), np.float32))


def test_a_ball_has_the_depth_and_normals_of_a_ball():
    frame = render(scene(Sphere(WHITE, vector(0, 0, -5), radius_m=1.0)), ORIGIN, rays())
    assert frame.depth[16, 16] == pytest.approx(4.0, abs=1e-5)
    np.testing.assert_allclose(frame.normals[16, 16], [0, 0, 1], atol=1e-6)
    hit = frame.entity_id >= 0
    points = np.moveaxis(rays() * frame.depth, 0, -1)[hit]
    np.testing.assert_allclose(np.linalg.norm(points - [0, 0, -5], axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(frame.normals[hit], points - [0, 0, -5], atol=1e-4)
    assert np.isinf(frame.depth[0, 0]) and not frame.normals[0, 0].any()


def test_depth_is_planar_so_a_wall_seen_head_on_has_one_depth():
    frame = render(scene(Box(WHITE, vector(0, 0, -4.5), half_size=vector(9, 9, 0.5))), ORIGIN, rays())
    np.testing.assert_allclose(frame.depth, 4, rtol=1e-6)
    np.testing.assert_allclose(frame.normals, np.broadcast_to([0, 0, 1], (33, 33, 3)), atol=1e-6)


def test_pitch_turns_the_floor_normal_into_the_camera_frame():
    pose = Pose(vector(0, 2, 0), look(yaw_deg=0, pitch_deg=-30, roll_deg=0))
    frame = render(scene(Ground(WHITE)), pose, rays())
    # Looking 30 degrees down, the floor's normal leans toward the viewer: (0, cos 30, sin 30).
    np.testing.assert_allclose(frame.normals[16, 16], [0, np.cos(np.pi / 6), 0.5], atol=1e-5)
    assert frame.depth[16, 16] == pytest.approx(2 / np.sin(np.pi / 6), rel=1e-5)


def test_yaw_turns_to_the_left():
    frame = render(
        scene(Sphere(WHITE, vector(-5, 0, 0), radius_m=1)), Pose(np.zeros(3, np.float32), look(90, 0, 0)), rays()
    )
    assert frame.depth[16, 16] == pytest.approx(4, rel=1e-4)


def test_a_cylinder_has_a_round_side_and_flat_caps():
    upright = Cylinder(WHITE, vector(0, 0, -3), radius_m=0.5, half_height_m=0.4)
    frame = render(scene(upright), ORIGIN, rays())
    assert frame.depth[16, 16] == pytest.approx(2.5, rel=1e-5)
    above = Pose(vector(0, 4, -3), look(0, -90, 0))
    from_above = render(scene(upright), above, rays())
    assert from_above.depth[16, 16] == pytest.approx(3.6, rel=1e-5)
    np.testing.assert_allclose(from_above.normals[16, 16], [0, 0, 1], atol=1e-5)


def test_nothing_is_seen_through_an_opening():
    room = Room(WHITE, half_size=vector(4, 4, 4), openings=[Opening(4, (-1, 1), (-1, 1))])
    frame = render(scene(room), ORIGIN, rays())
    assert frame.entity_id[16, 16] == -1 and np.isinf(frame.depth[16, 16])
    assert frame.entity_id[0, 0] == 0 and frame.depth[0, 0] == pytest.approx(4, rel=1e-5)


def test_shapes_cast_shadows_from_lamps_and_from_the_sun():
    floor, ball = Ground(WHITE), Sphere(WHITE, vector(0, 1, -4), radius_m=0.5)
    pose = Pose(vector(0, 3, -4), look(0, -90, 0))
    for light in (
        Light(vector(9, 9, 9), position=vector(-1.5, 2.5, -4)),
        Light(vector(1, 1, 1), direction=vector(-0.6, 0.8, 0)),
    ):
        lit = render(scene(floor, lights=[light]), pose, rays(65, 65)).color
        shadowed = render(scene(floor, ball, lights=[light]), pose, rays(65, 65))
        darker = (shadowed.color < 0.6 * lit).all(axis=-1) & (shadowed.entity_id == 0)
        assert darker.any()


def test_a_lamp_that_reaches_nothing_is_no_error():
    shade = Box(WHITE, vector(0, 0, -3), half_size=vector(5, 5, 0.1))
    lamp = Light(vector(1, 1, 1), position=vector(0, 0, -9))
    sun = Light(vector(1, 1, 1), direction=vector(0, 0, -1))
    behind = np.array([[0.0], [0.0], [-1.0]], np.float32)
    for light in (lamp, sun):
        # The first shape hides the only point, so that the second is asked about none.
        assert light.is_hidden(behind, [shade, Sphere(WHITE, vector(0, 9, 0))]).tolist() == [True]
        assert light.is_hidden(behind[:, :0], [shade]).shape == (0,)


def test_a_flash_makes_near_things_bright_and_changes_no_geometry(monkeypatch):
    monkeypatch.setitem(STYLES, "flashed", replace(ROOMS, flash=2.0))
    dark = SyntheticHypersim(size=ROOM_SIZE).frame(0, 0)
    lit = SyntheticHypersim(size=ROOM_SIZE, style="flashed").frame(0, 0)
    np.testing.assert_array_equal(lit.depth, dark.depth)
    gain = (lit.color - dark.color).mean(axis=-1)
    near, far = np.quantile(lit.depth, [0.2, 0.8])
    assert gain[lit.depth < near].mean() > 1.5 * gain[lit.depth > far].mean() > 0


def test_depth_and_normals_of_rendered_scenes_agree():
    rooms, streets = SyntheticHypersim(size=(96, 128), tilt_shift_fraction=1), SyntheticVirtualKitti(size=(96, 320))
    cases = [(rooms.frame(scene, 0), rooms.rays(scene)) for scene in range(3)]
    cases += [(streets.frame("Scene01", "clone", 0), streets.rays())]
    for frame, directions in cases:
        depth = torch.from_numpy(frame.depth)[None]
        valid = torch.isfinite(depth) & (depth < 60)
        computed, mask = normals_from_depth(torch.where(valid, depth, 0), torch.from_numpy(directions), valid, 0.0)
        cosine = (computed.permute(1, 2, 0) * torch.from_numpy(frame.normals)).sum(-1)[mask[0]]
        assert torch.rad2deg(cosine.clamp(-1, 1).acos()).median() < 0.5


def test_the_row_number_does_not_give_the_depth_away():
    """A model that knows only the mean depth of each row must do badly, or the data teaches nothing else."""
    depth = np.stack([SyntheticHypersim(size=ROOM_SIZE).frame(scene, 0).depth for scene in range(12)])
    depth = torch.from_numpy(np.where(np.isfinite(depth), depth, 0))[:, None]
    valid = depth > 0
    by_row = (depth.sum((0, 3)) / valid.sum((0, 3)).clamp(min=1)).reshape(1, 1, -1, 1).expand_as(depth)
    scale, shift = align_scale_shift(by_row, depth, valid)
    error = ((by_row * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1) - depth).abs() / depth)[valid].mean()
    assert error > 0.12


def test_rooms_read_back_as_they_were_rendered(tmp_path):
    rooms = SyntheticHypersim(size=ROOM_SIZE, frames_per_scene=1, tilt_shift_fraction=0.5, seed=3)
    rooms.write(tmp_path, frames=6, progress=False)
    raw = Hypersim(tmp_path, ROOM_SIZE)
    listed = raw.list_frames()
    assert {split: len(members) for split, members in listed.splits.items()} == {"train": 5, "val": 1}
    tilted, holes, inward = 0, 0, 0
    for number, raw_frame in enumerate([*listed.splits["train"], *listed.splits["val"]]):
        rendered, sample = rooms.frame(number, 0), raw.load(raw_frame)
        hit = rendered.entity_id >= 0
        np.testing.assert_array_equal(sample.targets["depth"] > 0, hit)
        error = np.abs(sample.targets["depth"] - rendered.depth)[hit]
        assert (error <= np.maximum(1e-3, 1e-3 * rendered.depth[hit])).all()
        cosine = (sample.targets["normals"].transpose(1, 2, 0) * rendered.normals).sum(-1)[hit]
        assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1
        tilted += rooms.camera_matrix(number)[2, 1] != 0
        holes += (~hit).any()
        inward += rendered.inward.any()
    assert tilted and holes and inward, "the test must see tilted cameras, holes and inward normals"


def test_streets_read_back_as_they_were_rendered(tmp_path):
    streets = SyntheticVirtualKitti(size=(40, 128), conditions=("fog",), cameras=(0, 1))
    streets.write(tmp_path, frames=2, progress=False)
    raw = VirtualKitti(tmp_path, crop=(32, 112))
    listed = raw.list_frames()
    depths = []
    for raw_frame in [frame for members in listed.splits.values() for frame in members]:
        rendered = streets.frame(raw_frame.scene, raw_frame.condition, raw_frame.number, raw_frame.camera)
        depth = rendered.depth[8:, 8:120]
        sample, valid = raw.load(raw_frame), depth < 79.9
        assert (np.abs(sample.targets["depth"] - depth)[valid] <= 0.0051).all()
        assert not sample.targets["depth"][depth > 80.1].any()
        depths.append(sample.targets["depth"])
    assert len(depths) == 2 and not np.array_equal(*depths), "two cameras see the street from two places"


@pytest.mark.parametrize("layout", ["hypersim", "virtual_kitti"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, layout, capsys):
    def digest(name, *options):
        command = [layout, "--out", str(tmp_path / name), "--frames", "2", "--size", "40", "128", *options]
        assert main(command) == 0
        files = sorted(path for path in (tmp_path / name).rglob("*.*") if path.is_file() and path.suffix != ".csv")
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    first = digest("first")
    assert digest("again", "--workers", "2") == first
    assert digest("other", "--seed", "1") != first


def test_old_scenes_are_never_mixed_with_new_ones(tmp_path, capsys):
    command = ["hypersim", "--out", str(tmp_path), "--frames", "1", "--size", "24", "32"]
    assert main(command) == 0
    assert main(command) == 2
    assert "ai_001_001" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"--out": "FILE"},
        {"--frames": "1000000000000"},
        {"--seed": "-1"},
        {"--size": "-1 -1"},
        {"--size": "0 32"},
        {"--size": "1000000 1000000"},
        {"--antialias": "0"},
        {"--workers": "1000000000"},
        {"--val_fraction": "nan"},
        {"--tilt_shift_fraction": "-1.5"},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_one_line_and_write_nothing(tmp_path, capsys, wrong):
    file = tmp_path / "file"
    file.touch()
    options = {"--out": str(tmp_path / "out"), "--frames": "1", "--size": "24 32"} | wrong
    words = [word for name, value in options.items() for word in (name, *value.replace("FILE", str(file)).split())]
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["hypersim", *words]))
    told = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert next(iter(wrong)).lstrip("-").replace("-", "_") in told and "\n" not in told
    assert list(tmp_path.iterdir()) == [file]
