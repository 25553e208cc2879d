"""Stable Diffusion 3's transformer as a denoiser."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lightning_modules.networks.denoiser import Denoiser

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel


class StableDiffusion3Denoiser(Denoiser):
    """A transformer that takes latents as an image and patches them itself.

    Args:
        model: The transformer, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D) and pooled_prompt_embedding (1,P).
        **options: Those of every denoiser.
    """

    first_layer = "pos_embed.proj"
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    )

    model: "SD3Transformer2DModel"

    def __init__(self, model: "SD3Transformer2DModel", conditioning: Mapping[str, Tensor], **options: Any) -> None:  # noqa: ANN401
        self.latent_multiple: int = model.config["patch_size"]
        self.largest_latent: int | None = model.config["pos_embed_max_size"] * self.latent_multiple
        super().__init__(model, conditioning, **options)

    def idle_layers(self, model: nn.Module) -> Sequence[str]:
        """Return the text's queries in the last block, whose text goes nowhere."""
        last = f"transformer_blocks.{len(model.transformer_blocks) - 1}.attn"  # type: ignore[arg-type]
        present = {name for name, _ in model.named_modules()}
        return [name for name in (f"{last}.add_q_proj", f"{last}.norm_added_q") if name in present]

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity: see ``Denoiser``."""
        batch = latents.shape[0]
        return self.model(
            latents,
            encoder_hidden_states=conditioning["prompt_embedding"].expand(batch, -1, -1),
            pooled_projections=conditioning["pooled_prompt_embedding"].expand(batch, -1),
            timestep=timesteps.expand(batch),
            return_dict=False,
        )[0]
