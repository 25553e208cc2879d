import cv2
import numpy as np
import pytest

from datamodules import Benchmarks
from datamodules.benchmarks import protocol
from datamodules.benchmarks.decoding import decode_npy
from datamodules.benchmarks.protocol import Benchmark, benchmarks_of, modalities_with_benchmarks
from geometry.batch import DatasetInfo


@pytest.fixture(autouse=True)
def known_before(monkeypatch):
    """What a test registers is forgotten at its end."""
    monkeypatch.setattr(protocol, "_REGISTERED", dict(protocol._REGISTERED))


def define_cellar(name="cellar", modality="depth", place=2):
    """A benchmark as a newcomer writes it: where the truth of an image is, and how it is read."""

    class Cellar(Benchmark):
        archives = ("cellar.tar",)
        folders = ("cellar",)
        image_pattern = r"rgb/\d+\.png"
        num_images = 7
        value_range = (0.5, 4.0)
        max_fit_size_px = 32

        def truth_of(self, image):
            return (image.replace("rgb/", "depth/").replace(".png", ".npy"),)

        def read_truth(self, files, paths):
            depth = decode_npy(files.read(paths[0]))
            return depth, (depth > 0.5) & (depth < 4)

    return type("Named", (Cellar,), {"name": name, "modality": modality, "place": place})


def test_a_benchmark_is_known_for_its_modality_as_soon_as_it_is_defined_at_its_place():
    define_cellar()
    define_cellar("attic", place=1)
    known = benchmarks_of("depth")
    assert [name for name in known if name in ("cellar", "attic")] == ["attic", "cellar"]
    assert known["cellar"].info == DatasetInfo("cellar", {"depth": (0.5, 4.0)}, 32, 7)
    assert not {"cellar", "attic"} & benchmarks_of("normals").keys()


def test_a_name_may_stand_for_another_benchmark_of_another_modality():
    depth, disparity = define_cellar(), define_cellar(modality="disparity")
    assert type(benchmarks_of("depth")["cellar"]) is depth and type(benchmarks_of("disparity")["cellar"]) is disparity
    assert "disparity" in modalities_with_benchmarks()


def test_a_class_without_a_name_is_a_step_on_the_way_to_others():
    before = dict(protocol._REGISTERED)
    type("Step", (Benchmark,), {"modality": "depth"})
    assert before == protocol._REGISTERED


def test_the_data_module_finds_reads_and_describes_a_new_benchmark(tmp_path):
    define_cellar()
    for folder in ("rgb", "depth"):
        (tmp_path / "cellar" / folder).mkdir(parents=True)
    depth = np.linspace(0, 5, 8 * 16, dtype=np.float32).reshape(8, 16)
    cv2.imwrite(str(tmp_path / "cellar/rgb/1.png"), np.full((8, 16, 3), 255, np.uint8))
    np.save(tmp_path / "cellar/depth/1.npy", depth)
    data = Benchmarks(str(tmp_path), ["cellar"], num_workers=0)
    data.setup("test")
    ((batch,),) = data.test_dataloader()
    assert (
        batch.key == ["rgb__1"] and batch.dataset == data.test_dataset_infos[0] == benchmarks_of("depth")["cellar"].info
    )
    expected = (depth > 0.5) & (depth < 4)
    assert np.array_equal(batch.targets["depth"].mask[0, 0].numpy(), expected)
    assert np.array_equal(batch.targets["depth"].values[0, 0].numpy()[expected], depth[expected])
    assert data.describe_test("cellar")["value_range"] == [0.5, 4.0]
