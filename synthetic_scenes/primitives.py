"""Solid shapes that a ray can hit, each vectorised over all rays of an image.

Convention:
    World frame x right, y up, z backward, in metres. Points and directions are (3,N) float32 arrays.
    A hit is ``origin + t * direction``; one origin or direction may serve all rays as (3,1). Directions need not be
    unit vectors, so that with camera rays scaled to z = -1 the parameter ``t`` is the planar depth itself.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from synthetic_scenes.materials import Material

Array = np.ndarray

MISS = np.float32(np.inf)
_EPSILON = np.float32(1e-4)
_UPRIGHT = np.eye(3, dtype=np.float32)


@dataclass
class Surface:
    """What shading needs to know of N hits on one shape.

    Attributes:
        normals: (3,N) outward unit normals in the world frame.
        u: (N,) first texture coordinate in metres along the surface.
        v: (N,) second texture coordinate in metres.
        face: (N,) integer, which face of the shape was hit.
    """

    normals: Array
    u: Array
    v: Array
    face: Array


@dataclass
class Shape(ABC):
    """A shape with one material per face (the list is repeated when it is shorter).

    Attributes:
        materials: surface materials by face number.
        center: (3,) position in the world, metres.
        rotation: (3,3) world from local.
        inward_normals: the data set stores this shape's normals facing away from the camera, as some
            meshes of Hypersim do. Shading is not affected.
    """

    materials: list[Material]
    center: Array = field(default_factory=lambda: np.zeros(3, np.float32))
    rotation: Array = field(default_factory=lambda: _UPRIGHT.copy())
    inward_normals: bool = False

    def __post_init__(self) -> None:
        self.center = np.asarray(self.center, np.float32)
        self.rotation = np.asarray(self.rotation, np.float32)

    def intersect(self, origins: Array, directions: Array) -> Array:
        """Nearest hit in front of each ray, (N,) float32, infinite where there is none.

        Args:
            origins: (3,N) or (3,1) world points.
            directions: (3,N) or (3,1) world directions.
        """
        count = np.broadcast_shapes(origins.shape, directions.shape)[1]
        near = np.flatnonzero(np.broadcast_to(self._may_hit(origins, directions), count))
        starts, courses = (rays if rays.shape[1] == 1 else rays[:, near] for rays in (origins, directions))
        enter, leave = self._interval(self.rotation.T @ (starts - self.center[:, None]), self.rotation.T @ courses)
        t = np.full(count, MISS)
        t[near] = np.where((enter <= leave) & (enter > _EPSILON), enter, MISS)
        return t

    def _may_hit(self, origins: Array, directions: Array) -> Array:
        """Whether each ray's line passes the bounding sphere; spares most rays the exact test."""
        offsets = self.center[:, None] - origins
        along = dot(offsets, directions)
        squared_offset = dot(offsets, offsets)
        # |offset|^2 - along^2 / |direction|^2 < radius^2, with room for rounding.
        reach = squared_offset - np.float32(1.02 * self.bounding_radius_m**2) - np.float32(1e-5) * squared_offset
        return along * along > reach * dot(directions, directions)

    def surface(self, points: Array) -> Surface:
        """Normals and texture coordinates of (3,N) world points on this shape."""
        surface = self._local_surface(self.rotation.T @ (points - self.center[:, None]))
        surface.normals = self.rotation @ surface.normals
        return surface

    @abstractmethod
    def _interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Parameters where each ray enters and leaves the solid; enter > leave on a miss. Local frame."""

    @abstractmethod
    def _local_surface(self, points: Array) -> Surface:
        """``surface`` in the local frame."""

    @property
    @abstractmethod
    def bounding_radius_m(self) -> float:
        """Radius of a sphere around ``center`` that holds the shape."""


@dataclass
class Box(Shape):
    """A cuboid.

    Attributes:
        half_size: (3,) half extents along the local axes, metres.
    """

    half_size: Array = field(default_factory=lambda: np.full(3, 0.5, np.float32))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.half_size = np.asarray(self.half_size, np.float32)

    def _interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        inverse = 1 / _nonzero(directions)
        half = self.half_size[:, None]
        first, second = (-half - origins) * inverse, (half - origins) * inverse
        return np.minimum(first, second).max(axis=0), np.maximum(first, second).min(axis=0)

    def _local_surface(self, points: Array) -> Surface:
        relative = points / self.half_size[:, None]
        axis = np.abs(relative).argmax(axis=0)
        index = np.arange(points.shape[1])
        sign = np.sign(relative[axis, index])
        normals = np.zeros_like(points)
        normals[axis, index] = sign
        u = np.where(axis == 0, points[2], points[0])
        v = np.where(axis == 1, points[2], points[1])
        return Surface(normals, u, v, 2 * axis + (sign > 0))

    @property
    def bounding_radius_m(self) -> float:
        """Half the space diagonal."""
        return float(np.linalg.norm(self.half_size))


@dataclass
class Opening:
    """A rectangular hole in a wall of a ``Room``, through which there is nothing but sky.

    Attributes:
        face: number of the wall (as ``Surface.face``).
        u: lowest and highest texture coordinate u, metres.
        v: lowest and highest texture coordinate v, metres.
    """

    face: int
    u: tuple[float, float]
    v: tuple[float, float]


@dataclass
class Room(Box):
    """A box seen from inside, with openings.

    Attributes:
        openings: windows and doorways.
    """

    openings: list[Opening] = field(default_factory=list)

    def intersect(self, origins: Array, directions: Array) -> Array:
        """Hits on the inner side of the walls; rays through an opening miss."""
        local_origins = self.rotation.T @ (origins - self.center[:, None])
        local_directions = self.rotation.T @ directions
        enter, leave = self._interval(local_origins, local_directions)
        t = np.where((enter <= leave) & (leave > _EPSILON), leave, MISS)
        if self.openings:
            t = np.where(self._is_open(local_origins + np.where(np.isfinite(t), t, 0) * local_directions), MISS, t)
        return t

    def _local_surface(self, points: Array) -> Surface:
        surface = super()._local_surface(points)
        surface.normals = -surface.normals
        return surface

    def _is_open(self, points: Array) -> Array:
        surface = super()._local_surface(points)
        is_open = np.zeros(points.shape[1], bool)
        for opening in self.openings:
            inside_u = (surface.u > opening.u[0]) & (surface.u < opening.u[1])
            inside_v = (surface.v > opening.v[0]) & (surface.v < opening.v[1])
            is_open |= (surface.face == opening.face) & inside_u & inside_v
        return is_open


@dataclass
class Sphere(Shape):
    """A ball.

    Attributes:
        radius_m: radius in metres.
    """

    radius_m: float = 0.5

    def _interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        return _round_interval(origins, directions, self.radius_m)

    def _local_surface(self, points: Array) -> Surface:
        normals = points / np.linalg.norm(points, axis=0)
        u = self.radius_m * np.arctan2(normals[0], normals[2])
        v = self.radius_m * np.arcsin(np.clip(normals[1], -1, 1))
        return Surface(normals, u, v, np.zeros(points.shape[1], int))

    @property
    def bounding_radius_m(self) -> float:
        """The radius itself."""
        return self.radius_m


@dataclass
class Cylinder(Shape):
    """A capped cylinder around the local y axis.

    Attributes:
        radius_m: radius in metres.
        half_height_m: half the height in metres.
    """

    radius_m: float = 0.3
    half_height_m: float = 0.5

    def _interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        enter, leave = _round_interval(origins[::2], directions[::2], self.radius_m)
        inverse = 1 / _nonzero(directions[1])
        low, high = (-self.half_height_m - origins[1]) * inverse, (self.half_height_m - origins[1]) * inverse
        return np.maximum(enter, np.minimum(low, high)), np.minimum(leave, np.maximum(low, high))

    def _local_surface(self, points: Array) -> Surface:
        x, y, z = points
        radial = np.hypot(x, z)
        on_cap = self.half_height_m - np.abs(y) < self.radius_m - radial
        side = np.stack([x, np.zeros_like(y), z]) / np.maximum(radial, 1e-6)
        cap = np.stack([np.zeros_like(y), np.sign(y), np.zeros_like(y)])
        u = np.where(on_cap, x, self.radius_m * np.arctan2(x, z))
        return Surface(np.where(on_cap, cap, side), u, np.where(on_cap, z, y), on_cap.astype(int))

    @property
    def bounding_radius_m(self) -> float:
        """Distance from the centre to the rim."""
        return float(np.hypot(self.radius_m, self.half_height_m))


@dataclass
class Ground(Shape):
    """The endless horizontal plane through ``center``."""

    def _may_hit(self, origins: Array, directions: Array) -> Array:
        return directions[1] < 0

    def _interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        t = -origins[1] / _nonzero(directions[1])
        return t, np.full_like(t, MISS)

    def _local_surface(self, points: Array) -> Surface:
        normals = np.zeros_like(points)
        normals[1] = 1
        return Surface(normals, points[0], points[2], np.zeros(points.shape[1], int))

    @property
    def bounding_radius_m(self) -> float:
        """Endless."""
        return float("inf")


def vector(x: float, y: float, z: float) -> Array:
    """A point or direction, (3,) float32."""
    return np.array([x, y, z], np.float32)


def dot(first: Array, second: Array) -> Array:
    """Scalar products (N,) of the columns of two (3,N) arrays; either may be (3,1)."""
    if first.shape[1] == 1 or second.shape[1] == 1:
        single, many = (first, second) if first.shape[1] == 1 else (second, first)
        return single[:, 0] @ many
    return np.einsum("ij,ij->j", first, second)


def _round_interval(origins: Array, directions: Array, radius_m: float) -> tuple[Array, Array]:
    """Where rays enter and leave the ball (3 rows) or the endless cylinder (2 rows) around the origin.

    The discriminant is taken at the point of closest approach, which keeps it accurate in float32 for
    small shapes far away.
    """
    squared_length = np.maximum(dot(directions, directions), 1e-12)
    nearest = -dot(origins, directions) / squared_length
    closest = origins + nearest * directions
    discriminant = (np.float32(radius_m) ** 2 - dot(closest, closest)) / squared_length
    half = np.sqrt(np.maximum(discriminant, 0))
    hit = discriminant > 0
    return np.where(hit, nearest - half, MISS), np.where(hit, nearest + half, -MISS)


def _nonzero(values: Array) -> Array:
    return np.where(np.abs(values) < 1e-9, np.float32(1e-9), values)
