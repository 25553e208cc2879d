"""What a trainer must be like for an estimator, checked before anything is trained."""

from lightning.pytorch import Trainer

from geometry.contract import TrainingData
from geometry.errors import InputError
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.training.precision import check_precision
from lightning_modules.training.strategy import check_strategy


def check_trainer(trainer: Trainer) -> None:
    """Check that a trainer clips nothing itself, and that strategy and precision are such as training works with.

    Args:
        trainer: the trainer.

    Raises:
        InputError: something of it is not.
    """
    if trainer.gradient_clip_val is not None:
        raise InputError(
            "trainer.gradient_clip_val does not work with fused optimisers in mixed precision; set "
            "gradient_clip_norm of the model in its place."
        )
    check_strategy(trainer.strategy)
    check_precision(trainer.precision, "trainer.precision")


def check_image_sizes(network: LatentNetwork, data: TrainingData) -> None:
    """Check that a network can take the images of all data sets.

    Args:
        network: the network.
        data: the data module, set up.

    Raises:
        InputError: it cannot; the data set is named.
    """
    for name, size in data.image_sizes.items():
        try:
            network.check_size(*size)
        except InputError as error:
            raise InputError(f"data set {name}: {error}") from error
