"""HEIC photos are read where their package is there; RAW photos are refused before their preview is taken for them."""

import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from geometry.files.photo_kinds import can_read_heif
from lightning_modules.inference.image_inputs import read_image
from lightning_modules.inference.photos import find_photos


@pytest.mark.skipif(not can_read_heif(), reason="pillow-heif is not installed")
def test_a_heic_photo_is_read(tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    Image.fromarray(image).save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - image).max() < 12


def test_the_preview_in_a_raw_photo_is_not_taken_for_the_photo(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    with pytest.raises(InputError, match=r"a\.NEF is a RAW photo, which has to be developed first"):
        read_image(tmp_path / "a.NEF")


def test_photos_that_cannot_be_read_are_listed_so_that_they_fail_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("geometry.files.photo_kinds.can_read_heif", lambda: False)
    for name in ("a.jpg", "b.HEIC", "c.cr3", "d.txt", "._e.heic"):
        (tmp_path / name).touch()
    assert [photo.file.name for photo in find_photos([str(tmp_path)], tmp_path / "out")] == ["a.jpg", "b.HEIC", "c.cr3"]
    with pytest.raises(InputError, match=r"HEIC photo, which needs the package pillow-heif: pip install"):
        read_image(tmp_path / "b.HEIC")
