"""Every benchmark's rule against a transcription in NumPy that reads the files by itself, in float64."""

import io
import math

import cv2
import numpy as np
import pytest
import torch

from datamodules.benchmarks import eth3d
from datamodules.benchmarks.datamodule import Benchmarks
from lightning_modules import Depth, Normals
from lightning_modules.evaluation.scoring import Scorer, Tally
from tests.depth_metrics import depth_metrics, fit_scale_and_shift
from tests.helpers.benchmark_archives import (
    DEPTH_ARCHIVES,
    ETH3D_SIZE,
    needs_samples,
    real_members,
    write_depth_archive,
    write_normals,
    write_tar,
)

FIT_SIZE = 24  # 0.4 of the miniature's longest side, as ETH3D's 1024 is of 6048 in the small


@pytest.fixture(autouse=True)
def small_eth3d(monkeypatch):
    monkeypatch.setattr(eth3d, "_SIZE", ETH3D_SIZE)
    monkeypatch.setattr(eth3d, "_SIZE_RANSAC", (20, 30))
    monkeypatch.setattr(eth3d.Eth3dDepth, "max_fit_size_px", FIT_SIZE)


def truth_by_hand(name, members, key):
    """Depth in metres, mask of what counts, nearest and farthest depth, from the bytes of the archive."""
    files = {path.rsplit(".", 1)[0].replace("/", "__"): path for path in members}
    image = files[key]

    def grey(path):
        return cv2.imdecode(np.frombuffer(members[path], np.uint8), cv2.IMREAD_UNCHANGED).astype(np.float64)

    if name == "nyuv2":
        depth = grey(image.replace("rgb_", "depth_")) / 1000
        mask = (depth > 1e-3) & (depth < 10)
        rows, columns = np.indices(depth.shape)
        return depth, mask & (rows >= 45) & (rows < 471) & (columns >= 41) & (columns < 601), 1e-3, 10
    if name == "scannet":
        depth = grey(image.replace("color", "depth").replace("jpg", "png")) / 1000
        return depth, (depth > 1e-3) & (depth < 10), 1e-3, 10
    if name == "kitti":
        _, drive, _, _, file = image.split("/")
        depth = grey(f"{drive}/proj_depth/groundtruth/image_02/{file}") / 256
        depth = depth[375 - 352 :, 13 : 13 + 1216]
        eigen = np.zeros(depth.shape, bool)
        eigen[117:321, 43:1172] = True
        return depth, eigen & (depth > 1e-5) & (depth < 80), 1e-5, 80
    if name == "eth3d":
        path = image.replace("rgb/office/images", "depth/office_dslr_depth/office/ground_truth_depth")
        depth = np.frombuffer(members[path], "<f4").astype(np.float64).reshape(ETH3D_SIZE)
        return depth, np.isfinite(depth) & (depth > 1e-5), 1e-5, math.inf
    depth = np.load(io.BytesIO(members[image.replace(".png", "_depth.npy")]))[..., 0].astype(np.float64)
    return depth, np.load(io.BytesIO(members[image.replace(".png", "_depth_mask.npy")])) == 1, 0.6, 350


def scores_by_hand(prediction, depth, mask, near, far, fit_size=None):
    prediction = prediction.astype(np.float64)
    rows, columns = (np.arange(side) for side in depth.shape)
    if fit_size is not None and max(depth.shape) > fit_size:
        step = max(depth.shape) / fit_size
        rows, columns = (np.floor(np.arange(int(side / step)) * step).astype(int) for side in depth.shape)
    picked = np.ix_(rows, columns)
    known = mask[picked]
    fit = fit_scale_and_shift(prediction[picked][known], depth[picked][known])
    return depth_metrics(prediction[mask], depth[mask], near, far, fit)


def wild_prediction(depth, seed):
    """A noisy affine copy with some values far outside, some negative and some tiny."""
    generator = np.random.default_rng(seed)
    prediction = 0.1 * np.nan_to_num(depth, posinf=0) - 0.5 + 0.1 * generator.normal(size=depth.shape)
    kind = generator.random(depth.shape)
    prediction = np.where(kind < 0.003, -3.0, np.where(kind > 0.997, 8.0, prediction))
    return np.where(np.abs(kind - 0.5) < 0.01, 1e-9, prediction).astype(np.float32)


def scored(root, name, task, predict):
    """Score ``predict(key, batch)`` for every sample of a benchmark; return the tally and the overall scores."""
    data = Benchmarks(str(root), [name], modalities=[task.modality.name], num_workers=0)
    data.setup("test")
    scorer = Scorer(task, data.test_dataset_infos[0])
    tally = Tally()
    for batch in data.test_dataloader()[0]:
        scorer.score(tally, torch.as_tensor(predict(batch.key[0], batch)), batch)
    return tally, scorer.overall(tally)


def compare_with_transcription(root, name, members):
    def predict(key, batch):
        depth = truth_by_hand(name, members, key)[0]
        return wild_prediction(depth, len(key) + int(key[-1]))[None, None]

    tally, overall = scored(root, name, Depth(), predict)
    assert len(tally.rows) == 3
    expected = []
    for key, row in tally.rows.items():
        depth, mask, near, far = truth_by_hand(name, members, key)
        prediction = wild_prediction(depth, len(key) + int(key[-1]))
        by_hand = scores_by_hand(prediction, depth, mask, near, far, FIT_SIZE if name == "eth3d" else None)
        assert {metric: row[metric] for metric in by_hand} == pytest.approx(by_hand, rel=1e-6)
        expected.append(by_hand)
    means = {metric: np.mean([image[metric] for image in expected]) for metric in expected[0]}
    assert {metric: overall[metric] for metric in means} == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("name", DEPTH_ARCHIVES)
def test_depth_scores_follow_the_published_rules_to_six_digits(tmp_path, name):
    low = 0.3 if name == "diode" else 1.0  # below DIODE's range, but its mask alone decides
    compare_with_transcription(tmp_path, name, write_depth_archive(tmp_path, name, low=low))


@needs_samples
@pytest.mark.parametrize("name", ["nyuv2", "kitti"])
def test_real_frames_are_scored_by_the_published_rules(tmp_path, name):
    members = real_members(name)
    write_tar(tmp_path / DEPTH_ARCHIVES[name], members)
    compare_with_transcription(tmp_path, name, members)


@pytest.mark.parametrize("name", DEPTH_ARCHIVES)
@pytest.mark.parametrize("scale", [0.02, -0.3])
def test_a_perfect_affine_copy_is_perfect_on_every_benchmark(tmp_path, name, scale):
    write_depth_archive(tmp_path, name, num_samples=1)

    def predict(key, batch):
        return torch.where(batch.targets["depth"].mask, scale * batch.targets["depth"].values + 0.5, 0)

    _, overall = scored(tmp_path, name, Depth(), predict)
    assert overall["abs_rel"] < 1e-5
    assert overall["delta1"] == 1


def rotated(normals, degrees):
    across = np.cross(normals, np.roll(normals, 1, axis=2))
    across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1e-12)
    return math.cos(math.radians(degrees)) * normals + math.sin(math.radians(degrees)) * across


@pytest.mark.parametrize("name", ["nyuv2", "scannet", "ibims", "sintel"])
def test_normals_are_pooled_as_dsine_does_and_averaged_as_marigold_does(tmp_path, name):
    truths = write_normals(tmp_path, name)
    noise = {key: np.random.default_rng(len(key)).normal(size=(*mask.shape, 3)) for key, (_, mask) in truths.items()}

    def predict(key, batch):
        prediction = truths[key][0] + (0.1 if key.endswith("1_img") else 0.7) * noise[key]
        return np.moveaxis(prediction, 2, 0)[None]

    _, overall = scored(tmp_path, name, Normals(), predict)
    angles = []
    for key, (truth, mask) in truths.items():
        prediction = np.moveaxis(predict(key, None)[0], 0, 2)
        cosine = (prediction * truth).sum(axis=2) / np.linalg.norm(prediction, axis=2)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[mask])
    pooled = np.concatenate(angles)
    expected = {
        "mean_angle_deg": pooled.mean(),
        "rmse_angle_deg": np.sqrt((pooled**2).mean()),
        "mean_angle_deg_per_image": np.mean([image.mean() for image in angles]),
        **{
            f"share_under_{limit:g}_deg".replace(".", "_"): np.mean(pooled < limit)
            for limit in (5, 7.5, 11.25, 22.5, 30)
        },
    }
    assert {metric: overall[metric] for metric in expected} == pytest.approx(expected, rel=1e-6)
    assert overall["median_angle_deg"] == pytest.approx(np.median(pooled), abs=1e-3)
    assert abs(expected["mean_angle_deg"] - expected["mean_angle_deg_per_image"]) > 1e-4


@pytest.mark.parametrize("name", ["nyuv2", "scannet", "ibims", "sintel"])
@pytest.mark.parametrize("degrees", [0, 10])
def test_perfect_normals_score_zero_and_a_rotation_its_angle(tmp_path, name, degrees):
    truths = write_normals(tmp_path, name, num_samples=1)

    def predict(key, batch):
        return np.moveaxis(rotated(truths[key][0], degrees), 2, 0)[None]

    _, overall = scored(tmp_path, name, Normals(), predict)
    assert overall["mean_angle_deg"] == pytest.approx(degrees, abs=1e-4)
    assert overall["rmse_angle_deg"] == pytest.approx(degrees, abs=1e-4)
    assert overall["median_angle_deg"] == pytest.approx(degrees, abs=1e-3)
    assert overall["mean_angle_deg_per_image"] == pytest.approx(degrees, abs=1e-4)
