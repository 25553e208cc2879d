from importlib.metadata import version

from benchmarks.collect_wheels import listed, missing


def test_lists_with_and_without_versions_are_read():
    text = "torch==2.11.0+cu130\nTyping_Extensions==4.9.0\nnumpy\nmine @ file:///x\n\n"
    assert listed(text) == {"torch": "2.11.0+cu130", "typing-extensions": "4.9.0", "numpy": "", "mine": ""}


def test_what_is_there_but_too_old_is_collected():
    names = [*missing({}, "3.12"), "torch"]
    everything = dict.fromkeys(names, "")
    assert missing(everything, "3.12") == {}
    assert missing({**everything, "webdataset": "0.1"}, "3.12") == {"webdataset": version("webdataset")}
    assert missing({**everything, "webdataset": version("webdataset")}, "3.12") == {}


def test_what_a_collected_package_wants_of_a_package_of_unknown_version_is_collected_too():
    there = {name: "" for name in [*missing({}, "3.12"), "torch"] if not name.startswith("pydantic")}
    found = missing(there, "3.12")
    assert found["pydantic"] == version("pydantic") and found["pydantic-core"] == version("pydantic-core")
    assert found["typing-extensions"] == version("typing-extensions"), "pydantic asks for a recent one"
    assert "numpy" not in found and "torch" not in found
