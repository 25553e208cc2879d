"""Equirectangular panoramas, predicted in overlapping perspective views that are aligned and blended."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geometry.alignment.views import ViewFits, fit_views
from geometry.errors import InputError
from geometry.modalities import Depth
from geometry.panorama import (
    panorama_at,
    panorama_directions,
    places_in_view,
    spread_directions,
    values_at,
    view_directions,
    view_rotations,
)
from lightning_modules.inference.image_inputs import ImageLike, as_rgb, largest_value
from lightning_modules.inference.predictor import Predictor

# Distances of views are compared along so many rays, and panoramas put together in strips of so many pixels.
_COMPARED_RAYS = 8_000
_STRIP_PIXELS = 1_000_000
_VIEWS_AT_ONCE = 4
_SMALLEST_HEIGHT = 16


class PanoramaPredictor(Predictor):
    """Predicts equirectangular images, twice as wide as high, in 20 views of 90 degrees.

    Convention:
        Depth becomes the distance along the ray, not planar depth, which a panorama has not: 1 is the farthest, and
        distances are known up to one scale, not a shift. Each view has a scale and a shift of its own, which are fitted
        so that views agree where they overlap. Normals are turned into the frame of a camera that looks at the
        panorama's centre. Everything else is blended as it is. A view counts less toward its edges.

    Args:
        *arguments: Those of ``Predictor``.
        **options: Those of ``Predictor``.
    """

    @property
    def kind(self) -> str:
        """What names of results hold."""
        return "ray_distance" if isinstance(self.modality, Depth) else self.modality.name

    def predict(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        """Return the predictions of panoramas.

        Args:
            images: each as for a call.

        Returns:
            float32 each, at the size of its image: (H,W) for a single channel, else (H,W,C).

        Raises:
            InputError: an image is not twice as wide as high.
        """
        return [self._predict_panorama(as_rgb(image)) for image in images]

    def needs_tiles(self, height: int, width: int) -> bool:
        """Say that a panorama is predicted by itself."""
        return True

    def _predict_panorama(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if abs(width - 2 * height) > 2 or height < _SMALLEST_HEIGHT:
            raise InputError(
                f"an image of {width}x{height} pixels is no equirectangular panorama, which is twice as wide as high "
                f"and at least {_SMALLEST_HEIGHT} pixels high; leave --panorama out."
            )
        rotations = view_rotations()
        views = self._views(image, rotations)
        fits = self._fits(views, rotations) if isinstance(self.modality, Depth) else None
        blended = self._blend(views, rotations, fits, height, width)
        if fits is not None:
            return (blended[0] / blended.max()).numpy()
        blended = self.modality.renormalize(blended[None])[0]
        return (blended[0] if len(blended) == 1 else blended.movedim(0, -1)).contiguous().numpy()

    def _views(self, image: np.ndarray, rotations: Tensor) -> list[Tensor]:
        """Return the published predictions (C,S,S) of all views, at the panorama's resolution in their centres."""
        size = max(8, round(image.shape[1] / np.pi))
        colors = torch.from_numpy(image.astype(np.float32)).movedim(-1, 0) / largest_value(image)
        views: list[Tensor] = []
        for group in rotations.split(_VIEWS_AT_ONCE):
            seen = [panorama_at(colors, view_directions(rotation, size)) for rotation in group]
            arrays = [view.clamp(0, 1).movedim(0, -1).contiguous().numpy() for view in seen]
            groups = [[array] for array in arrays] if super().needs_tiles(size, size) else [arrays]
            for together in groups:
                views += [torch.from_numpy(found) for found in super().predict(together)]
        return [view[None] if view.ndim == 2 else view.movedim(-1, 0).contiguous() for view in views]

    def _fits(self, views: list[Tensor], rotations: Tensor) -> ViewFits:
        """Return the scale and shift of each view of depth."""
        assert isinstance(self.modality, Depth)
        directions = spread_directions(_COMPARED_RAYS)
        shares, lengths, weights = [], [], []
        for view, rotation in zip(views, rotations, strict=True):
            places, length, seen = places_in_view(directions, rotation)
            shares.append(values_at(self.modality.to_affine(view).double(), places)[0])
            lengths.append(torch.where(seen, length, 1.0))
            weights.append(torch.where(seen, _weight(places), 0.0))
        return fit_views(
            torch.stack(shares), torch.stack(lengths), torch.stack(weights), self.modality.parameterization
        )

    def _blend(self, views: list[Tensor], rotations: Tensor, fits: ViewFits | None, height: int, width: int) -> Tensor:
        """Return all views as one panorama (C,H,W) float32."""
        panorama = torch.empty(len(views[0]), height, width)
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            directions = panorama_directions(height, width, strip).flatten(1)
            total = torch.zeros(len(panorama), directions.shape[1], dtype=torch.float64)
            weights = torch.zeros(directions.shape[1], dtype=torch.float64)
            for number, (view, rotation) in enumerate(zip(views, rotations, strict=True)):
                places, length, seen = places_in_view(directions, rotation)
                if not seen.any():
                    continue
                places, length = places[seen], length[seen]
                weight = _weight(places)
                if fits is None:
                    found = values_at(view, places).double()
                    found = self.modality.turn(found[None, :, None], rotation)[0, :, 0]
                else:
                    found = fits.distance(number, values_at(self.modality.to_affine(view), places), length)
                total[:, seen] += weight * found
                weights[seen] += weight
            panorama[:, strip] = (total / weights).float().reshape(len(panorama), -1, width)
        return panorama


def _weight(places: Tensor) -> Tensor:
    """Return how much a view counts at places in it: 1 in the middle, almost 0 at its edges."""
    return (1 - places.abs()).clamp(min=1e-3).prod(dim=-1).square()
