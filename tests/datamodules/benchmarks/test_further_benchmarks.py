"""The benchmarks with files of their own: what is read is what is stored, and bad files are named."""

import io
import struct
import zipfile

import numpy as np
import pytest
import scipy.io
import torch

from datamodules import Benchmarks
from datamodules.untrusted.mat_arrays import decode_mat
from geometry.errors import InputError
from geometry.modalities.albedo import Albedo
from lightning_modules import Depth
from lightning_modules.evaluation.scoring import Scorer, Tally
from lightning_modules.metrics.albedo import AlbedoError
from lightning_modules.metrics.benchmarks.choice import MetricChoice
from lightning_modules.tasks import Task
from tests.helpers.benchmark_archives import FURTHER_ARCHIVES, ibims_mat, png, random_image, write_further, write_zip
from tests.lightning_modules.metrics.benchmarks.edge_scenes import plane_scene


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def loaded(root, name, modality="depth"):
    data = Benchmarks(str(root), [name], modalities=[modality], num_workers=0)
    data.setup("test")
    (loader,) = data.test_dataloader()
    return list(loader), data


@pytest.mark.parametrize("name", ["sintel", "kitti_completion", "hypersim_edges"])
def test_depth_and_the_pixels_that_count_are_those_stored(tmp_path, generator, name):
    depth, known = write_further(tmp_path, name, generator)
    assert 0 < known.sum() < known.size
    (batch,), data = loaded(tmp_path, name)
    target = batch.targets["depth"]
    assert torch.equal(target.mask[0, 0], torch.from_numpy(known))
    assert torch.allclose(target.values[0, 0], torch.from_numpy(depth.astype(np.float32)), rtol=1e-6)
    assert not data.test_problems(name)


def test_a_perfect_copy_scores_perfectly_on_edges_of_hypersim(tmp_path, generator):
    write_further(tmp_path, "hypersim_edges", generator)
    (batch,), data = loaded(tmp_path, "hypersim_edges")
    scorer, tally = Scorer(Depth(), data.test_dataset_infos[0], MetricChoice(("ransac_log",))), Tally()
    assert scorer.score(tally, 0.1 * batch.targets["depth"].values - 1, batch)
    found = scorer.overall(tally)
    assert found["ransac_log/see3"] == pytest.approx(0, abs=1e-3) and found["ransac_log/delta1"] == 1


def test_albedo_is_linear_and_neither_black_nor_broken_pixels_count(tmp_path, generator):
    albedo, known = write_further(tmp_path, "hypersim", generator)
    (batch,), data = loaded(tmp_path, "hypersim", "albedo")
    target = batch.targets["albedo"]
    assert torch.equal(target.mask[0, 0], torch.from_numpy(known))
    expected = np.moveaxis(np.where(known[..., None], albedo, 0), 2, 0).astype(np.float32)
    assert torch.equal(target.values[0], torch.from_numpy(expected))
    scorer, tally = Scorer(Task(Albedo(), metrics=[AlbedoError()]), data.test_dataset_infos[0]), Tally()
    assert scorer.score(tally, target.values + 0.1, batch)
    assert scorer.overall(tally)["rmse"] == pytest.approx(0.1, abs=1e-6)


def test_pairs_of_points_are_scored_by_their_order_alone(tmp_path, generator):
    write_further(tmp_path, "da_2k", generator)
    (batch,), data = loaded(tmp_path, "da_2k")
    assert "no pair of points" in data.test_problems("da_2k")["images__indoor__unpaired"]
    scorer = Scorer(Depth(), data.test_dataset_infos[0])
    prediction = torch.zeros(1, 1, 36, 48)
    prediction[0, 0, 30, 40] = 0.5  # the first pair's farther point
    prediction[0, 0, 5, 47] = 0.5  # the second pair's nearer one
    for sign, accuracy in ((1, 0.5), (-1, 0.5)):
        tally = Tally()
        assert scorer.score(tally, sign * prediction, batch)
        assert scorer.overall(tally) == {"ordinal_error": 1 - accuracy, "ordinal_accuracy": accuracy}
    prediction[0, 0, 5, 47], prediction[0, 0, 10, 10] = 0, 0.2
    tally = Tally()
    scorer.score(tally, prediction, batch)
    assert scorer.overall(tally)["ordinal_accuracy"] == 1


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        ('{"images/a.png": [{"point1": [1, 2], "point2": [99, 4], "closer_point": "point1"}]}', "outside the image"),
        ('{"images/a.png": [{"point1": [1, 2], "point2": [3, 4], "closer_point": "point3"}]}', "not as DA-2K"),
        ('{"images/a.png": [{"point1": [1, 2], "closer_point": "point1"}]}', "not as DA-2K"),
        ("[1]", "no object of lists"),
        ("{", "cannot be read"),
    ],
)
def test_annotations_that_make_no_sense_are_named(tmp_path, generator, listed, problem):
    image = png(random_image(generator, (20, 30)))
    write_zip(tmp_path / "DA-2K.zip", {"DA-2K/annotations.json": listed, "DA-2K/images/a.png": image})
    batches, data = loaded(tmp_path, "da_2k")
    assert not batches and problem in data.test_problems("da_2k")["images__a"]


def test_depth_of_sintel_without_its_images_says_what_is_missing(tmp_path, generator):
    write_further(tmp_path, "sintel", generator)
    (tmp_path / "MPI-Sintel-training_images.zip").unlink()
    with pytest.raises(InputError, match=r"sintel: .*only a part of it: put MPI-Sintel-complete.zip or"):
        loaded(tmp_path, "sintel")


def test_both_parts_of_sintel_extracted_into_folders_are_found_too(tmp_path, generator):
    depth, _ = write_further(tmp_path, "sintel", generator)
    for archive in list(tmp_path.iterdir()):
        zipfile.ZipFile(archive).extractall(tmp_path / archive.stem)
        archive.unlink()
    (batch,), _ = loaded(tmp_path, "sintel")
    assert torch.equal(batch.targets["depth"].values[0, 0], torch.from_numpy(depth.astype(np.float32)))


@pytest.mark.parametrize("start", [b"", struct.pack("<fii", 202021.25, 1 << 30, 1 << 30), b"PIEH" + bytes(20)])
def test_damaged_depth_of_sintel_is_named(tmp_path, generator, start):
    write_further(tmp_path, "sintel", generator)
    write_zip(tmp_path / FURTHER_ARCHIVES["sintel"], {"training/depth/alley_1/frame_0001.dpt": start})
    batches, data = loaded(tmp_path, "sintel")
    assert not batches and "unreadable" in next(iter(data.test_problems("sintel").values()))


class TestIbims:
    @pytest.fixture
    def scene(self):
        pytest.importorskip("skimage")
        return plane_scene(0)

    def write(self, root, scene, **options):
        depth, _, _, planes, _, calib = scene
        edges = np.zeros(depth.shape, np.uint8)
        edges[30] = 1
        image = random_image(np.random.default_rng(1), depth.shape)
        content = ibims_mat(depth.numpy().astype(float), image, planes, calib, edges, **options)
        write_zip(root / "ibims1_core_mat.zip", {"ibims1_core_mat/corridor_01.mat": content})
        return image, edges, content

    @pytest.mark.parametrize("compress", [True, False])
    def test_image_depth_edges_planes_and_camera_are_those_stored(self, tmp_path, scene, compress):
        image, edges, _ = self.write(tmp_path, scene, compress=compress)
        depth, _, planes, _, camera, _ = scene
        (batch,), _ = loaded(tmp_path, "ibims")
        assert batch.key == ["corridor_01"]
        assert torch.equal(batch.image[0], torch.from_numpy(np.moveaxis(image, 2, 0)).float() / 255 * 2 - 1)
        assert torch.equal(batch.targets["depth"].values[0, 0], depth)
        assert torch.equal(batch.references["edges"].mask[0, 0], torch.from_numpy(edges > 0))
        assert torch.equal(batch.references["planes"].mask, planes.mask)
        assert torch.allclose(batch.references["planes"].values, planes.values)
        assert torch.allclose(batch.camera[0], camera.float())

    def test_what_is_masked_counts_neither_as_depth_nor_as_plane(self, tmp_path, scene):
        unknown = np.zeros(scene[0].shape, bool)
        unknown[:, :7] = True
        self.write(tmp_path, scene, unknown=unknown)
        (batch,), _ = loaded(tmp_path, "ibims")
        assert torch.equal(~batch.targets["depth"].mask[0, 0], torch.from_numpy(unknown))
        assert not batch.references["planes"].mask[0, 0, :, :7].any()

    def test_its_own_metrics_stand_beside_those_of_depth(self, tmp_path, scene):
        self.write(tmp_path, scene)
        (batch,), data = loaded(tmp_path, "ibims")
        scorer, tally = Scorer(Depth(), data.test_dataset_infos[0]), Tally()
        scorer.score(tally, batch.targets["depth"].values, batch)
        found = scorer.overall(tally)
        assert found["least_squares/pe_flat_cm"] == pytest.approx(0, abs=1e-4)
        assert found["least_squares/pe_angle_deg"] == pytest.approx(0, abs=1e-3)
        assert found["abs_rel"] < 1e-6 and "least_squares/dbe_acc" in found

    @pytest.mark.parametrize("damage", [lambda c: c[:200], lambda c: c[:100], lambda c: c[:300] + bytes(64) + c[364:]])
    def test_a_damaged_file_is_named(self, tmp_path, scene, damage):
        *_, content = self.write(tmp_path, scene)
        write_zip(tmp_path / "ibims1_core_mat.zip", {"ibims1_core_mat/lab_02.mat": damage(content)})
        batches, data = loaded(tmp_path, "ibims")
        assert not batches and "unreadable" in data.test_problems("ibims")["lab_02"]

    def test_other_variables_are_named(self, tmp_path, scene):
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"depth": np.ones((2, 2))})
        write_zip(tmp_path / "ibims1_core_mat.zip", {"lab_02.mat": buffer.getvalue()})
        assert "no structure named data" in loaded(tmp_path, "ibims")[1].test_problems("ibims")["lab_02"]


def test_a_matlab_file_that_unpacks_to_more_than_it_may_is_refused():
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"zeros": np.zeros(1 << 20)}, do_compression=True)
    content = buffer.getvalue()
    assert decode_mat(content)["zeros"].size == 1 << 20
    with pytest.raises(ValueError, match="unpacks to more than 1000000 bytes"):
        decode_mat(content, max_bytes=1_000_000)
