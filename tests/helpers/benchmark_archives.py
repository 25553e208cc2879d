"""Benchmarks in miniature, in the real archives' layouts: random scenes, and real frames where they are to be had."""

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real samples in ../shared/samples are missing")
ETH3D_SIZE = (40, 60)

DEPTH_ARCHIVES = {
    "nyuv2": "nyuv2/nyu_labeled_extracted.tar",
    "kitti": "kitti/kitti_eigen_split_test.tar",
    "eth3d": "eth3d/eth3d.tar",
    "scannet": "scannet/scannet_val_sampled_800_1.tar",
    "diode": "diode/diode_val.tar",
}
# Benchmarks whose files differ from those by more than names; the key is that of a writer below.
FURTHER_ARCHIVES = {
    "ibims": "ibims1_core_mat.zip",
    "sintel": "MPI-Sintel-depth-training-20150305.zip",
    "kitti_completion": "data_depth_selection.zip",
    "da_2k": "DA-2K.zip",
    "hypersim_edges": "hypersim_processed_test.tar",
    "hypersim": "hypersim_iid_test.tar",
}


def png(array):
    return cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def exr(normals, folder):
    OpenEXR = pytest.importorskip("OpenEXR")
    path = folder / "normals.exr"
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(normals, np.float32)}).write(str(path))
    return path.read_bytes()


def random_depth(generator, size, low=1.0, high=9.0, hole_share=0.1):
    """Return a slanted, bumpy surface with holes of depth 0."""
    rows, columns = (np.linspace(0, 1, side) for side in size)
    shape = low + (high - low) * (0.5 * rows[:, None] + 0.4 * columns + 0.1 * generator.random(size))
    return np.where(generator.random(size) < hole_share, 0, shape)


def random_normals(generator, size, hole_share=0.1):
    """Return unit normals around the viewing direction and the mask of those that are known."""
    normals = generator.normal(size=(*size, 3)) * 0.5 + [0, 0, 1.5]
    return normals / np.linalg.norm(normals, axis=2, keepdims=True), generator.random(size) >= hole_share


def random_image(generator, size):
    return generator.integers(0, 256, (*size, 3), dtype=np.uint8)


def depth_members(name, number, generator, size=None, low=1.0):
    """Return path and content of the files of one random sample, the image first."""
    if name == "nyuv2":
        size = size or (64, 80)
        depth = random_depth(generator, size, low)
        stem = f"test/kitchen_0004/%s_{number:04d}.png"
        image, *others = (stem % kind for kind in ("rgb", "depth", "filled"))
        return {
            image: png(random_image(generator, size)),
            **{path: png((depth * 1000).astype("u2")) for path in others},
        }
    if name == "scannet":
        size = size or (48, 64)
        image, depth = f"scene0406_02/color/{number:06d}.jpg", f"scene0406_02/depth/{number:06d}.png"
        values = random_depth(generator, size, low, high=12)
        content = cv2.imencode(".jpg", random_image(generator, size))[1].tobytes()
        return {image: content, depth: png((values * 1000).astype("u2"))}
    if name == "kitti":
        size = size or (375, 1242)
        drive, file = "2011_09_26_drive_0002_sync", f"{number:010d}.png"
        values = random_depth(generator, size, low, high=95, hole_share=0.9)
        return {
            f"2011_09_26/{drive}/image_02/data/{file}": png(random_image(generator, size)),
            f"{drive}/proj_depth/groundtruth/image_02/{file}": png((values * 256).astype("u2")),
        }
    if name == "eth3d":
        size = size or ETH3D_SIZE
        inside = f"dslr_images/DSC_{number:04d}.JPG"
        values = random_depth(generator, size, low).astype("<f4")
        values[values == 0] = np.inf
        content = cv2.imencode(".jpg", random_image(generator, size))[1].tobytes()
        return {
            f"rgb/office/images/{inside}": content,
            f"depth/office_dslr_depth/office/ground_truth_depth/{inside}": values.tobytes(),
        }
    size = size or (48, 64)
    stem = f"indoors/scene_00021/scan_00189/00021_00189_indoors_{number:03d}_010"
    values = random_depth(generator, size, low, high=20).astype(np.float32)
    return {
        f"{stem}.png": png(random_image(generator, size)),
        f"{stem}_depth.npy": npy(values[..., None]),
        f"{stem}_depth_mask.npy": npy((values > 0).astype(np.float32)),
    }


def write_tar(path, members):
    """Write a .tar as Marigold's are: names begin with ./."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def ibims_mat(depth, image, planes, calib, edges, unknown=None, compress=True):
    """Return a file of iBims-1; planes are the parameters and the numbers of the wall's, unknown pixels are masked."""
    seen = np.ones(depth.shape, np.uint8) if unknown is None else (~unknown).astype(np.uint8)
    nothing = np.zeros(depth.shape, np.uint8)
    content = {"rgb": image, "depth": depth, "edges": edges, "calib": calib, "mask_invalid": seen, "mask_transp": seen}
    content |= {"mask_wall": planes[1].astype(np.uint8), "mask_wall_paras": planes[0]}
    for kind in ("table", "floor"):
        content |= {f"mask_{kind}": nothing, f"mask_{kind}_paras": np.zeros((0, 0))}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"data": content}, do_compression=compress)
    return buffer.getvalue()


def write_further(root, name, generator, size=(36, 48)):
    """Write one sample of a benchmark of ``FURTHER_ARCHIVES`` but iBims-1; return truth and mask, or DA-2K's pairs."""
    depth, image = random_depth(generator, size, high=90.0), png(random_image(generator, size))
    depth[12:24, 12:24] = 1.5
    path = root / FURTHER_ARCHIVES[name]
    if name == "sintel":
        content = struct.pack("<fii", 202021.25, size[1], size[0]) + depth.astype("<f4").tobytes()
        write_zip(path, {"training/depth/alley_1/frame_0001.dpt": content})
        write_zip(root / "MPI-Sintel-training_images.zip", {"training/final/alley_1/frame_0001.png": image})
        return depth, (depth > 1e-3) & (depth < 70)
    if name == "kitti_completion":
        folder, frame = "depth_selection/val_selection_cropped", "2011_09_26_drive_0002_sync_%s_0000000005_image_02.png"
        stored = (depth * 256).astype("u2")
        truth = f"{folder}/groundtruth_depth/{frame % 'groundtruth_depth'}"
        write_zip(path, {f"{folder}/image/{frame % 'image'}": image, truth: png(stored)})
        return stored / 256, (stored > 0) & (stored < 80 * 256)
    if name == "da_2k":
        pairs = [((2, 3), (30, 40), 1), ((10, 10), (5, 47), 2)]
        listed = [{"point1": a, "point2": b, "closer_point": f"point{number}"} for a, b, number in pairs]
        members = {"DA-2K/annotations.json": json.dumps({"images/indoor/a.png": listed}).encode()}
        write_zip(path, members | {"DA-2K/images/indoor/a.png": image, "DA-2K/images/indoor/unpaired.png": image})
        return pairs
    if name == "hypersim_edges":
        stored = (depth.clip(max=65.535) * 1000).astype("u2")
        frame = "ai_001_010/%s_cam_00_fr0000.png"
        write_tar(path, {frame % "rgb": image, frame % "depth_plane": png(stored)})
        return stored / 1000, (stored > 0) & (stored < 65000)
    albedo = generator.random((*size, 3))
    albedo[:3], albedo[5, 5, 0], albedo[6, 6, 0] = 0, np.nan, 0
    write_tar(
        path, {"test/ai_001_010/rgb_cam_00_fr0000.png": image, "test/ai_001_010/albedo_cam_00_fr0000.npy": npy(albedo)}
    )
    known = np.ones(size, bool)
    known[:3], known[5, 5] = False, False
    return albedo, known


def write_folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_depth_archive(root, name, num_samples=3, seed=0, low=1.0):
    """Write an archive with random samples, and return the content of its files by path."""
    generator = np.random.default_rng(seed)
    members = {}
    for number in range(1, num_samples + 1):
        members |= depth_members(name, number, generator, low=low)
    write_tar(root / DEPTH_ARCHIVES[name], members)
    return members


def normals_paths(name, number):
    """Return the paths of an image and its normals in dsine_eval/<name>."""
    stem = {
        "nyuv2": f"test/{number:06d}",
        "scannet": f"scene0001_01/{number:06d}",
        "ibims": f"ibims/corridor_{number:02d}",
        "sintel": f"alley_1/frame_{number:04d}",
    }[name]
    return f"{stem}_img.png", f"{stem}_normal.{'png' if name in ('nyuv2', 'scannet') else 'exr'}"


def write_normals(root, name, num_samples=2, seed=0, size=(36, 50)):
    """Write random samples of DSINE's layout; return normals in our frame and masks, by key."""
    generator = np.random.default_rng(seed)
    truths = {}
    for number in range(1, num_samples + 1):
        image, truth = normals_paths(name, number)
        normals, mask = random_normals(generator, size)
        stored = normals * [-1, 1, 1]
        if truth.endswith("png"):
            pixels = np.round((stored + 1) / 2 * 255).astype(np.uint8)
            pixels[~mask] = 0
            content = png(pixels)
            stored = pixels.astype(np.float64) / 255 * 2 - 1
            stored /= np.linalg.norm(stored, axis=2, keepdims=True)
        else:
            root.mkdir(parents=True, exist_ok=True)
            stored[~mask] = 0
            content = exr(stored, root)
        write_folder(root / "dsine_eval" / name, {image: png(random_image(generator, size)), truth: content})
        key = image.removeprefix("ibims/").removesuffix(".png").replace("/", "__")
        truths[key] = (stored * [-1, 1, 1], mask)
    return truths


def real_members(name):
    """Return three real frames in the layout of nyuv2 or kitti."""
    members = {}
    folder = SAMPLES / ("nyu" if name == "nyuv2" else "kitti")
    pairs = zip(sorted((folder / "rgb").iterdir()), sorted((folder / "depth").iterdir()), strict=True)
    for number, (image, depth) in enumerate(pairs, start=1):
        content = png(cv2.imread(str(image))[..., ::-1])
        if name == "nyuv2":
            members[f"test/kitchen_0004/rgb_{number:04d}.png"] = content
            members[f"test/kitchen_0004/depth_{number:04d}.png"] = depth.read_bytes()
        else:
            drive, file = "2011_09_26_drive_0002_sync", f"{number:010d}.png"
            members[f"2011_09_26/{drive}/image_02/data/{file}"] = content
            members[f"{drive}/proj_depth/groundtruth/image_02/{file}"] = depth.read_bytes()
    return members
