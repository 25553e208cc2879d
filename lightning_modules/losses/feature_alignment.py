"""Losses on features: an inner layer of the network, or its prediction, is to look to a frozen model like the truth."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.errors import InputError
from geometry.masked import masked_mean
from lightning_modules.losses.base import Loss, LossInputs
from lightning_modules.losses.teacher import Teacher, make_projector, normalize_spatially
from lightning_modules.networks.compilation import compiled_regions

Similarity = Literal["cosine", "kl"]
Subject = Literal["target", "image"]
ProjectorKind = Literal["conv", "mlp"]


class FeatureAlignment(Loss):
    """An inner layer of the network must know what a frozen vision transformer sees in the truth, or in the image.

    Convention:
        A hook keeps the output (B,C,h,w) of the layer, or its tokens (B,h*w,C). A small projector turns it into as many
        channels as the teacher has; bilinearly resized to the teacher's patches, it is compared with the teacher's
        features: 1 - cosine, or the Kullback-Leibler divergence of softmaxes over channels, as the mean over patches.
        Features of the truth count where at least half of a patch is known. The projector trains and is in
        checkpoints; neither it nor the teacher is exported, and predictions need neither.

    Args:
        layer: Path of a module in the network, beginning with the name of its model: unet.mid_block in Stable
            Diffusion, or transformer.transformer_blocks.8.
        layer_channels: Channels of its output: 1280 for unet.mid_block of Stable Diffusion.
        teacher: Hub id or folder of a vision transformer, for instance facebook/dinov2-base.
        teacher_channels: Width of the teacher's tokens: 768 for a base model, 1024 for a large one.
        subject: What the teacher sees: target is the truth as an image for the VAE, image the photo.
        similarity: cosine (REPA, iREPA) or kl (DepthMaster).
        projector: conv is a 3x3 convolution (iREPA), mlp two layers on each pixel (DepthMaster).
        spatial_gamma: Share of the mean over the image that is taken from the teacher's features before they are scaled
            to a deviation of 1 (iREPA's spatial normalisation; Marigold V2 has 0.7); 0 leaves them.
        input_size: Longest side in pixels at which the teacher sees the image.
        weight: Factor on the term before it is added.

    Raises:
        InputError: An option is out of range.

    Source:
        Yu et al., "Representation Alignment for Generation" (REPA); Singh et al. (iREPA); Song et al., "DepthMaster";
        Pavlovic et al., "Marigold V2", section 3.3.
    """

    name = "feature_alignment"

    def __init__(
        self,
        layer: str,
        layer_channels: int,
        teacher: str,
        teacher_channels: int,
        subject: Subject = "target",
        similarity: Similarity = "cosine",
        projector: ProjectorKind = "conv",
        spatial_gamma: float = 0.0,
        input_size: int = 224,
        weight: float = 0.2,
    ) -> None:
        super().__init__(weight)
        for value, kinds in ((subject, Subject), (similarity, Similarity), (projector, ProjectorKind)):
            if value not in get_args(kinds):
                raise InputError(f"FeatureAlignment knows no {value!r}; choose one of {', '.join(get_args(kinds))}.")
        if layer_channels < 1 or not 0 <= spatial_gamma <= 1:
            raise InputError(
                f"FeatureAlignment needs layer_channels >= 1 and spatial_gamma in [0, 1], got {layer_channels} and "
                f"{spatial_gamma}."
            )
        self.layer, self.layer_channels = layer, layer_channels
        self.subject, self.similarity, self.spatial_gamma = subject, similarity, spatial_gamma
        self.teacher = Teacher(teacher, teacher_channels, input_size)
        self.projector = make_projector(projector, layer_channels, teacher_channels)
        self._seen: Tensor | None = None
        self._listens = False
        self._hooks: list[Any] = []

    def attach(self, network: nn.Module) -> None:
        """Listen to the layer, and load the teacher.

        Raises:
            InputError: the network has no such layer or is compiled, or the teacher cannot be had.
        """
        modules = dict(network.named_modules())
        if self.layer not in modules or not self.layer:
            parents = (self.layer.rpartition(".")[0], "")
            near = [[name for name in modules if name and name.rpartition(".")[0] == parent] for parent in parents]
            raise InputError(
                f"FeatureAlignment: the network has no layer {self.layer!r}; it has, for instance, "
                f"{', '.join((near[0] or near[1])[:8])}."
            )
        model = modules[self.layer.split(".")[0]]
        if compiled_regions(model):
            raise InputError("FeatureAlignment does not work with network.compile; leave one of them out.")
        self.teacher.load()
        for hook in self._hooks:
            hook.remove()
        self._hooks = [
            model.register_forward_pre_hook(self._begin),
            modules[self.layer].register_forward_hook(self._keep),
        ]

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the mean distance over the patches that count."""
        seen, self._seen, self._listens = self._seen, None, False
        if seen is None:
            raise InputError(
                f"FeatureAlignment: layer {self.layer} did not run before the loss. It works in training alone, with "
                "a layer that every step uses."
            )
        if len(seen) != len(inputs.batch):
            raise InputError("FeatureAlignment does not work with network.switch, whose outputs share a batch.")
        with torch.autocast(inputs.prediction.device.type, enabled=False):
            layer = self._as_image(seen, *inputs.batch.image.shape[-2:])
            features = self.projector(layer.float())
            with torch.no_grad():
                subject = inputs.target_image if self.subject == "target" else inputs.batch.image
                taught = normalize_spatially(self.teacher.features(subject), self.spatial_gamma)
            return self(features, taught, self._known(inputs.target.mask, taught))

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean distance of features.

        Args:
            prediction: (B,D,h',w'), projected features of the layer.
            target: (B,D,h,w), features of the teacher.
            valid_mask: (B,1,h,w) bool.
        """
        size = target.shape[-2:]
        if prediction.shape[-2:] != size:
            prediction = F.interpolate(prediction, size, mode="bilinear", antialias=True)
        if self.similarity == "cosine":
            distance = 1 - F.cosine_similarity(prediction, target, dim=1)[:, None]
        else:
            known, learnt = target.log_softmax(dim=1), prediction.log_softmax(dim=1)
            distance = F.kl_div(learnt, known, reduction="none", log_target=True).sum(dim=1, keepdim=True)
        return masked_mean(distance, valid_mask, "pixel")

    def _begin(self, model: nn.Module, inputs: Any) -> None:  # noqa: ANN401 - whatever the model takes
        """Listen from now on to the loss: recomputed activations come later, in the backward pass."""
        self._seen, self._listens = None, torch.is_grad_enabled()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401 - of any layer
        if self._listens:
            self._seen = output[0] if isinstance(output, tuple | list) else output

    def _known(self, mask: Tensor, taught: Tensor) -> Tensor:
        if self.subject == "image":
            return mask.new_ones(()).expand(len(mask), 1, *taught.shape[-2:])
        return F.adaptive_avg_pool2d(mask.float(), list(taught.shape[-2:])) >= 0.5  # type: ignore[arg-type]

    def _as_image(self, output: Tensor, height: int, width: int) -> Tensor:
        """Return the layer's output as (B,C,h,w)."""
        if output.ndim == 3:
            pixels_per_token = (height * width / output.shape[1]) ** 0.5
            rows, columns = round(height / pixels_per_token), round(width / pixels_per_token)
            if rows * columns != output.shape[1]:
                raise InputError(
                    f"FeatureAlignment: layer {self.layer} has {output.shape[1]} tokens for an image of "
                    f"{height}x{width} pixels, which is no grid of them; choose a layer of image tokens alone."
                )
            output = output.mT.unflatten(2, (rows, columns))
        if output.ndim != 4 or output.shape[1] != self.layer_channels:
            raise InputError(
                f"FeatureAlignment: layer {self.layer} puts out {tuple(output.shape)}; set layer_channels to its "
                "second number, or choose a layer whose output is (B,C,h,w) or (B,h*w,C)."
            )
        return output


class FeatureMatching(Loss):
    """The predicted image must look to a frozen vision transformer like the truth's.

    Convention:
        The teacher sees prediction and truth as images in the range of the VAE's, in three channels. Both features are
        normalised spatially; the mean absolute difference of the tokens plus that of the cosines between all pairs of
        tokens is returned. The gradient flows through the teacher. Only known pixels are compared: the prediction shows
        the truth's value where the truth is unknown.

    Args:
        teacher: Hub id or folder of a vision transformer, for instance facebook/dinov3-vitb16-pretrain-lvd1689m.
        teacher_channels: Width of its tokens: 768 for a base model.
        spatial_gamma: Share of the mean over the image that is taken off.
        input_size: Longest side in pixels at which the teacher sees the images.
        weight: Factor on the term before it is added.

    Source:
        The public code of Pavlovic et al., "Marigold V2" (DINOv3 spatial loss). Deviation: the image keeps its shape,
        and all pairs of tokens count.
    """

    name = "feature_matching"

    def __init__(
        self,
        teacher: str,
        teacher_channels: int,
        spatial_gamma: float = 0.7,
        input_size: int = 224,
        weight: float = 0.2,
    ) -> None:
        super().__init__(weight)
        self.teacher = Teacher(teacher, teacher_channels, input_size)
        self.spatial_gamma = spatial_gamma

    def attach(self, network: nn.Module) -> None:
        """Load the teacher."""
        self.teacher.load()

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the term for the prediction as an image."""
        shown = torch.where(inputs.target.mask, inputs.prediction, inputs.perfect)
        return self(shown, inputs.perfect, inputs.target.mask)

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the distance of the features of two images.

        Args:
            prediction: (B,1,H,W) or (B,3,H,W), in [-1, 1].
            target: of the same shape.
            valid_mask: (B,1,H,W) bool; images without a known pixel count for nothing.
        """
        learnt, known = (
            normalize_spatially(self.teacher.features(image.expand(-1, 3, -1, -1)), self.spatial_gamma)
            for image in (prediction, target.detach())
        )
        distance = (learnt - known).abs().mean(dim=(1, 2, 3))
        distance = distance + (_cosines(learnt) - _cosines(known)).abs().mean(dim=(1, 2))
        counts = valid_mask.flatten(1).any(dim=1)
        return masked_mean(distance[:, None, None, None], counts[:, None, None, None], "pixel")


def _cosines(features: Tensor) -> Tensor:
    """Return (B,N,N): the cosine between all pairs of the N pixels of (B,D,h,w)."""
    unit = F.normalize(features.flatten(2), dim=1)
    return unit.mT @ unit
