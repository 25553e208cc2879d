"""The single step in the plainest way, written without the project's code: what it is tested and timed against."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel


class Reference:
    """The parts of a base, with the UNet widened where there is noise.

    Args:
        base: folder in the diffusers layout.
        noise: kind of noise.
        dtype: arithmetic, float64 to test against.
        scaling_factor: of latents; that of Stable Diffusion.
    """

    def __init__(self, base, noise, dtype=torch.float64, scaling_factor=0.18215):
        self.vae = AutoencoderKL.from_pretrained(base, subfolder="vae").to(dtype).requires_grad_(False)
        self.unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").to(dtype)
        text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").to(dtype)
        begin_and_end = torch.tensor([[text_encoder.config.bos_token_id, text_encoder.config.eos_token_id]])
        self.prompt = text_encoder(begin_and_end).last_hidden_state.detach()
        self.dtype, self.scaling_factor = dtype, scaling_factor
        if noise != "none":
            narrow = self.unet.conv_in
            wide = torch.nn.Conv2d(8, narrow.out_channels, 3, padding=1).to(dtype)
            wide.weight.data = torch.cat([narrow.weight.data, narrow.weight.data], dim=1) / 2
            wide.bias.data = narrow.bias.data
            self.unet.conv_in = wide


def transcribed_step(reference, batch, prediction_type, noise_kind, is_depth, seeds):
    """Return prediction and loss, with their graph."""
    vae, unet, dtype = reference.vae, reference.unet, reference.dtype
    factor = reference.scaling_factor
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(batch.image.to(dtype)))
    image_latent = factor * moments[:, :4]
    noise = transcribed_noise(noise_kind, image_latent.shape, seeds).to(dtype)
    unet_input = image_latent if noise_kind == "none" else torch.cat([image_latent, noise], dim=1)
    prompt = reference.prompt.expand(len(unet_input), -1, -1)
    model_output = unet(unet_input, 999, encoder_hidden_states=prompt).sample

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = torch.cumprod(1 - betas, dim=0)[999].to(dtype)
    clean = {
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * model_output,
        "epsilon": (noise - (1 - alpha).sqrt() * model_output) / alpha.sqrt(),
        "sample": model_output,
    }[prediction_type]
    decoded = vae.decoder(vae.post_quant_conv(clean / factor))
    if is_depth:
        prediction = decoded.mean(dim=1, keepdim=True).clamp(-1, 1)
        return prediction, transcribed_depth_loss(prediction, batch)
    prediction = decoded / (decoded.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-5)
    return prediction, transcribed_normals_loss(prediction, batch)


def transcribed_noise(kind, shape, seeds):
    if kind in ("zeros", "none"):
        return torch.zeros(shape)
    images = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(shape[1:], generator=generator)
        if kind == "pyramid":
            height, width = shape[2:]
            for level in range(10):
                ratio = torch.rand((), generator=generator).item() * 2 + 2
                height, width = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
                coarse = torch.randn(1, shape[1], height, width, generator=generator)
                noise = noise + F.interpolate(coarse, size=tuple(shape[2:]), mode="bilinear")[0] * 0.9**level
                if height == 1 or width == 1:
                    break
            noise = noise / noise.std()
        images.append(noise)
    return torch.stack(images)


def transcribed_depth_loss(prediction, batch):
    residuals = []
    for predicted, depth, valid in zip(
        prediction, batch.targets["depth"].values.to(prediction.dtype), batch.targets["depth"].mask, strict=True
    ):
        p, d = predicted[valid], depth[valid]
        d = d.clamp(torch.quantile(d, 0.02), torch.quantile(d, 0.98))
        columns = torch.stack([p, torch.ones_like(p)], dim=1)
        scale, shift = torch.linalg.solve(columns.T @ columns, columns.T @ d)
        residuals.append((scale * p + shift - d).abs())
    return torch.cat(residuals).mean()


def transcribed_normals_loss(prediction, batch):
    truth, valid = batch.targets["normals"].values.to(prediction.dtype), batch.targets["normals"].mask[:, 0]
    length = prediction.pow(2).sum(dim=1).sqrt() * truth.pow(2).sum(dim=1).sqrt()
    cosine = (prediction * truth).sum(dim=1)[valid] / length[valid]
    return torch.arccos(cosine.clamp(-1, 1)).mean()
