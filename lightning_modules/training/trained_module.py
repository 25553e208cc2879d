"""What the parts of training know of an estimator."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set

from torch import Tensor

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from lightning_modules.predicting import Predicting
from lightning_modules.training.stored_weights import describe_mismatch


class TrainedModule(Predicting):
    """An estimator as far as training concerns it: what predicts, and what it costs.

    Attributes:
        val_dataset_names: names of the validation data sets, in their order.
        step_losses: () each, losses of the micro-batches of the step so far.
        bar_values: what a progress bar shows, by name. Lightning would read what is logged for bars after every
            micro-batch, and the host would wait for the device.
    """

    val_dataset_names: list[str]
    step_losses: list[Tensor]
    bar_values: dict[str, Tensor | float]

    @abstractmethod
    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of a batch, and further scalars worth logging by name."""

    def trained_names(self) -> set[str]:
        """Return the names of the weights that train, which are those in checkpoints."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def check_fits(self, weights: Mapping[str, Tensor], may_lack: Set[str] = frozenset()) -> None:
        """Check that stored weights are all of those that train.

        Args:
            weights: the weights by name.
            may_lack: names of weights that may also be missing.

        Raises:
            InputError: weights are missing, unknown or of another shape.
        """
        found = describe_mismatch(weights, self.state_dict(), self.trained_names() - (may_lack - weights.keys()))
        if found:
            raise InputError(
                f"the checkpoint does not fit the network: it {found}. It was made with another base or with other "
                "settings of the network."
            )
