"""What a user gives for an image in Python: taken for what it is, or refused with what would make it one."""

import numpy as np
import pytest
import torch
from PIL import Image

from geometry.errors import InputError
from lightning_modules.inference import Predictor
from lightning_modules.inference.image_inputs import as_rgb
from tests.lightning_modules.inference.runs import make_run, photo

BYTES = photo(20, 30)
PLANES = torch.from_numpy(BYTES).permute(2, 0, 1)


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16])
def test_a_tensor_of_whole_numbers_is_the_array_of_these_numbers(kind):
    assert np.array_equal(as_rgb(PLANES.to(kind)), BYTES)
    dark = torch.ones(3, 4, 5).to(kind)  # not white: these are 1 of 255, or of 65535
    assert as_rgb(dark).dtype.itemsize == dark.element_size() and (as_rgb(dark) == 1).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_of_any_floating_point_is_taken_in_colour_and_in_grey(kind):
    assert np.abs(as_rgb((PLANES / 255).to(kind)) - BYTES / 255).max() < 5e-3
    assert as_rgb((PLANES[0] / 255).to(kind)).shape == BYTES.shape


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PLANES.permute(1, 2, 0), r"a tensor of shape \(20, 30, 3\) is no image; give \(3,H,W\), as image.permute"),
        (PLANES[None], r"a tensor of shape \(1, 3, 20, 30\) is no image; give .* one image of the batch at a time"),
        (PLANES[:1], r"a tensor of shape \(1, 20, 30\) .* or \(H,W\) for grey"),
        (PLANES.long(), "has the type int64; give uint8, uint16, or floating point"),
        (PLANES.bool(), "has the type bool; give uint8"),
        (PLANES.float(), r"goes from \d+ to \d+; floating point must lie in \[0, 1\]: divide it by 255"),
        (PLANES / 127.5 - 1, r"goes from -\d.* to .*: if it lies in \[-1, 1\], give \(image \+ 1\) / 2"),
        (BYTES.astype(np.float32), "an array of shape .* divide it by 255"),
        (BYTES.transpose(2, 0, 1), r"an array of shape \(3, 20, 30\) .* as image.transpose\(1, 2, 0\) would be"),
        (np.zeros((20, 30, 4), np.uint8), r"without transparency: image\[\.\.\., :3\]"),
        (np.full((20, 30, 3), np.nan), "NaN or infinite"),
        (BYTES[:0], r"an array of shape \(0, 30, 3\) is no image"),
        (BYTES.astype(object), "has the type object"),
        ([BYTES], "a list is no image; .* one at a time"),
        (None, "a NoneType is no image"),
    ],
)
def test_what_is_no_image_is_told_what_would_make_it_one(given, said):
    with pytest.raises(InputError, match=said):
        as_rgb(given)


def test_several_images_of_any_kind_are_predicted_together_and_mistakes_are_one_line(tmp_path):
    predictor = Predictor.load(make_run(tmp_path), processing_res=0)
    single = predictor(BYTES)
    together = predictor.predict([PLANES, Image.fromarray(BYTES), PLANES / 255])
    assert max(np.abs(single - each).max() for each in together) < 1e-5
    assert predictor.predict([]) == []
    for given, said in [
        ([BYTES, photo(40, 30)], "must be seen at one size, not 20x32, 40x32; call the predictor for each"),
        (BYTES, "predict takes a list of images; for a single one"),
        ("photo.jpg", "predict takes a list of images; for a single one"),
        ([PLANES[None]], "one image of the batch at a time"),
    ]:
        with pytest.raises(InputError, match=said):
            predictor.predict(given)
