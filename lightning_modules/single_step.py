"""The estimator of the paper: one step at the last timestep, trained end to end in pixel space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.losses.auxiliary import ImageReconstruction, LatentConsistency
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.outputs import IMAGE
from lightning_modules.tasks import Task


class SingleStepEstimator(Estimator):
    """Depth or normals in a single step of a diffusion network, fine-tuned end to end on the task.

    The image goes through the frozen VAE encoder, the trained backbone at its one timestep and the frozen VAE
    decoder; the loss is taken in pixel space, and its gradient flows through the decoder. Where all losses of the task
    have weight 0, the term between latents alone trains, and the decoder's graph is not kept. With several tasks
    (SeveralTasks), the network's switch has an output for each, and their losses are added.

    Args:
        network: Network that is trained.
        task: What the network predicts: depth, normals or another task, or several tasks.
        latent_consistency: Term that keeps predicted latents close to those of the truth; none by default.
        image_reconstruction: Let the output image of the network's switch reconstruct the image, to keep details, for
            instance {weight: 1}; by default, that output does not train.
        **options: What every estimator takes.

    Raises:
        InputError: The network's switch has no output for a task or for the image, or several tasks have no switch.

    Source:
        Martin Garcia et al., "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think", WACV 2025.
        Switch and reconstruction: He et al., "Lotus", ICLR 2025.
    """

    def __init__(
        self,
        network: LatentNetwork,
        task: Task,
        latent_consistency: LatentConsistency | None = None,
        image_reconstruction: ImageReconstruction | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(network, task, **options)
        self.latent_consistency = latent_consistency
        self.image_reconstruction = image_reconstruction
        self.outputs = self._outputs()
        if image_reconstruction is not None and (network.switch is None or IMAGE not in network.switch.outputs):
            raise InputError(
                f"model.image_reconstruction needs a network with an output {IMAGE}: write network.switch, such as "
                "{outputs: [annotation, image]}."
            )

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None, dataset: str | None = None) -> Tensor:
        """Return the prediction.

        Args:
            image: (B,3,H,W) in [-1, 1]; height and width are multiples of the network's size_multiple.
            seeds: one seed per image for the latent noise; unused with the default, zeros.
            dataset: name of the data set that the images come from, where it is known.

        Returns:
            (B,C,H,W) float32, as the task defines it; of several tasks, the channels of all.
        """
        latents = self.network.predict_latents(image, seeds, self.outputs, dataset)
        members = self.task.members
        parts = [task.predict(self.network.decode(z)) for task, z in zip(members, latents, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @property
    def draws_noise(self) -> bool:
        """Whether predictions depend on the seeds."""
        return self.network.noise in ("gaussian", "pyramid")

    def predict_batch(self, image: Tensor, batch: GeometryBatch, seeds: Sequence[int]) -> Tensor:
        """Return the prediction for the images of a batch: see ``Estimator``."""
        return self(image, seeds, batch.dataset.name)

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of the predictions, with the terms between latents if there are any.

        Args:
            batch: images of one data set.
            seeds: one seed per image for the latent noise.
        """
        outputs = [*self.outputs, *([IMAGE] if self.image_reconstruction is not None else [])]
        latents = self.network.predict_latents(batch.image, seeds, outputs, batch.dataset.name)
        losses: list[Tensor] = []
        extras: dict[str, Tensor] = {}
        for task, latent in zip(self.task.members, latents, strict=False):
            loss, more = self._task_loss(task, latent, batch)
            if len(self.task.members) > 1:
                name = task.modality.name
                more = {f"{name}_loss": loss.detach()} | {f"{name}_{key}": value for key, value in more.items()}
            losses.append(loss)
            extras |= more
        if self.image_reconstruction is not None:
            known = torch.ones_like(latents[-1][:, :1], dtype=torch.bool)
            loss, more = self._between(self.image_reconstruction, latents[-1], batch.image, known)
            losses.append(loss)
            extras |= more
        return sum(losses[1:], losses[0]), extras

    def _task_loss(self, task: Task, latent: Tensor, batch: GeometryBatch) -> tuple[Tensor, dict[str, Tensor]]:
        counts = self.latent_consistency is None or any(loss.weight_at(self.global_step) for loss in task.losses)
        with torch.set_grad_enabled(counts and torch.is_grad_enabled()):
            prediction = task.predict(self.network.decode(latent))
        loss, extras = task.training_loss(prediction, batch, self.global_step)
        if self.latent_consistency is None:
            return loss, extras
        image, known = task.target_image(batch)
        known, image = self.network.codec.known_latents(known), image.to(batch.image.dtype)
        term, more = self._between(self.latent_consistency, latent, image, known)
        return loss + term, extras | more

    def _between(
        self, loss: LatentConsistency, latent: Tensor, image: Tensor, known: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a weighted term between a predicted latent and that of an image, and its value by name."""
        target = self.network.encode(image)
        with torch.autocast(latent.device.type, enabled=False):
            value = loss(latent, target, known)
        return loss.weight * value, {loss.name: value.detach()}

    def _outputs(self) -> list[str]:
        """Return the names of the outputs of the network's switch that the tasks predict; none without a switch."""
        switch, members = self.network.switch, self.task.members
        if switch is None:
            if len(members) > 1:
                raise InputError(
                    "several tasks need a network with an output for each: write network.switch, or for an editor "
                    f"network.outputs, for instance {{outputs: [{', '.join(m.modality.name for m in members)}]}}."
                )
            return []
        outputs = [switch.output_of(member.modality.name) for member in members]
        if len(set(outputs)) < len(outputs):
            raise InputError(f"{switch.option} {switch.outputs} needs an output for each of several tasks.")
        return outputs
