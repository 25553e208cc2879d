import pytest

from datamodules.sources.folder_frames import FolderFrame, FolderSplit, NamedFiles, match_files
from geometry.errors import InputError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def match(tmp_path, image_pattern=None, depth_pattern=None, skip_missing=False):
    images, depth = NamedFiles(tmp_path / "image", image_pattern), NamedFiles(tmp_path / "depth", depth_pattern)
    frames, notices = match_files(images, {"depth": depth}, skip_missing)
    return [(frame.identifier, frame.image.name, frame.targets["depth"].name) for frame in frames], notices


def frames_named(*identifiers):
    return [FolderFrame(name, None, {}) for name in identifiers]


def test_files_belong_together_by_path_and_stem(tmp_path):
    touch(tmp_path / "image", "b/1.jpg", "a/1.JPG", ".hidden.jpg", "a/notes.txt")
    touch(tmp_path / "depth", "a/1.png", "b/1.npy")
    assert match(tmp_path)[0] == [("a/1", "1.JPG", "1.png"), ("b/1", "1.jpg", "1.npy")]


@pytest.mark.parametrize(
    ("image_pattern", "depth_pattern", "identifier"),
    [("rgb_{}.jpg", "sync_{}.png", "s/7"), ("{}/rgb_{}.jpg", "{}/sync_{}.png", "s/7")],
)
def test_patterns_join_files_of_different_names_in_one_folder(tmp_path, image_pattern, depth_pattern, identifier):
    touch(tmp_path, "s/rgb_7.jpg", "s/sync_7.png", "s/other.jpg")
    frames, _ = match_files(
        NamedFiles(tmp_path, image_pattern), {"depth": NamedFiles(tmp_path, depth_pattern)}, skip_missing=False
    )
    assert [frame.identifier for frame in frames] == [identifier]


def test_an_image_without_depth_is_named_or_counted(tmp_path):
    touch(tmp_path / "image", "1.jpg", "2.jpg")
    touch(tmp_path / "depth", "2.png", "3.png")
    with pytest.raises(InputError, match=r"1 of 2 images have no depth.*image/1\.jpg.*--depth_pattern.*--missing skip"):
        match(tmp_path)
    frames, notices = match(tmp_path, skip_missing=True)
    assert [frame[0] for frame in frames] == ["2"]
    assert notices == ["Left out: 1 image(s) without depth (such as 1).", "Left out: 1 depth file(s) without an image."]


def test_names_that_fit_nowhere_are_an_error_even_when_skipping(tmp_path):
    touch(tmp_path / "image", "rgb1.jpg")
    touch(tmp_path / "depth", "depth1.png")
    with pytest.raises(InputError, match="1 of 1 images have no depth"):
        match(tmp_path, skip_missing=True)


def test_two_files_for_one_place_are_both_named(tmp_path):
    touch(tmp_path / "image", "1.jpg")
    touch(tmp_path / "depth", "1.png", "1.npy")
    with pytest.raises(InputError, match=r"1\.npy and .*1\.png are both the depth of '1'.*--depth_pattern"):
        match(tmp_path)


@pytest.mark.parametrize(("folder", "message"), [("image", "holds no image file"), ("nowhere", "is not a folder")])
def test_a_folder_without_images_is_named(tmp_path, folder, message):
    touch(tmp_path / "image", "1.npy")
    with pytest.raises(InputError, match=f"{folder} {message}"):
        NamedFiles(tmp_path / folder).scan((".jpg",), "image")


def test_a_pattern_without_a_gap_is_refused(tmp_path):
    touch(tmp_path / "image", "1.jpg")
    with pytest.raises(InputError, match=r"holds no \{\}"):
        NamedFiles(tmp_path / "image", "1.jpg").scan((".jpg",), "image")


def test_keys_are_safe_short_and_unique(tmp_path):
    frame = frames_named("a b/c.d/" + "x" * 90)[0]
    assert len(frame.key) <= 80 and not set(frame.key) & set(". /\\")
    assert frame.key != frames_named("a b/e.d/" + "x" * 90)[0].key
    assert frames_named("kitchen/0001")[0].key == "kitchen-0001"
    touch(tmp_path / "image", "a/1.jpg", "a-1.jpg")
    touch(tmp_path / "depth", "a/1.png", "a-1.png")
    with pytest.raises(InputError, match=r"a/1\.jpg and .*a-1\.jpg would both have the key 'a-1'"):
        match(tmp_path)


def test_a_share_holds_out_whole_folders():
    frames = frames_named(*(f"s{scene}/{number}" for scene in range(10) for number in range(3)))
    listed = FolderSplit(val_fraction=0.2).apply(frames)
    held_out = {frame.scene for frame in listed.splits["val"]}
    assert len(held_out) == 2 and not held_out & {frame.scene for frame in listed.splits["train"]}
    assert listed.splits == FolderSplit(val_fraction=0.2).apply(frames).splits


def test_a_share_of_a_single_folder_is_one_of_images_and_warns():
    listed = FolderSplit(val_fraction=0.3).apply(frames_named(*map(str, range(10))))
    assert [len(listed.splits[split]) for split in ("train", "val")] == [7, 3]
    assert "neighbours in a video" in listed.notices[0]


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_names_folders_and_images_whatever_editor_wrote_it(tmp_path, start, end):
    (tmp_path / "val.txt").write_text(f"{start}s1{end}# held out{end}{end}s2/b.jpg{end}", newline="")
    listed = FolderSplit(val_list=tmp_path / "val.txt").apply(frames_named("s1/a", "s1/b", "s2/a", "s2/b"))
    assert [frame.identifier for frame in listed.splits["val"]] == ["s1/a", "s1/b", "s2/b"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val_fraction": 1.0}, "--val_fraction"),
        ({"lines": "s9\n"}, "line 1: 's9'"),
        ({"lines": "s1\n"}, "none is left"),
        ({"lines": "\n# s1\n"}, "names no image and no folder"),
    ],
)
def test_a_split_that_cannot_be_is_refused(tmp_path, split, message):
    if "lines" in split:
        (tmp_path / "val.txt").write_text(split["lines"])
        split = {"val_list": tmp_path / "val.txt"}
    with pytest.raises(InputError, match=message):
        FolderSplit(**split).apply(frames_named("s1/a"))


def test_what_systems_put_beside_images_is_no_image_and_no_depth(tmp_path):
    for name in ("image/1.jpg", "depth/1.png", "image/._1.jpg", "depth/._1.png", "image/.trash/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("image/__MACOSX/2.jpg", "image/@eaDir/1.jpg/thumb.jpg", "image/.Trashes/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = NamedFiles(tmp_path / "image").scan((".jpg",), "image")
    assert set(found) == {"1", ".trash/a"}
