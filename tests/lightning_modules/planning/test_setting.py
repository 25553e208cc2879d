"""What stands for a default in a configuration is planned as fit takes it; what is wrong is refused."""

import pytest
import yaml

import train
from geometry.errors import InputError
from lightning_modules.planning.ledger import Books
from lightning_modules.planning.plan import Plan, make_plan
from lightning_modules.planning.report import describe
from lightning_modules.planning.setting import read_setting
from tests.helpers.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore")

MODEL = {
    "class_path": "lightning_modules.SingleStepEstimator",
    "init_args": {
        "network": {
            "class_path": "lightning_modules.StableDiffusion",
            "init_args": {"base": "checkpoints/tiny-stable-diffusion"},
        },
        "task": {"class_path": "lightning_modules.Depth"},
    },
}
FOLDERS, MADE = "datamodules.GeometryDataModule", "synthetic_scenes.SyntheticDataModule"


def setting_of(folder, trainer=None, data=None, kind=FOLDERS):
    file = folder / "config.yaml"
    data = {"class_path": kind, "init_args": data or {}}
    file.write_text(yaml.safe_dump({"model": MODEL, "trainer": trainer or {}, "data": data}))
    return read_setting([file])


def without_model(setting):
    return {name: value for name, value in vars(setting).items() if name != "model"}


@pytest.mark.parametrize("name", ["demo", "depth_stable_diffusion", "depth_flux_kontext", "hardware/fsdp"])
def test_what_fit_prints_of_a_configuration_is_planned_like_the_file(name, tmp_path, capsys):
    names = ["depth_stable_diffusion", name] if name.startswith("hardware") else [name]
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", *(word for each in names for word in ("--config", each)), "--print_config"])
    assert ended.value.code in (0, None)
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert without_model(read_setting([printed])) == without_model(read_setting(names))


def test_the_configuration_that_a_run_wrote_is_planned_like_the_one_that_it_was_given(tmp_path):
    given = prepare(tmp_path)
    options = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    train.main(["fit", "--config", str(given), *options, "--data.max_val_samples=1"])
    (written,) = tmp_path.rglob("version_0/config.yaml")
    content = yaml.safe_load(written.read_text())
    assert content["trainer"]["devices"] == "auto" and content["data"]["init_args"]["val_batch_size"] is None
    found = make_plan(read_setting([written]))
    assert found.setting.situation == read_setting([given]).situation
    assert found.num_trained > 0


@pytest.mark.parametrize(
    ("trainer", "devices", "is_assumed"),
    [
        ({}, 1, True),
        ({"devices": "auto"}, 1, True),
        ({"devices": -1, "num_nodes": 2}, 2, True),
        ({"devices": "auto", "accelerator": "cpu"}, 1, False),
        ({"devices": 4, "num_nodes": 2}, 8, False),
        ({"devices": "2"}, 2, False),
        ({"devices": "0,1"}, 2, False),
        ({"devices": [1, 3, 5]}, 3, False),
    ],
)
def test_devices_are_counted_as_fit_does(trainer, devices, is_assumed, tmp_path):
    found = setting_of(tmp_path, trainer)
    assert (found.devices, found.devices_are_assumed) == (devices, is_assumed)


def test_a_plan_says_that_it_assumed_the_number_of_devices(tmp_path):
    books = Books(peak_bytes=1, phase_bytes={"loss": 1})
    said = [
        "\n".join(describe(Plan(setting_of(tmp_path, trainer, kind=MADE), books, 1, 1)))
        for trainer in ({}, {"devices": 1})
    ]
    assert ["trainer.devices: auto" in text for text in said] == [True, False]


@pytest.mark.parametrize(
    ("kind", "data", "sizes"),
    [
        (FOLDERS, {}, (2, 2)),
        (FOLDERS, {"batch_size": 3, "val_batch_size": None}, (3, 3)),
        (FOLDERS, {"batch_size": 3, "val_batch_size": 5}, (3, 5)),
        (MADE, {}, (8, 8)),
        (MADE, {"batch_size": 4}, (4, 8)),
    ],
)
def test_images_of_a_batch_are_those_that_the_data_module_takes(kind, data, sizes, tmp_path):
    found = setting_of(tmp_path, data=data, kind=kind).situation
    assert (found.batch_size, found.val_batch_size) == sizes


def test_images_of_a_data_module_that_makes_them_have_its_size(tmp_path):
    rooms = setting_of(tmp_path, kind=MADE)
    assert (rooms.situation.image_size, rooms.mean_pixels, rooms.sizes_are_assumed) == ((64, 96), 64 * 96, False)
    streets = setting_of(tmp_path, data={"streets": 5}, kind=MADE)
    assert streets.situation.image_size == (64, 224)
    assert streets.mean_pixels == pytest.approx(0.9 * 64 * 96 + 0.1 * 64 * 224)


@pytest.mark.parametrize(("precision", "name"), [(None, "32-true"), (32, "32-true"), ("bf16", "bf16-mixed")])
def test_precision_has_the_names_that_lightning_knows(precision, name, tmp_path):
    assert setting_of(tmp_path, {"precision": precision}).situation.precision == name


def test_a_run_whose_end_is_counted_in_epochs_is_not_given_a_number_of_steps(tmp_path):
    assert setting_of(tmp_path, {"max_steps": -1, "max_epochs": 3}).max_steps is None
    assert setting_of(tmp_path).max_steps == 20_000


@pytest.mark.parametrize(
    ("trainer", "data", "message"),
    [
        ({"devices": 0}, {}, "trainer.devices: 0 cannot be planned"),
        ({"devices": "many"}, {}, "trainer.devices: many cannot be planned"),
        ({"devices": []}, {}, "trainer.devices: .* names no devices"),
        ({"devices": "0,x"}, {}, "trainer.devices: .* names no devices"),
        ({"devices": None}, {}, "trainer.devices: None cannot be planned"),
        ({"num_nodes": None}, {}, "trainer.num_nodes: None cannot be planned"),
        ({"accumulate_grad_batches": None}, {}, "trainer.accumulate_grad_batches: None cannot be planned"),
        ({"accumulate_grad_batches": [4, 2]}, {}, "trainer.accumulate_grad_batches"),
        ({"accumulate_grad_batches": True}, {}, "trainer.accumulate_grad_batches"),
        ({"max_steps": 0}, {}, "trainer.max_steps: 0 cannot be planned"),
        ({"strategy": "fsdp"}, {}, "trainer.strategy: fsdp cannot be planned"),
        ({"strategy": {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}}, {}, "trainer.strategy"),
        ({"strategy": {"class_path": "nowhere.Strategy"}}, {}, "trainer.strategy: there is no class nowhere.Strategy"),
        ({}, {"batch_size": None}, "data.batch_size: None cannot be planned"),
        ({}, {"batch_size": 2.5}, "data.batch_size: 2.5 cannot be planned"),
        ({}, {"val_batch_size": 0}, "data.val_batch_size: 0 cannot be planned"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(trainer, data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        setting_of(tmp_path, trainer, data)


def test_a_data_module_that_is_not_there_is_refused_by_its_name(tmp_path):
    with pytest.raises(InputError, match=r"data\.class_path: there is no class nowhere.Data"):
        setting_of(tmp_path, kind="nowhere.Data")
