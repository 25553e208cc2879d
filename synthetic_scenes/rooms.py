"""Random furnished rooms, in the manner of Hypersim."""

from dataclasses import dataclass

import numpy as np

from synthetic_scenes.materials import Material, random_material
from synthetic_scenes.primitives import Array, Box, Cylinder, Opening, Room, Shape, Sphere, vector
from synthetic_scenes.render import Light, Pose, Scene, cast, look

_WALLS = ("plain", "plain", "bricks", "stripes", "checker", "marble", "planks")
_FLOORS = ("planks", "checker", "bricks", "marble", "plain", "stripes")

Range = tuple[float, float]


@dataclass(frozen=True)
class RoomStyle:
    """What kind of rooms, and how images of them are taken.

    Attributes:
        width_m: range of the rooms' width.
        height_m: range of the rooms' height.
        length_m: range of the rooms' length.
        num_furniture: range of the number of pieces on the floor.
        across: where the camera stands, in widths from the middle.
        along: where the camera stands, in lengths from the middle.
        yaw_spread_deg: standard deviation of the view's direction around that of the middle of the room.
        clear_of_camera_m: nothing is nearer.
        ambient: strength of the light from everywhere.
        flash: strength of a lamp beside the camera, relative to the room's own lamps; with it, near is bright.
    """

    width_m: Range = (3, 8)
    height_m: Range = (2.3, 4)
    length_m: Range = (3.5, 10)
    num_furniture: tuple[int, int] = (5, 13)
    across: Range = (-0.4, 0.4)
    along: Range = (-0.42, 0.42)
    yaw_spread_deg: float = 45
    clear_of_camera_m: float = 0.5
    ambient: float = 1.0
    flash: float = 0.0


ROOMS = RoomStyle()
"""Rooms of all kinds, lit by their own lamps."""

HALLS = RoomStyle(
    width_m=(4, 9),
    height_m=(2.5, 4.5),
    length_m=(8, 18),
    num_furniture=(8, 19),
    across=(-0.3, 0.3),
    along=(0.25, 0.42),
    yaw_spread_deg=25,
    clear_of_camera_m=1.0,
    ambient=0.3,
    flash=10.0,
)
"""Long rooms taken with a flash: far and near, and a small model can learn within minutes which is which."""

STYLES = {"rooms": ROOMS, "halls": HALLS}


def random_room(rng: np.random.Generator, style: RoomStyle = ROOMS) -> tuple[Scene, Array]:
    """A furnished room with the floor at y = 0 around the origin, and its (3,) size in metres."""
    size = vector(rng.uniform(*style.width_m), rng.uniform(*style.height_m), rng.uniform(*style.length_m))
    shell = _shell(rng, size)
    shapes: list[Shape] = [shell, *_partitions(rng, size)]
    for _ in range(rng.integers(*style.num_furniture, endpoint=True)):
        shapes += _furniture(rng, size)
    shapes += _wall_mounted(rng, size)
    for shape in shapes:
        shape.inward_normals = bool(rng.random() < 0.2)
    exposure = np.exp(rng.uniform(np.log(0.4), np.log(3)))
    horizon = vector(0.8, 0.9, 1.0) * rng.uniform(0.8, 3) * exposure
    ambient = _light_color(rng) * rng.uniform(0.08, 0.35) * exposure * style.ambient
    return Scene(shapes, _lamps(rng, size, exposure), ambient, np.stack([horizon, 0.7 * horizon])), size


def random_pose(rng: np.random.Generator, scene: Scene, size: Array, style: RoomStyle = ROOMS) -> Pose:
    """A place to stand in the room with something to see: not inside the furniture, not face to face with a wall."""
    best_score, best_pose = -np.inf, Pose(np.zeros(3, np.float32), look(0, 0, 0))
    for _ in range(12):
        eye_level = rng.uniform(0.7, min(2.1, size[1] - 0.3))
        position = vector(rng.uniform(*style.across) * size[0], eye_level, rng.uniform(*style.along) * size[2])
        # Yaw 0 looks along -z; turn toward the middle of the room so that walls do not fill the image.
        toward_middle = np.rad2deg(np.arctan2(position[0], position[2]))
        rotation = look(toward_middle + rng.normal(0, style.yaw_spread_deg), rng.normal(-9, 10), rng.normal(0, 4))
        pose = Pose(position.astype(np.float32), rotation)
        score = _view_score(scene, pose, style.clear_of_camera_m)
        if score > best_score:
            best_score, best_pose = score, pose
        if score > 0:
            break
    return best_pose


def add_flash(scene: Scene, pose: Pose, strength: float) -> None:
    """Put a lamp beside the camera, ``strength`` times as strong as the room's first."""
    beside = pose.position + pose.rotation @ vector(0.15, 0.25, 0)
    scene.lights.append(Light(strength * scene.lights[0].color, position=beside))


def _view_score(scene: Scene, pose: Pose, clear_of_camera_m: float) -> float:
    """Positive for a view worth rendering, judged on a 12x16 sketch of it; the higher the better."""
    v, u = np.mgrid[0:12, 0:16].astype(np.float32)
    sketch = np.stack([(u - 7.5) / 13.9, (5.5 - v) / 13.9, -np.ones_like(u)]).reshape(3, -1)
    depth, owner = cast(scene.shapes, pose.position[:, None], pose.rotation @ sketch)
    seen = depth[owner >= 0]
    if len(seen) == 0:
        return -9.0
    near, far = np.quantile(seen, [0.05, 0.95])
    wants = [
        seen.min() - clear_of_camera_m,
        len(seen) / len(depth) - 0.75,
        far / near - 1.7,
        len(np.unique(owner)) - 3.5,
    ]
    return float(min(wants))


def _shell(rng: np.random.Generator, size: Array) -> Room:
    wall = random_material(rng, _WALLS)
    walls = [wall if rng.random() < 0.6 else random_material(rng, _WALLS) for _ in range(4)]
    floor = random_material(rng, _FLOORS)
    ceiling = Material(color=tuple(rng.uniform(0.5, 0.9) * np.ones(3)), grain=0.1, seed=int(rng.integers(1 << 20)))
    materials = [walls[0], walls[1], floor, ceiling, walls[2], walls[3]]
    openings = []
    for face in (0, 1, 4, 5):
        if rng.random() < 0.3:
            along = size[2] if face < 2 else size[0]
            width = rng.uniform(0.15, 0.4) * along
            left = rng.uniform(-0.45 * along, 0.45 * along - width)
            is_door = rng.random() < 0.3
            low = 0.0 if is_door else rng.uniform(0.3, 0.45) * size[1]
            high = rng.uniform(0.65, 0.85) * size[1]
            openings.append(Opening(face, (left, left + width), (low - size[1] / 2, high - size[1] / 2)))
    center = vector(0, size[1] / 2, 0)
    return Room(materials, center, half_size=size / 2, openings=openings)


def _partitions(rng: np.random.Generator, size: Array) -> list[Shape]:
    """Pillars and half walls, from floor to ceiling."""
    shapes: list[Shape] = []
    if rng.random() < 0.35:
        side = rng.choice([-1, 1])
        reach = rng.uniform(0.15, 0.35) * size[0]
        center = vector(side * (size[0] - reach) / 2, size[1] / 2, rng.uniform(-0.25, 0.25) * size[2])
        half = vector(reach / 2, size[1] / 2, rng.uniform(0.06, 0.4))
        shapes.append(Box([random_material(rng, _WALLS)], center, half_size=half))
    if rng.random() < 0.35:
        place = vector(rng.uniform(-0.35, 0.35) * size[0], size[1] / 2, rng.uniform(-0.35, 0.35) * size[2])
        radius = rng.uniform(0.1, 0.3)
        shapes.append(Cylinder([random_material(rng)], place, radius_m=radius, half_height_m=size[1] / 2))
    return shapes


def _furniture(rng: np.random.Generator, size: Array) -> list[Shape]:
    """Something on the floor, perhaps with something on top of it."""
    x, z = rng.uniform(-0.46, 0.46, 2) * size[[0, 2]]
    turn = look(rng.uniform(0, 360) if rng.random() < 0.6 else 0.0, 0, 0)
    kind = rng.choice(["box", "box", "table", "cylinder", "sphere", "leaning"])
    material = random_material(rng)
    if kind == "table":
        return _table(rng, vector(x, 0, z), turn, size[1])
    if kind == "cylinder":
        radius, half = rng.uniform(0.08, 0.45), rng.uniform(0.15, 0.7)
        base: Shape = Cylinder([material] * 2, vector(x, half, z), radius_m=radius, half_height_m=half)
        return [base, *_ornament(rng, x, 2 * half, z)]
    if kind == "sphere":
        radius = rng.uniform(0.12, 0.55)
        return [Sphere([material], vector(x, radius, z), radius_m=radius)]
    half_size = np.exp(rng.uniform(np.log(0.12), np.log([0.9, min(1.1, size[1] / 2.2), 0.9])))
    if kind == "leaning":
        tilted = turn @ look(0, rng.uniform(-35, 35), rng.uniform(-35, 35))
        return [Box([material], vector(x, rng.uniform(0.3, 0.9), z), tilted, half_size=half_size * 0.7)]
    faces = [material if rng.random() < 0.7 else random_material(rng) for _ in range(6)]
    body = Box(faces, vector(x, half_size[1], z), turn, half_size=half_size)
    return [body, *_ornament(rng, x, 2 * half_size[1], z)]


def _table(rng: np.random.Generator, foot: Array, turn: Array, ceiling_m: float) -> list[Shape]:
    half = vector(rng.uniform(0.3, 0.9), rng.uniform(0.015, 0.05), rng.uniform(0.3, 0.7))
    height = rng.uniform(0.4, min(1.0, ceiling_m / 2))
    top, legs = random_material(rng), random_material(rng, ("plain", "planks"))
    shapes: list[Shape] = [Box([top], foot + vector(0, height, 0), turn, half_size=half)]
    for side_x in (-1, 1):
        for side_z in (-1, 1):
            corner = turn @ vector(side_x * (half[0] - 0.05), 0, side_z * (half[2] - 0.05))
            shapes.append(
                Cylinder([legs], foot + corner + [0, height / 2, 0], radius_m=0.035, half_height_m=height / 2)
            )
    return shapes + _ornament(rng, foot[0], height + half[1], foot[2])


def _ornament(rng: np.random.Generator, x: float, y: float, z: float) -> list[Shape]:
    """Perhaps something small standing at (x, y, z)."""
    draw, material = rng.random(), random_material(rng)
    if draw < 0.2:
        radius = rng.uniform(0.06, 0.25)
        return [Sphere([material], vector(x, y + radius, z), radius_m=radius)]
    if draw < 0.4:
        half = rng.uniform(0.05, 0.25, 3)
        return [Box([material], vector(x, y + half[1], z), look(rng.uniform(0, 90), 0, 0), half_size=half)]
    if draw < 0.5:
        half_height, place = rng.uniform(0.05, 0.25), vector(x, y, z)
        place[1] += half_height
        return [Cylinder([material] * 2, place, radius_m=rng.uniform(0.04, 0.15), half_height_m=half_height)]
    return []


def _wall_mounted(rng: np.random.Generator, size: Array) -> list[Shape]:
    """Paintings, shelves and hanging lamps."""
    shapes: list[Shape] = []
    for _ in range(rng.integers(0, 5)):
        half = vector(rng.uniform(0.15, 0.7), rng.uniform(0.03, 0.6), rng.choice([0.03, 0.18]))
        height = rng.uniform(0.4, 0.75) * size[1]
        if rng.random() < 0.5:
            center = vector(rng.uniform(-0.4, 0.4) * size[0], height, rng.choice([-1, 1]) * (size[2] / 2 - half[2]))
        else:
            half = half[[2, 1, 0]]
            center = vector(rng.choice([-1, 1]) * (size[0] / 2 - half[0]), height, rng.uniform(-0.4, 0.4) * size[2])
        shapes.append(Box([random_material(rng)], center, half_size=half))
    if rng.random() < 0.3:
        radius = rng.uniform(0.1, 0.25)
        center = vector(
            rng.uniform(-0.3, 0.3) * size[0], size[1] - rng.uniform(0.3, 0.6), rng.uniform(-0.3, 0.3) * size[2]
        )
        shapes.append(Sphere([random_material(rng)], center, radius_m=radius))
    return shapes


def _lamps(rng: np.random.Generator, size: Array, exposure: float) -> list[Light]:
    lamps = []
    for _ in range(rng.integers(1, 4)):
        place = rng.uniform(-0.42, 0.42, 3) * size
        place[1] = size[1] * rng.uniform(0.6, 0.97)
        power = rng.uniform(1.5, 6) * exposure
        lamps.append(Light(_light_color(rng) * power, position=place.astype(np.float32)))
    return lamps


def _light_color(rng: np.random.Generator) -> Array:
    """White between candle light and a blue sky."""
    warmth = rng.uniform(-1, 1)
    return vector(1 + 0.25 * warmth, 1.0, 1 - 0.3 * warmth)
