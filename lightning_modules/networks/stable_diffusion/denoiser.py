"""Stable Diffusion's UNet as a denoiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from geometry.errors import InputError
from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.task_switch import LABELS, TaskSwitch

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

#: Name in the conditioning of what cross-attention sees.
PROMPT = "prompt_embedding"
# So many levels that no latent could be halved evenly as often.
_MOST_LEVELS = 24


class UNetDenoiser(Denoiser):
    """A UNet under the empty prompt.

    Args:
        model: The UNet, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D); nothing where each image brings an embedding of its own.
        **options: Those of every denoiser.
    """

    name = "unet"
    first_layer = "conv_in"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")

    model: "UNet2DConditionModel"

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the UNet's output, which is what the scheduler's prediction_type says: see ``Denoiser``."""
        prompt = conditioning[PROMPT].expand(latents.shape[0], -1, -1)
        labels = conditioning.get(LABELS)
        told = {} if labels is None else {"class_labels": labels.to(latents.dtype)}
        return self.model(latents, timesteps, encoder_hidden_states=prompt, return_dict=False, **told)[0]

    @property
    def repeated_blocks(self) -> tuple[str, ...]:
        """Names of the classes of blocks, residual ones too; diffusers lists the transformers alone."""
        return ("ResnetBlock2D", "BasicTransformerBlock")

    def sharded_blocks(self) -> list[nn.Module]:
        """Return the levels of the UNet."""
        middle = [] if self.model.mid_block is None else [self.model.mid_block]
        return [*self.model.down_blocks, *middle, *self.model.up_blocks]

    def make_traceable(self) -> None:
        """Let the UNet take sizes from its skip connections always, not only at sizes that it cannot halve evenly."""
        self.model.num_upsamplers = _MOST_LEVELS
        for level in self.model.up_blocks:
            if isinstance(level.upsamplers, nn.ModuleList):
                level.upsamplers = nn.ModuleList(map(_TraceableUpsampler, level.upsamplers))


class _TraceableUpsampler(nn.Module):
    """An upsampler of the UNet that compares no sizes: the tracer makes a rule of what a comparison said.

    Args:
        upsampler: diffusers' own, whose convolution is taken.
    """

    conv: nn.Module

    def __init__(self, upsampler: nn.Module) -> None:
        super().__init__()
        self.add_module("conv", upsampler.get_submodule("conv"))

    def forward(self, features: Tensor, output_size: tuple[int, int]) -> Tensor:
        """Return features at a size."""
        return self.conv(nn.functional.interpolate(features, size=output_size, mode="nearest"))


def fit_switch(unet: "UNet2DConditionModel", switch: TaskSwitch, base: str) -> bool:
    """Let a UNet be told which output to give, and say whether the embedding of labels had to be added.

    Args:
        unet: the UNet to change; its config is changed too, so that it can be saved and loaded again.
        switch: what it is told.
        base: name of the base, for the message.

    Raises:
        InputError: the UNet was made for labels of another width.
    """
    from diffusers.models.embeddings import TimestepEmbedding

    width = unet.config["projection_class_embeddings_input_dim"]
    if unet.class_embedding is not None:
        if width != switch.width:
            raise InputError(
                f"the UNet of {base} takes class labels of {width} numbers, but network.switch gives {switch.width}: "
                "two for each output, and six more with a domain. Write the switch that the base was trained with."
            )
        return False
    unet.class_embedding = TimestepEmbedding(switch.width, unet.time_embedding.linear_1.out_features)
    unet.register_to_config(class_embed_type="projection", projection_class_embeddings_input_dim=switch.width)
    return True
