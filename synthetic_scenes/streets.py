"""Random streets, in the manner of Virtual KITTI 2."""

from dataclasses import dataclass

import numpy as np

from synthetic_scenes.materials import Material, random_material
from synthetic_scenes.primitives import Array, Box, Cylinder, Ground, Shape, Sphere, vector
from synthetic_scenes.render import Light, Pose, Scene, look

_REACH_M = 220.0


@dataclass(frozen=True)
class Weather:
    """Light and air of one of Virtual KITTI's conditions.

    Attributes:
        sun: linear RGB of the sun, black when it is hidden.
        sun_height_deg: range of the sun's height above the horizon.
        ambient: linear RGB of the light from everywhere.
        sky: linear RGB at the horizon and at the zenith.
        fog_per_m: extinction of the air.
        yaw_deg: how far the camera is turned to the left.
    """

    sun: tuple[float, float, float]
    sun_height_deg: tuple[float, float]
    ambient: tuple[float, float, float]
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    fog_per_m: float = 0.0
    yaw_deg: float = 0.0


_BLUE = ((0.75, 0.85, 1.0), (0.25, 0.45, 0.9))
_GREY = ((0.8, 0.82, 0.85), (0.6, 0.63, 0.68))
_DAY = {"sun": (1.1, 1.05, 0.95), "sun_height_deg": (30.0, 65.0), "ambient": (0.3, 0.33, 0.38), "sky": _BLUE}
_CLONE = Weather(**_DAY)  # type: ignore[arg-type]  # a dict of mixed value types

WEATHER: dict[str, Weather] = {
    "clone": _CLONE,
    "15-deg-left": Weather(**_DAY, yaw_deg=15),  # type: ignore[arg-type]
    "15-deg-right": Weather(**_DAY, yaw_deg=-15),  # type: ignore[arg-type]
    "30-deg-left": Weather(**_DAY, yaw_deg=30),  # type: ignore[arg-type]
    "30-deg-right": Weather(**_DAY, yaw_deg=-30),  # type: ignore[arg-type]
    "fog": Weather((0, 0, 0), (30, 60), (0.6, 0.62, 0.65), ((0.72, 0.74, 0.76), (0.72, 0.74, 0.76)), fog_per_m=0.02),
    "morning": Weather((1.2, 0.9, 0.6), (8, 20), (0.28, 0.3, 0.38), ((1.0, 0.85, 0.7), (0.4, 0.55, 0.85))),
    "overcast": Weather((0.15, 0.15, 0.16), (40, 70), (0.6, 0.62, 0.66), _GREY),
    "rain": Weather((0, 0, 0), (40, 70), (0.42, 0.44, 0.48), ((0.5, 0.53, 0.57), (0.38, 0.4, 0.45)), fog_per_m=0.004),
    "sunset": Weather((1.1, 0.6, 0.3), (4, 12), (0.3, 0.26, 0.32), ((1.0, 0.6, 0.35), (0.35, 0.4, 0.7))),
}
"""The conditions of Virtual KITTI 2 by their folder name."""


def random_street(rng: np.random.Generator, weather: Weather) -> Scene:
    """A street along -z with the road surface at y = 0."""
    half_road = rng.uniform(3.5, 7)
    meadow = Material((0.16, 0.24, 0.09), (0.25, 0.25, 0.12), "marble", 3.0, grain=0.6, seed=int(rng.integers(1 << 20)))
    shapes: list[Shape] = [Ground([meadow], vector(0, -0.03, 0)), *_road(rng, half_road)]
    for side in (-1, 1):
        shapes += _row_of_houses(rng, side, half_road)
        shapes += _roadside(rng, side, half_road)
    for _ in range(rng.integers(2, 8)):
        lane = rng.uniform(-0.8, 0.8) * half_road
        shapes += _car(rng, vector(lane, 0, -rng.uniform(9, 75)), rng.choice([0, 180]) + rng.normal(0, 4))
    height, azimuth = np.deg2rad(rng.uniform(*weather.sun_height_deg)), rng.uniform(0, 2 * np.pi)
    direction = vector(np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth))
    lights = [Light(np.array(weather.sun), direction=direction.astype(np.float32))] if any(weather.sun) else []
    return Scene(shapes, lights, np.array(weather.ambient), np.array(weather.sky), weather.fog_per_m)


def random_drive(rng: np.random.Generator, weather: Weather) -> Pose:
    """A camera on the roof of a car somewhere on the road."""
    position = np.array([rng.uniform(-2.2, 2.2), rng.uniform(1.3, 2.2), 0], np.float32)
    return Pose(position, look(weather.yaw_deg + rng.normal(0, 6), rng.normal(-1, 2.5), rng.normal(0, 1)))


def _road(rng: np.random.Generator, half_road: float) -> list[Shape]:
    asphalt = Material(tuple(np.full(3, rng.uniform(0.12, 0.3))), grain=0.4, seed=int(rng.integers(1 << 20)))
    paving = random_material(rng, ("checker", "bricks", "plain"))
    paint = Material((0.8, 0.8, 0.75), grain=0.1)
    middle = -_REACH_M / 2 + 30
    shapes: list[Shape] = [Box([asphalt], vector(0, -0.5, middle), half_size=vector(half_road, 0.5, _REACH_M / 2))]
    for side in (-1, 1):
        center = vector(side * (half_road + 1.25), -0.36, middle)
        shapes.append(Box([paving], center, half_size=vector(1.25, 0.5, _REACH_M / 2)))
        edge = vector(side * (half_road - 0.3), 0.0, middle)
        shapes.append(Box([paint], edge, half_size=vector(0.07, 0.006, _REACH_M / 2)))
    first = rng.uniform(2, 7)
    shapes += [Box([paint], vector(0, 0.0, -(first + 8 * i)), half_size=vector(0.08, 0.006, 1.6)) for i in range(9)]
    return shapes


def _row_of_houses(rng: np.random.Generator, side: int, half_road: float) -> list[Shape]:
    """Houses and garden walls along one side, with gaps that show the sky."""
    shapes: list[Shape] = []
    distance = rng.uniform(-12, 4)
    setback = half_road + rng.uniform(2.6, 7)
    while distance < _REACH_M * 0.7:
        half = vector(rng.uniform(3, 8), rng.uniform(1.5, 9), rng.uniform(3, 11))
        if rng.random() < 0.75:
            material = random_material(rng, ("windows", "windows", "bricks", "plain", "stripes"))
            facade = Material(**{**material.__dict__, "period_m": float(rng.uniform(1.5, 3.5))})
            center = vector(side * (setback + rng.uniform(0, 1.5) + half[0]), half[1], -(distance + half[2]))
            shapes.append(Box([facade], center, look(rng.normal(0, 4), 0, 0), half_size=half))
        elif rng.random() < 0.6:
            wall = vector(side * setback, 0.7, -(distance + half[2]))
            shapes.append(Box([random_material(rng, ("bricks", "planks"))], wall, half_size=vector(0.12, 0.7, half[2])))
        distance += 2 * half[2] + (rng.uniform(3, 14) if rng.random() < 0.5 else rng.uniform(0, 1))
    return shapes


def _roadside(rng: np.random.Generator, side: int, half_road: float) -> list[Shape]:
    """Trees, lamp posts, signs and parked cars."""
    shapes: list[Shape] = []
    distance = rng.uniform(5, 14)
    while distance < 90:
        x, kind = side * (half_road + rng.uniform(0.5, 2.0)), rng.random()
        if kind < 0.4:
            shapes += _tree(rng, x, -distance)
        elif kind < 0.6:
            half = rng.uniform(2.2, 3.8)
            post = random_material(rng, ("plain",))
            shapes.append(
                Cylinder([post], vector(x, half, -distance), radius_m=rng.uniform(0.06, 0.14), half_height_m=half)
            )
            sign = vector(x - side * 0.4, 2 * half - 0.4, -distance)
            shapes.append(Box([random_material(rng)], sign, half_size=vector(0.5, rng.uniform(0.05, 0.4), 0.05)))
        elif kind < 0.9:
            shapes += _car(rng, vector(side * (half_road - 1.3), 0, -distance), rng.normal(0, 3))
        distance += rng.uniform(4, 14)
    return shapes


def _tree(rng: np.random.Generator, x: float, z: float) -> list[Shape]:
    half, radius = rng.uniform(0.9, 1.8), rng.uniform(0.9, 2.1)
    bark = Material((0.2, 0.13, 0.08), (0.1, 0.07, 0.05), "stripes", 0.2, grain=0.5)
    green = rng.uniform(0.6, 1.4) * vector(0.1, 0.22, 0.06)
    leaves = Material(tuple(green), tuple(2.2 * green), "marble", 0.7, grain=0.8, seed=int(rng.integers(1 << 20)))
    shapes: list[Shape] = [Cylinder([bark], vector(x, half, z), radius_m=rng.uniform(0.1, 0.25), half_height_m=half)]
    shapes.append(Sphere([leaves], vector(x, 2 * half + 0.7 * radius, z), radius_m=radius))
    if rng.random() < 0.5:
        beside = vector(x + rng.uniform(-0.7, 0.7) * radius, 2 * half + 1.5 * radius, z + rng.uniform(-0.5, 0.5))
        shapes.append(Sphere([leaves], beside, radius_m=0.7 * radius))
    return shapes


def _car(rng: np.random.Generator, place: Array, yaw_deg: float) -> list[Shape]:
    """Body, cabin and wheels, standing at ``place``."""
    paint = Material(tuple(rng.uniform(0.05, 0.8, 3)), grain=0.05, gloss=0.5)
    glass = Material((0.08, 0.1, 0.12), grain=0.05, gloss=0.6)
    rubber = Material((0.04, 0.04, 0.04), grain=0.1)
    turn = look(yaw_deg, 0, 0)
    half = vector(rng.uniform(0.8, 1.0), rng.uniform(0.28, 0.5), rng.uniform(1.8, 2.5))
    cabin = half * [0.85, rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.9)]
    middle = 0.3 + half[1]
    shapes: list[Shape] = [Box([paint], place + vector(0, middle, 0), turn, half_size=half)]
    on_top = turn @ vector(0, middle + half[1] + cabin[1], 0.2)
    shapes.append(Box([glass, glass, paint, paint, glass, glass], place + on_top, turn, half_size=cabin))
    for side_x in (-1, 1):
        for side_z in (-1, 1):
            hub = turn @ vector(side_x * (half[0] - 0.08), 0.32, side_z * half[2] * 0.62)
            axle = turn @ look(0, 0, 90)
            shapes.append(Cylinder([rubber], place + hub, axle, radius_m=0.32, half_height_m=0.11))
    return shapes
