"""What is used of jsonargparse without its promise does what it is used for."""

from jsonargparse import ActionConfigFile

from geometry import jsonargparse_internals as internals


class Reader(internals.OpenParser):
    """Notes what it reads."""

    read = ()

    def read_config(self, content, path, read):
        type(self).read = (content, str(path))
        return super().read_config(content.replace("1", "2"), path, read)


def test_the_text_of_a_configuration_passes_through_the_public_name(tmp_path):
    (tmp_path / "a.yaml").write_text("size: 1\n")
    parser = Reader()
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--size", type=int, help="how large")
    assert parser.parse_args([f"--config={tmp_path / 'a.yaml'}"]).size == 2
    assert Reader.read[0] == "size: 1\n"
    assert "a.yaml" in Reader.read[1]


def test_every_option_and_group_of_a_parsers_help_is_found():
    parser = internals.OpenParser()
    group = parser.add_argument_group("Sizes")
    group.add_argument("--wide_one", help="how wide")
    assert "how wide" in [option.help for option in internals.options_of(parser)]
    assert ("--wide_one",) in [tuple(option.option_strings) for option in internals.options_of(parser)]
    titles = {found.title: [option.dest for option in options] for found, options in internals.groups_of(parser)}
    assert titles["Sizes"] == ["wide_one"]
    for found, _ in internals.groups_of(parser):
        if found.title == "Sizes":
            found.title = "Widths"
    assert "Widths" in parser.format_help()
