"""What a run was trained with, kept in its checkpoints, and what happens when it goes on with other settings."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from omegaconf import OmegaConf

from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.training.checkpoint_content import peek_checkpoint
from lightning_modules.training.start import start_file

CHECKPOINT_KEY = "settings"

_BASE = "model.network.base"

Plain = str | int | float | bool | None

_SECTIONS = ("model", "data", "ema", "seed_everything", "tf32", "attention")
_OF_TRAINER = (
    "max_steps",
    "max_epochs",
    "accumulate_grad_batches",
    "precision",
    "limit_train_batches",
    "limit_val_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "log_every_n_steps",
)
# Where data lie and how they are read, which changes nothing that is learned; places may also hold passwords.
_LEFT_OUT = re.compile(
    r"data\.((val_)?datasets\.\d+\.path|num_workers|val_num_workers|prefetch_factor|cache_dir|retries|timeout_s|"
    r"loader_timeout_s|max_bad_samples|pin_memory|cache|root)$"
)
_NEVER_TAKEN = {
    "model.class_path": "estimator",
    "model.network.class_path": "network",
    "model.task.class_path": "task",
    "model.optimizer.class_path": "optimiser",
    "data.class_path": "data module",
}
_NAMES = {"model.optimizer.lr": "learning rate", "seed_everything": "seed"}


class RunSettings(Callback):
    """Keeps a run's settings in its checkpoints, and says or refuses what differs when a run goes on.

    Another estimator, network, task, optimiser or data module is refused: weights, states and place in the data belong
    to the old one. Everything else holds from there on, and is said in one line.

    Args:
        config: resolved configuration of the command, plain values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._settings = flat_settings(config)

    def check(self, file: str | None, is_fit: bool) -> None:
        """Refuse a checkpoint of another kind of run early, before its weights are read.

        Args:
            file: path of the checkpoint; None for none.
            is_fit: whether the run is to go on.

        Raises:
            InputError: the checkpoint belongs to another kind of run.
        """
        if file is not None:
            refuse_others(settings_in(file), self._settings, is_fit)

    def setup(self, trainer: Trainer, pl_module: Estimator, stage: str) -> None:  # type: ignore[override]
        """Say so if a run starts from the weights of one on another base: frozen weights are in no checkpoint.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: fit, validate or another of Lightning's stages.
        """
        if stage != "fit" or pl_module.init_from is None:
            return
        then, now = settings_in(str(start_file(pl_module.init_from))).get(_BASE), self._settings.get(_BASE)
        if then is not None and then != now:
            rank_zero_warn(
                f"init_from {pl_module.init_from} was trained on the base {then}, not {now}: what it left frozen is "
                "not in it, and is taken from the new base."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Estimator, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Add the settings to a checkpoint.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is about to be saved.
        """
        checkpoint[CHECKPOINT_KEY] = dict(self._settings)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Estimator, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Compare the settings of a checkpoint with those of this run.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is being loaded.

        Raises:
            InputError: the checkpoint belongs to another kind of run, or is past the end of this one.
        """
        stored = checkpoint.get(CHECKPOINT_KEY)
        is_fit = trainer.state.fn == "fit"
        if is_fit and -1 < trainer.max_steps < checkpoint["global_step"]:
            raise InputError(
                f"trainer.max_steps is {trainer.max_steps}, but the checkpoint has {checkpoint['global_step']} steps "
                "already. Set it to as many at least, or start a new run without --ckpt_path."
            )
        if stored is not None:
            refuse_others(stored, self._settings, is_fit)  # also where the checkpoint is not on this machine
        if not is_fit:
            return
        if stored is None:
            rank_zero_info("the checkpoint does not say what it was trained with (an earlier version wrote it).")
        elif changes := list(describe_changes(stored, self._settings)):
            rank_zero_info(f"other settings than the checkpoint's: {'; '.join(changes)}.")


def plain_config(parser: LightningArgumentParser, options: Namespace) -> dict[str, Any]:
    """Return the resolved configuration of a command in plain values.

    Args:
        parser: the parser of the command.
        options: what it has read.
    """
    resolved = parser.dump(options, skip_none=False)
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(resolved)))


def flat_settings(config: Mapping[str, Any]) -> dict[str, Plain]:
    """Return what matters of a configuration: a dotted name and a plain value for each setting.

    Args:
        config: resolved configuration of a command.

    Returns:
        For instance ``{"model.optimizer.lr": 3e-5}``, in the order of the names. The level ``init_args`` is left out,
        as the command line allows it, too.
    """
    trainer = config.get("trainer") or {}
    sections = {name: config[name] for name in _SECTIONS if name in config}
    sections["trainer"] = {name: trainer[name] for name in _OF_TRAINER if name in trainer}
    found = {name: value for name, value in leaves(sections) if not _LEFT_OUT.match(name)}
    return dict(sorted(found.items()))


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Plain]]:  # noqa: ANN401
    """Yield the dotted name, without ``init_args``, and the plain value of every setting of a configuration."""
    if isinstance(node, Mapping | list) and node:
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in pairs:
            yield from leaves(value, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    elif isinstance(node, str | int | float | bool | None):
        yield name, node
    else:
        yield name, "none" if isinstance(node, Mapping | list) else str(node)


def settings_in(file: str) -> Mapping[str, Plain]:
    """Return the settings in a checkpoint, without reading its weights.

    Args:
        file: path of the checkpoint.

    Returns:
        The settings; none of a file that holds none, is elsewhere (``s3://...``) or cannot be read, which those who
        load it say.
    """
    if "://" not in file:
        with suppress(InputError):
            return cast(Mapping[str, Plain], peek_checkpoint(file).get(CHECKPOINT_KEY, {}))
    return {}


def refuse_others(stored: Mapping[str, Plain], own: Mapping[str, Plain], is_fit: bool = True) -> None:
    """Check that a checkpoint is of the same kind of run.

    Args:
        stored: settings in the checkpoint.
        own: settings of this run.
        is_fit: whether the run is to go on; otherwise only the task counts, for weights may be tried otherwise.

    Raises:
        InputError: it is not; names what differs and the remedy.
    """
    for key, what in _NEVER_TAKEN.items():
        if (is_fit or what == "task") and key in stored and _class_name(stored[key]) != _class_name(own.get(key)):
            remedy = (
                "To start from its weights alone, give it to --model.init_from in place of --ckpt_path, and the run "
                "another --name."
                if is_fit
                else f"Set {key.removesuffix('.class_path')} as it was trained."
            )
            raise InputError(
                f"the checkpoint was trained with the {what} {stored[key]}, not {own.get(key)}: it cannot serve as "
                f"--ckpt_path. {remedy}"
            )


def _class_name(path: Plain) -> str:
    """Return the class of a dotted path; a class may be had from several modules."""
    return str(path).rpartition(".")[2]


def describe_changes(stored: Mapping[str, Plain], own: Mapping[str, Plain]) -> Iterator[str]:
    """Say for each setting that differs what it was and what it is from now on.

    Args:
        stored: settings in the checkpoint.
        own: settings of this run.

    Returns:
        For instance ``learning rate: 0.001 in the checkpoint, 1e-05 from now on``. Of another class (such as a loss)
        only the class is named, not the settings that come with it.
    """
    different = [key for key in sorted({*stored, *own}) if stored.get(key) != own.get(key)]
    paths = [key.removesuffix("class_path") for key in different if key.endswith(".class_path")]
    classes = {path: {_class_name(each.get(f"{path}class_path")) for each in (stored, own)} for path in paths}
    new_classes = tuple(path for path, names in classes.items() if len(names) > 1)
    for key in different:
        if key.endswith(".class_path") or not key.startswith(new_classes):
            yield _change(key.removesuffix(".class_path"), stored.get(key), own.get(key))


def _change(key: str, old: Plain, new: Plain) -> str:
    if key == "model.init_from":
        return f"model.init_from {new} has no effect, the run keeps its own weights"
    if key == "ema.decay" and new is None:
        return f"ema.decay: {old} in the checkpoint, none from now on: its average is dropped"
    was, is_now = ("not set" if value is None else value for value in (old, new))
    return f"{_NAMES.get(key, key)}: {was} in the checkpoint, {is_now} from now on"
