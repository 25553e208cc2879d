"""The ray caster: a scene and a camera give colour, depth, normals and object ids, exactly."""

from dataclasses import dataclass

import numpy as np

from synthetic_scenes.primitives import MISS, Array, Shape, dot

_SHADOW_BIAS_M = 2e-3


@dataclass
class Light:
    """A lamp or the sun.

    Attributes:
        color: linear RGB radiance (sun), or radiance at one metre (lamp).
        position: (3,) lamp position in metres, or None for the sun.
        direction: (3,) unit vector toward the sun; used when ``position`` is None.
    """

    color: Array
    position: Array | None = None
    direction: Array | None = None

    def toward(self, points: Array) -> tuple[Array, Array]:
        """Unit vectors from (3,N) points to the light, and the incoming radiance (3,N) or (3,1)."""
        if self.position is None:
            assert self.direction is not None
            return np.repeat(self.direction[:, None], points.shape[1], axis=1), np.asarray(self.color)[:, None]
        vectors = self.position[:, None] - points
        squared = dot(vectors, vectors)
        return vectors / np.sqrt(squared), np.asarray(self.color)[:, None] / (squared + 0.5)

    def is_hidden(self, points: Array, shapes: list[Shape]) -> Array:
        """Whether something stands between each of (3,N) points and the light, (N,) bool."""
        hidden = np.zeros(points.shape[1], bool)
        for shape in shapes:
            rest = np.flatnonzero(~hidden)
            if self.position is None:
                assert self.direction is not None
                blocked = np.isfinite(shape.intersect(points[:, rest], self.direction[:, None]))
            else:
                # From the lamp to the points: one origin for all rays is cheaper.
                lamp = self.position[:, None]
                blocked = shape.intersect(lamp, points[:, rest] - lamp) < 1
            hidden[rest[blocked]] = True
        return hidden


@dataclass
class Scene:
    """Shapes, lights and surroundings.

    Attributes:
        shapes: everything a ray can hit.
        lights: lamps and sun.
        ambient: (3,) linear RGB of the light that comes from everywhere.
        sky: (2,3) linear RGB at the horizon and at the zenith.
        fog_per_m: extinction of the fog, 0 for clear air.
    """

    shapes: list[Shape]
    lights: list[Light]
    ambient: Array
    sky: Array
    fog_per_m: float = 0.0


@dataclass
class Pose:
    """Where the camera is.

    Attributes:
        position: (3,) world position, metres.
        rotation: (3,3) world from camera (x right, y up, z toward the viewer).
    """

    position: Array
    rotation: Array


@dataclass
class Frame:
    """One rendered image with its exact geometry.

    Attributes:
        color: (H,W,3) float32 linear HDR RGB.
        depth: (H,W) float32 planar depth in metres, infinite where nothing was hit.
        normals: (H,W,3) float32 unit normals toward the camera, camera frame x right, y up, z toward the viewer; zero
            where nothing was hit.
        entity_id: (H,W) int32, number of the shape, -1 where nothing was hit.
        reflectance: (H,W,3) float32 linear RGB, the share of light that the surface scatters; zero where nothing was
            hit.
        inward: (H,W) bool, the data set would store this pixel's normal turned away from the camera.
    """

    color: Array
    depth: Array
    normals: Array
    entity_id: Array
    reflectance: Array
    inward: Array


def look(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Array:
    """Rotation (world from camera): yaw to the left, pitch up, roll anticlockwise; all zero looks along -z."""
    yaw, pitch, roll = np.deg2rad([yaw_deg, pitch_deg, roll_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (turn @ nod @ tilt).astype(np.float32)


def render(scene: Scene, pose: Pose, rays: Array, antialias: int = 1) -> Frame:
    """Render one frame.

    Args:
        scene: what to look at.
        pose: where from.
        rays: (3,H,W) float32 ray of every pixel centre in the camera frame, scaled to z = -1.
        antialias: colour is averaged over this many sub-pixel rays in each direction; geometry is always
            that of the pixel centre.
    """
    _, height, width = rays.shape
    directions = rays.reshape(3, -1).astype(np.float32)
    depth, owner = cast(scene.shapes, pose.position[:, None], pose.rotation @ directions)
    color, normals, reflectance = _shade(scene, pose, directions, depth, owner)
    if antialias > 1:
        color = _antialiased_color(scene, pose, rays, antialias)
    camera_normals = pose.rotation.T @ normals
    camera_normals *= np.where((camera_normals * directions).sum(axis=0) > 0, -1, 1)
    inward = np.array([shape.inward_normals for shape in scene.shapes] + [False])[owner]
    return Frame(
        color=color.T.reshape(height, width, 3),
        depth=depth.reshape(height, width),
        normals=camera_normals.T.reshape(height, width, 3).astype(np.float32),
        entity_id=owner.reshape(height, width).astype(np.int32),
        reflectance=reflectance.T.reshape(height, width, 3),
        inward=inward.reshape(height, width),
    )


def _antialiased_color(scene: Scene, pose: Pose, rays: Array, antialias: int) -> Array:
    """Mean colour over a regular grid of sub-pixel rays, (3,H*W)."""
    step_u, step_v = np.gradient(rays, axis=2), np.gradient(rays, axis=1)
    offsets = (np.arange(antialias) + 0.5) / antialias - 0.5
    total = np.zeros((3, rays.shape[1] * rays.shape[2]), np.float32)
    for du in offsets:
        for dv in offsets:
            directions = (rays + du * step_u + dv * step_v).reshape(3, -1).astype(np.float32)
            depth, owner = cast(scene.shapes, pose.position[:, None], pose.rotation @ directions)
            total += _shade(scene, pose, directions, depth, owner)[0]
    return total / antialias**2


def cast(shapes: list[Shape], origins: Array, directions: Array) -> tuple[Array, Array]:
    """Nearest hit over all shapes: parameter (N,) and number of the shape (N,), -1 on a miss."""
    nearest = np.full(directions.shape[1], MISS, np.float32)
    owner = np.full(directions.shape[1], -1)
    for number, shape in enumerate(shapes):
        t = shape.intersect(origins, directions)
        closer = t < nearest
        nearest[closer] = t[closer]
        owner[closer] = number
    return nearest, owner


def _shade(scene: Scene, pose: Pose, directions: Array, depth: Array, owner: Array) -> tuple[Array, ...]:
    """Linear RGB (3,N), outward world normals (3,N) and reflectance (3,N) of the hits of camera-frame directions."""
    world = pose.rotation @ directions
    sky = _sky(scene, world)
    color, normals = sky.copy(), np.zeros_like(world)
    hit = np.flatnonzero(owner >= 0)
    points = pose.position[:, None] + depth[hit] * world[:, hit]
    pixel_size = np.abs(np.diff(directions[0, :2]))[0] if directions.shape[1] > 1 else 1e-3
    albedo, gloss = np.zeros_like(points), np.zeros(len(hit), np.float32)
    for number in np.unique(owner[hit]):
        mine = np.flatnonzero(owner[hit] == number)
        surface = scene.shapes[number].surface(points[:, mine])
        normals[:, hit[mine]] = surface.normals
        slant = np.abs((surface.normals * world[:, hit[mine]]).sum(axis=0))
        footprint = depth[hit[mine]] * pixel_size / np.maximum(slant, 0.05)
        _paint(scene.shapes[number], surface.face, (surface.u, surface.v, footprint), mine, albedo, gloss)
    color[:, hit] = _light(scene, points, normals[:, hit], world[:, hit], albedo, gloss)
    if scene.fog_per_m > 0:
        clear = np.exp(-scene.fog_per_m * np.minimum(depth, 1e4))
        color = color * clear + sky * (1 - clear)
    reflectance = np.zeros(world.shape, np.float32)
    reflectance[:, hit] = albedo
    return color.astype(np.float32), normals, reflectance


def _paint(
    shape: Shape, face: Array, coordinates: tuple[Array, Array, Array], mine: Array, albedo: Array, gloss: Array
) -> None:
    """Write albedo and gloss of one shape's hits into the arrays of all hits."""
    for number in np.unique(face):
        on_face = face == number
        material = shape.materials[number % len(shape.materials)]
        u, v, footprint = (values[on_face] for values in coordinates)
        albedo[:, mine[on_face]] = material.albedo(u, v, footprint)
        gloss[mine[on_face]] = material.gloss


def _light(scene: Scene, points: Array, normals: Array, view: Array, albedo: Array, gloss: Array) -> Array:
    """Ambient, diffuse and specular light with shadows, linear RGB (3,N)."""
    normals = normals * np.where((normals * view).sum(axis=0) > 0, -1, 1)
    view = view / np.linalg.norm(view, axis=0)
    color = albedo * np.asarray(scene.ambient, np.float32)[:, None] * (0.75 + 0.25 * normals[1])
    lifted = points + _SHADOW_BIAS_M * normals
    for light in scene.lights:
        toward, radiance = light.toward(points)
        facing = np.maximum(dot(normals, toward), 0)
        lit = np.flatnonzero(facing > 0)
        facing[lit[light.is_hidden(lifted[:, lit], scene.shapes)]] = 0
        halfway = toward - view
        halfway /= np.linalg.norm(halfway, axis=0) + 1e-9
        highlight = gloss * np.maximum(dot(normals, halfway), 0) ** 40 * (facing > 0)
        color = color + radiance * (albedo * facing + highlight)
    return color


def _sky(scene: Scene, directions: Array) -> Array:
    """Linear RGB of the sky in world directions, (3,N)."""
    height = np.clip(directions[1] / np.linalg.norm(directions, axis=0), 0, 1) ** 0.6
    horizon, zenith = np.asarray(scene.sky, np.float32)
    return horizon[:, None] * (1 - height) + zenith[:, None] * height
