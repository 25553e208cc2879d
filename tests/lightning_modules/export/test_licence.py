"""The licence of a base is one line of its card; nothing else in the card is looked at."""

import pytest

from lightning_modules.export.licence import licence_of

# Merged, the last of these has 10^7 keys.
LEVELS = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 8))
BOMB = "---\nm0: &m0 {a: 1}\n" + LEVELS


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [depth]\n---\n# Model\nlicense: mit\n", "apache-2.0"),
        ('---\ntags: [depth]\nlicense: "creativeml-openrail-m"\n---\n', "creativeml-openrail-m"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\ntags: [depth]\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", None),
        ("---\n" + "[" * 99_999, None),
        (BOMB + "license: mit\n---\n", "mit"),
        ("---\n" + "a: 1\n" * 10**6 + "license: mit\n---\n", None),
    ],
)
def test_the_line_with_the_licence_is_found_whatever_the_card(tmp_path, card, licence):
    (tmp_path / "README.md").write_text(card)
    assert licence_of(str(tmp_path)) == licence
