"""What is given in place of a run is named for what it is, and the message says where it belongs."""

import json

import pytest

from geometry.errors import InputError
from lightning_modules.inference import load_model
from lightning_modules.training.found_runs import find_run

FOLDERS = {
    "an ONNX export": (
        {"onestep.json": {"format": "onnx"}},
        "is an export of the format onnx, which other",
    ),
    "a torch export": ({"onestep.json": {"format": "torch"}}, "is an export of the format torch, which other programs"),
    "adapters of peft": ({"adapter_config.json": {}}, "low-rank adapters alone. Give the run that trained them; merge"),
    "adapters of diffusers": ({"pytorch_lora_weights.safetensors": {}}, "holds low-rank adapters alone"),
    "a part of a base": (
        {"config.json": {"_class_name": "UNet2DConditionModel"}},
        "is one part of a folder of diffusers",
    ),
    "a data set": ({"dataset.json": {}}, "is a data set and no model; give it as --data.init_args.datasets"),
    "a run without a checkpoint": ({"config.yaml": {}}, "is a run that has saved no checkpoint yet"),
    "something else": ({"notes.txt": {}}, "is no checkpoint, no folder of a run that has one"),
}
FILES = {
    "model.onnx": "is a program, which other programs run; the README.md beside it says how",
    "model.pt2": "is a program, which other programs run",
    "unet.safetensors": "holds weights alone, and nothing says of which network",
    "config.yaml": "is a configuration; it is given as --config, beside the run",
    "photo.jpg": "cannot be read as a checkpoint",
}


def write(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("find", [find_run, load_model])
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_no_run_is_named_for_what_it_is(tmp_path, kind, find):
    files, said = FOLDERS[kind]
    with pytest.raises(InputError, match=said):
        find(write(tmp_path / "given", files))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(tmp_path, name):
    write(tmp_path / "given", {name: {}})
    with pytest.raises(InputError, match=FILES[name]):
        find_run(tmp_path / "given" / name)


def test_an_exported_folder_is_no_run_and_goes_to_another_option(tmp_path):
    folder = write(tmp_path / "given", {"onestep.json": {"format": "diffusers"}, "model_index.json": {}})
    with pytest.raises(InputError, match="predict, export and serve take it as --pretrained"):
        find_run(folder)
