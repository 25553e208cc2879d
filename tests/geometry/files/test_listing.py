import pytest

from geometry.files.listing import is_junk


@pytest.mark.parametrize(
    "path",
    [
        "._IMG_1.jpg",
        "a/._IMG_1.jpg",
        "__MACOSX/a/IMG_1.jpg",
        "a/@eaDir/IMG_1.jpg/thumb.jpg",
        "Thumbs.db",
        "desktop.ini",
    ],
)
def test_what_a_system_has_put_beside_images_is_passed_over(path):
    assert is_junk(path)


@pytest.mark.parametrize("path", ["IMG_1.jpg", "./a/IMG_1.jpg", "../a.jpg", ".hidden.png", "_a.png", "a/thumbs.db.png"])
def test_nothing_of_a_persons_own_is_passed_over(path):
    assert not is_junk(path)
