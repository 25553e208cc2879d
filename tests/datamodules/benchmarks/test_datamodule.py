import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datamodules import Benchmarks
from datamodules.benchmarks import import_all
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.loader import image_tensor
from datamodules.benchmarks.protocol import benchmarks_of, modalities_with_benchmarks
from geometry.errors import InputError
from tests.helpers.benchmark_archives import (
    DEPTH_ARCHIVES,
    FURTHER_ARCHIVES,
    SAMPLES,
    depth_members,
    exr,
    needs_samples,
    npy,
    png,
    random_image,
    random_normals,
    write_depth_archive,
    write_folder,
    write_normals,
)
from tests.helpers.tiny import tensors_of

import_all()
ALL = [type(found) for name in modalities_with_benchmarks() for found in benchmarks_of(name).values()]
LISTS = {
    ("nyuv2", "depth"): ("nyu_depth_test.txt", 654),
    ("kitti", "depth"): ("kitti_depth_eigen_test.txt", 697),
    ("eth3d", "depth"): ("eth3d_depth.txt", 454),
    ("scannet", "depth"): ("scannet_depth_val_800.txt", 800),
    ("diode", "depth"): ("diode_depth_val_all.txt", 771),
    ("scannet", "normals"): ("scannet_normals.txt", 300),
    ("ibims", "normals"): ("ibims_normals.txt", 100),
    ("sintel", "normals"): ("sintel_normals.txt", 627),
}


def batches(**options):
    data = Benchmarks(num_workers=0, **options)
    data.setup("test")
    return [list(loader) for loader in data.test_dataloader()], data


@needs_samples
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.name}-{kind.modality}")
def test_the_samples_found_in_an_archive_are_those_of_the_published_list(kind):
    if (kind.name, kind.modality) not in LISTS:
        pytest.skip("no list of this data set is among the samples")
    name, count = LISTS[kind.name, kind.modality]
    lines = [line.split() for line in (SAMPLES / "file_lists" / name).read_text().splitlines()]
    files = BenchmarkFiles(Path("archive.tar"), {path: (0, 0) for line in lines for path in line if path[0].isalnum()})
    derived = {entry.image: entry.truth for entry in kind().entries(files)}
    assert len(derived) == count
    for image, *truth in lines:
        expected = tuple(truth[: len(derived[image])])
        if kind.modality == "normals":
            expected = tuple(path.replace(".npy", Path(kind.truth[0]).suffix) for path in expected)
        assert derived[image] == expected or expected == ("None",)
    if kind.modality == "depth":
        assert sum(line[1] != "None" for line in lines) == kind.num_images


def test_a_file_list_decides_which_samples_count_and_names_those_without_depth(tmp_path):
    generator = np.random.default_rng(0)
    members = {f"unpacked/{name}": data for name, data in depth_members("kitti", 5, generator).items()}
    image, depth = members
    other = image.replace("0005", "0006")
    members[other] = members[image]
    write_folder(tmp_path / "kitti", members)
    inside = [path.removeprefix("unpacked/") for path in (image, depth, other)]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{inside[0]} {inside[1]} 721.5377\n{inside[2]} None 721.5377\n\n")
    (found,), data = batches(root=str(tmp_path), benchmarks=["kitti"], file_lists={"kitti": str(listed)})
    assert [batch.key[0][-10:] for batch in found] == ["0000000005"]
    assert list(data.test_problems("kitti").values()) == ["no ground truth (None)"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{0}", "line 1: behind the image .* there must be 1 path of its ground truth, between blanks, not 0"),
        ("{0} {1}\n\n{0} {1}", "has the sample .* twice"),
        ("{0},{1},721.5", "line 1: behind the image"),
        ("other/a.png b.png", "names no image that .* holds: not even its first, other/a.png"),
        ("\n", "the list is empty"),
    ],
)
def test_a_file_list_that_cannot_be_used_is_an_error(tmp_path, lines, message):
    image, depth = write_depth_archive(tmp_path, "kitti", num_samples=1)
    listed = tmp_path / "list.txt"
    listed.write_text(lines.format(image, depth))
    with pytest.raises(InputError, match=message):
        batches(root=str(tmp_path), file_lists={"kitti": str(listed)})


def test_a_list_for_diode_names_the_mask_too(tmp_path):
    paths = list(write_depth_archive(tmp_path, "diode", num_samples=1))
    listed = tmp_path / "list.txt"
    listed.write_text(" ".join(paths[:2]))
    with pytest.raises(InputError, match="there must be 2 paths of its ground truth, between blanks, not 1"):
        batches(root=str(tmp_path), file_lists={"diode": str(listed)})
    listed.write_text(" ".join(paths) + f"\n{paths[0].replace('_001_', '_009_')} {' '.join(paths[1:])}\n")
    (found,), data = batches(root=str(tmp_path), file_lists={"diode": str(listed)})
    assert len(found) == 1
    ((key, reason),) = data.test_problems("diode").items()
    assert "_009_" in key and "is missing" in reason


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_list_may_have_a_byte_order_mark(tmp_path, end):
    image, depth = write_depth_archive(tmp_path, "kitti", num_samples=1)
    (tmp_path / "list.txt").write_text(f"\ufeff{image} {depth}{end}", newline="")
    (found,), _ = batches(root=str(tmp_path), file_lists={"kitti": str(tmp_path / "list.txt")})
    assert len(found) == 1


def test_damaged_samples_are_counted_and_end_nothing(tmp_path):
    generator = np.random.default_rng(0)
    normals, _ = random_normals(generator, (20, 30))
    image, whole = png(random_image(generator, (20, 30))), exr(normals, tmp_path)
    members = {f"lab_0{number}_img.png": image for number in (1, 2, 3)}
    members |= {"lab_01_normal.exr": whole, "lab_02_normal.exr": whole[: len(whole) // 2], "lab_03_normal.exr": b"no"}
    write_folder(tmp_path / "ibims", members)
    (found,), data = batches(root=str(tmp_path), modalities=["normals"])
    assert [batch.key for batch in found] == [["lab_01_img"]]
    assert set(data.test_problems("ibims")) == {"lab_02_img", "lab_03_img"}
    assert all(reason.startswith("unreadable (it ") for reason in data.test_problems("ibims").values())


def test_a_damaged_jpeg_is_not_scored_as_if_it_were_whole(tmp_path):
    members = depth_members("scannet", 1, np.random.default_rng(0))
    image = next(iter(members))
    damaged = bytearray(members[image])
    damaged[len(damaged) // 2 : len(damaged) // 2 + 1024] = bytes(1024)
    write_folder(tmp_path / "scannet", members | {image: bytes(damaged)})
    (found,), data = batches(root=str(tmp_path))
    assert not found and "damaged JPEG" in next(iter(data.test_problems("scannet").values()))


def test_without_the_exr_package_a_test_ends_before_it_begins(tmp_path, monkeypatch):
    write_folder(tmp_path / "ibims", {"lab_01_img.png": b"", "lab_01_normal.exr": b""})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="OpenEXR"):
        batches(root=str(tmp_path), modalities=["normals"])


def test_the_same_sample_in_two_places_is_not_counted_twice(tmp_path):
    members = depth_members("scannet", 1, np.random.default_rng(0))
    write_folder(tmp_path / "scannet", members | {f"copy/{name}": data for name, data in members.items()})
    with pytest.raises(InputError, match=r"scene0406_02__color__000001 twice, as copy/scene.* and scene.*Remove one"):
        batches(root=str(tmp_path))


def test_links_to_folders_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", depth_members("scannet", 1, np.random.default_rng(0)))
    (tmp_path / "data/scannet").mkdir(parents=True)
    (tmp_path / "data/scannet/scene0406_02").symlink_to(tmp_path / "elsewhere/scene0406_02")
    (found,), _ = batches(root=str(tmp_path / "data"))
    assert len(found) == 1


def test_benchmarks_of_the_other_task_are_pointed_out(tmp_path):
    write_depth_archive(tmp_path, "scannet", num_samples=1)
    message = r"holds no benchmark for normals .*dsine_eval\.zip.* It holds benchmarks for depth \(scannet\)"
    with pytest.raises(InputError, match=message):
        batches(root=str(tmp_path), modalities=["normals"])


def test_an_extracted_folder_gives_the_batches_of_the_archive(tmp_path):
    members = write_depth_archive(tmp_path / "packed", "scannet")
    write_folder(tmp_path / "loose" / "scannet_val_sampled_800_1", members)
    (packed,), _ = batches(root=str(tmp_path / "packed"))
    (loose,), _ = batches(root=str(tmp_path / "loose"))
    assert len(packed) == 3
    for first, second in zip(packed, loose, strict=True):
        assert first.key == second.key
        expected = tensors_of(second)
        assert tensors_of(first).keys() == {"image", "depth", "depth_mask"}
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors_of(first).items())


def test_a_sample_has_the_same_key_wherever_its_files_lie(tmp_path):
    truths = write_normals(tmp_path, "scannet")
    with zipfile.ZipFile(tmp_path / "dsine_eval.zip", "w") as archive:
        for path in sorted(tmp_path.rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    (packed,), data = batches(root=str(tmp_path), modalities=["normals"])
    assert data.describe_test("scannet")["source"][0].endswith(".zip")
    (tmp_path / "dsine_eval.zip").unlink()
    (loose,), _ = batches(root=str(tmp_path), modalities=["normals"])
    for first, second in zip(packed, loose, strict=True):
        assert first.key == second.key and first.key[0] in truths
        assert torch.equal(first.targets["normals"].values, second.targets["normals"].values)


def test_images_are_the_original_pixels_and_kitti_is_cut_like_its_depth(tmp_path):
    members = write_depth_archive(tmp_path, "kitti", num_samples=1)
    (((batch,),), _) = batches(root=str(tmp_path))
    image = cv2.imdecode(np.frombuffer(next(iter(members.values())), np.uint8), cv2.IMREAD_COLOR_RGB)
    expected = image[23:, 13:1229].astype(np.float32) / 255 * 2 - 1
    assert batch.image.shape == (1, 3, 352, 1216) and batch.targets["depth"].values.shape == (1, 1, 352, 1216)
    assert np.abs(batch.image[0].permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_large_images_shrink_for_the_prediction_alone(tmp_path):
    write_depth_archive(tmp_path, "scannet", num_samples=1)
    (((batch,),), _) = batches(root=str(tmp_path), longest_side_px=32)
    assert batch.image.shape[-2:] == (24, 32)
    assert batch.targets["depth"].values.shape[-2:] == (48, 64)
    assert image_tensor(np.zeros((4032, 6048, 3), np.uint8), 756).shape[-2:] == (504, 756)
    assert image_tensor(np.zeros((768, 1024, 3), np.uint8), 640).shape[-2:] == (480, 640)
    checks = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)  # without antialiasing this would be stripes
    grey = image_tensor(np.stack([checks] * 3, axis=2), 32)[..., 2:-2, 2:-2]
    assert grey.abs().max() < 0.05


def test_marigolds_copies_of_the_normals_have_the_frame_of_ours(tmp_path):
    generator = np.random.default_rng(0)
    normals, mask = random_normals(generator, (20, 30))
    normals[~mask] = 0
    folder = tmp_path / "ibims" / "ibims"
    write_folder(folder, {"lab_01_img.png": png(random_image(generator, (20, 30))), "lab_01_normal.npy": npy(normals)})
    listed = tmp_path / "list.txt"
    listed.write_text("lab_01_img.png lab_01_normal.npy\n")
    (((batch,),), _) = batches(root=str(tmp_path), modalities=["normals"], file_lists={"ibims": str(listed)})
    assert np.array_equal(batch.targets["normals"].mask[0, 0].numpy(), mask)
    assert np.abs(batch.targets["normals"].values[0].permute(1, 2, 0).numpy() - normals).max() < 1e-6


def test_few_samples_are_taken_from_all_over_and_loader_processes_change_nothing(tmp_path):
    write_depth_archive(tmp_path, "scannet", num_samples=6)
    ((alone,), _), data = batches(root=str(tmp_path), max_samples=2), Benchmarks(str(tmp_path), num_workers=2)
    assert [batch.key[0][-1] for batch in alone] == ["2", "5"]
    data.setup("test")
    assert sorted(batch.key[0][-1] for batch in data.test_dataloader()[0]) == list("123456")


def test_archives_without_a_single_complete_file_are_named_and_hinder_no_others(tmp_path):
    write_depth_archive(tmp_path, "nyuv2")
    for name, num_bytes in (("scannet", 700), ("diode", 3)):
        write_depth_archive(tmp_path, name)
        archive = tmp_path / DEPTH_ARCHIVES[name]
        archive.write_bytes(archive.read_bytes()[:num_bytes])
    (nyu, scannet), data = batches(root=str(tmp_path))
    assert (len(nyu), len(scannet)) == (3, 0)
    assert "cut off or damaged after 0 files" in data.test_problems("scannet")[""]
    assert "diode_val.tar cannot be read as an archive" in data.missing_tests["diode"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "nowhere"}, "nowhere is not a folder"),
        ({"root": "."}, "holds no benchmark for depth .looked there and one folder deeper for DA-2K.zip, "),
        ({"root": ".", "benchmarks": ["kitti"]}, "benchmarks are missing. kitti: not found in .* or one folder deeper"),
        ({"root": ".", "max_samples": 0}, "data.max_samples must be at least 1"),
        ({"root": ".", "file_lists": {"oasis": "x"}}, "no benchmark 'oasis' for depth"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        batches(**options)


def test_every_archive_name_is_the_released_one():
    released = {Path(path).name for path in (*DEPTH_ARCHIVES.values(), *FURTHER_ARCHIVES.values())}
    assert {name for kind in ALL if kind.modality != "normals" for name in kind.archives} == released
