import pytest

from datamodules.sources.hypersim_frames import HypersimFrame, HypersimSelection, list_hypersim_frames, read_file_list
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame

HEADER = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for scene, number in (("ai_001_001", 0), ("ai_001_001", 12), ("ai_002_001", 3), ("ai_003_001", 5)):
        write_hypersim_frame(folder, scene, number=number, size=(4, 4))
    return folder


def write_table(path, *rows):
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def keys(frames):
    return {split: [frame.key for frame in members] for split, members in frames.splits.items()}


def test_without_a_split_table_everything_is_trained_on_and_said_so(raw):
    frames = list_hypersim_frames(raw, HypersimSelection())
    assert keys(frames)["train"][:2] == ["ai_001_001-cam_00-0000", "ai_001_001-cam_00-0012"]
    assert len(keys(frames)["train"]) == 4
    assert any("every frame goes to train" in notice for notice in frames.notices)


def test_the_split_table_decides_and_frames_outside_the_release_are_left_out(raw, tmp_path):
    table = write_table(
        tmp_path / "splits.csv",
        "ai_001_001,cam_00,0,True,,train",
        "ai_001_001,cam_00,12,False,CONTENT FLAGGED FOR REMOVAL,",
        "ai_002_001,cam_00,3,True,,val",
        "ai_009_001,cam_00,1,True,,train",
    )
    frames = list_hypersim_frames(raw, HypersimSelection(table))
    assert keys(frames) == {"train": ["ai_001_001-cam_00-0000"], "val": ["ai_002_001-cam_00-0003"]}
    said = " ".join(frames.notices)
    assert "1 frame(s) not in the public release" in said
    assert "1 frame(s) not in the split table" in said
    assert "1 frame(s) of the split table without a colour file" in said


@pytest.mark.parametrize("place", ["raw", "."])
def test_a_split_table_inside_or_beside_the_raw_folder_is_found(raw, tmp_path, place):
    write_table(tmp_path / place / "metadata_images_split_scene_v1.csv", "ai_002_001,cam_00,3,True,,test")
    assert keys(list_hypersim_frames(raw, HypersimSelection())) == {"test": ["ai_002_001-cam_00-0003"]}


def test_only_the_splits_asked_for_are_prepared(raw, tmp_path):
    rows = ("ai_001_001,cam_00,0,True,,train", "ai_002_001,cam_00,3,True,,val")
    selection = HypersimSelection(write_table(tmp_path / "s.csv", *rows), splits=("val",))
    assert list(list_hypersim_frames(raw, selection).splits) == ["val"]


def test_a_file_list_in_marigolds_format_selects_frames(raw, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("ai_001_001/rgb_cam_00_fr0012.png ai_001_001/depth_plane_cam_00_fr0012.png\n\n")
    assert keys(list_hypersim_frames(raw, HypersimSelection(file_list=(path,)))) == {
        "train": ["ai_001_001-cam_00-0012"]
    }


def test_a_listed_frame_that_is_missing_is_an_error_unless_it_may_be_skipped(raw, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("train/ai_001_001/rgb_cam_00_fr0000.png x\nai_001_001/rgb_cam_00_fr0077.png x\n")
    with pytest.raises(InputError, match=r"ai_001_001/cam_00/0077.*--missing skip"):
        list_hypersim_frames(raw, HypersimSelection(file_list=(path,)))
    frames = list_hypersim_frames(raw, HypersimSelection(file_list=(path,), missing="skip"))
    assert keys(frames) == {"train": ["ai_001_001-cam_00-0000"]}
    assert any("0077" in notice for notice in frames.notices)


def test_a_line_that_is_no_frame_is_shown_with_its_number(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("ai_001_001/rgb_cam_00_fr0000.png x\nnonsense\n")
    with pytest.raises(InputError, match=r"line 2.*nonsense"):
        read_file_list(path)


def test_a_frame_without_colour_is_counted_and_left_out(raw):
    write_hypersim_frame(raw, "ai_037_002", size=(4, 4))
    HypersimFrame("ai_037_002", "cam_00", 0).path(raw, "color").unlink()
    frames = list_hypersim_frames(raw, HypersimSelection())
    assert len(keys(frames)["train"]) == 4
    assert any(
        "1 frame(s) with geometry but no colour file (such as ai_037_002/cam_00/0000)" in n for n in frames.notices
    )


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_raw_folder_is_an_error_with_the_layout_expected(tmp_path, exists):
    raw = tmp_path / "raw"
    if exists:
        raw.mkdir()
    with pytest.raises(InputError, match=r"_final_hdf5/frame\.IIII\.color\.hdf5" if exists else "not a folder"):
        list_hypersim_frames(raw, HypersimSelection())


def test_a_selection_of_nothing_is_an_error(raw, tmp_path):
    with pytest.raises(InputError, match="none of the 4 frames"):
        list_hypersim_frames(raw, HypersimSelection(write_table(tmp_path / "s.csv", "ai_009_001,cam_00,1,True,,train")))


def test_the_wrong_table_is_named_with_the_column_it_lacks(raw, tmp_path):
    table = tmp_path / "cameras.csv"
    table.write_text("scene_name,settings_output_img_height\nai_001_001,768\n")
    with pytest.raises(InputError, match=r"cameras\.csv has no column camera_name"):
        list_hypersim_frames(raw, HypersimSelection(table))
