"""A small ray caster: boxes, ellipsoids and cylinders under a pinhole camera, with shadows and procedural textures.

World coordinates are in metres with z up. Camera coordinates are x right, y along the optical axis, z up. The depth of
a point is therefore its y, and the normals of `Render` have the same axes as those of NYUD. All arrays are float32
NumPy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from mtl_jax.data.rendered.textures import Material, albedo, smooth_noise

Array = npt.NDArray[np.float32]
VOID = 255  # label of shapes without a class
MISS = -1  # index of pixels whose ray hits nothing
_NEAR = 0.05  # metres; nearer surfaces are not seen


def yaw(angle: float) -> Array:
    """Returns the rotation `[3, 3]` about z by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def along(direction: npt.ArrayLike) -> Array:
    """Returns a rotation `[3, 3]` whose third column is the given direction, a vector of any length except 0."""
    z = np.asarray(direction, np.float32)
    z = z / np.linalg.norm(z)
    x = np.cross(z, (0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0))
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1).astype(np.float32)


def _turn(matrix: npt.NDArray[np.floating], vectors: Array) -> Array:
    """Computes matrix `[3, 3]` @ vectors `[3, ...]` without BLAS, whose threads compete with rendering processes."""
    return np.einsum("ij,j...->i...", matrix.astype(np.float32), vectors)


@dataclass(frozen=True, eq=False)
class Shape:
    """A convex solid: the unit box, ball or cylinder, scaled by `half`, rotated, and moved to `center`.

    Attributes:
        kind: "box", "ball" or "cylinder" (with its axis along the local z).
        center: Position `[3]` in metres.
        half: Half extents `[3]` in metres.
        material: Appearance of the surface.
        label: Semantic class, or `VOID` for a shape without a class.
        instance: Number of the object to which the shape belongs.
        part: Label of the body part, or 0 for a shape that is none.
        rotation: Rotation `[3, 3]` from local to world coordinates.
        casts_shadow: True if the shape blocks the light; False for the enclosing walls.
    """

    kind: str
    center: Array
    half: Array
    material: Material
    label: int
    instance: int
    part: int = 0
    rotation: Array = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    casts_shadow: bool = True

    def to_local(self) -> Array:
        """Returns the matrix `[3, 3]` from world directions to the frame in which the solid has unit size."""
        return (self.rotation.T / self.half[:, None]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Attributes:
        position: Position `[3]` in metres.
        rotation: Rotation `[3, 3]` from camera to world coordinates; its columns are right, forward and up.
        focal: Focal length divided by the width of the image.
    """

    position: Array
    rotation: Array
    focal: float

    @classmethod
    def looking(cls, position: npt.ArrayLike, angle: float, pitch: float, roll: float, focal: float) -> Camera:
        """Returns a camera that looks along the world's y axis, turned by three angles in radians.

        Args:
            position: Position `[3]` in metres.
            angle: Turn to the left.
            pitch: Turn upwards.
            roll: Turn clockwise.
            focal: Focal length divided by the width of the image.
        """
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], np.float32)
        turn = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]], np.float32)
        return cls(np.asarray(position, np.float32), (yaw(angle) @ tilt @ turn).astype(np.float32), focal)

    def rays(self, height: int, width: int) -> Array:
        """Returns the directions `[3, H, W]` through the pixel centres in camera coordinates, scaled to y = 1."""
        f = self.focal * width
        u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / f
        v = (height / 2 - np.arange(height, dtype=np.float32) - 0.5) / f
        out = np.ones((3, height, width), np.float32)
        out[0], out[2] = u[None, :], v[:, None]
        return out


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene to render.

    Attributes:
        shapes: Solids of the scene.
        camera: Camera that sees the scene.
        light: Position `[3]` of the lamp in metres.
        light_color: Colour and strength `[3]` of the lamp.
        ambient: Colour and strength `[3]` of the light from all directions.
        bounds: Lower and upper corner `[2, 3]` of a room, whose edges are rendered darker; None outdoors.
        sky: Colours `[2, 3]` of the sky at the horizon and above, seen by rays that hit nothing.
        reach: Distance in metres at which the light of the lamp has halved; infinite for the sun.
    """

    shapes: list[Shape]
    camera: Camera
    light: Array
    light_color: Array
    ambient: Array
    bounds: Array | None = None
    sky: Array = field(default_factory=lambda: np.ones((2, 3), np.float32))
    reach: float = np.inf


@dataclass(frozen=True, eq=False)
class Render:
    """The maps of a rendered scene.

    Attributes:
        color: Linear colour `[H, W, 3]`, about 0..1, without noise.
        depth: Depth `[H, W]` in metres along the optical axis; 0 where nothing is hit.
        normals: Unit normals `[H, W, 3]` in camera coordinates; 0 where nothing is hit.
        index: Index of the shape in `Scene.shapes`, int32 `[H, W]`; `MISS` where nothing is hit.
        rays: Directions `[3, H, W]` of the rays in camera coordinates, scaled to y = 1.
    """

    color: Array
    depth: Array
    normals: Array
    index: npt.NDArray[np.int32]
    rays: Array


def _interval(kind: str, o: Array, d: Array) -> tuple[Array, Array]:
    """Computes t at the entry and exit of rays o + t d (`[3]` or `[3, n]` each) into the unit solid.

    The entry is larger than the exit for rays that miss the solid.
    """
    o = o.reshape(3, -1)
    if kind == "ball":
        return _quadratic(d, o)
    d = np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
    if kind == "box":
        near, far = -o / d, 1 / np.abs(d)
        return (near - far).max(axis=0), (near + far).min(axis=0)
    enter, leave = _quadratic(d[:2], o[:2])
    near, far = -o[2] / d[2], 1 / np.abs(d[2])
    return np.maximum(enter, near - far), np.minimum(leave, near + far)


def _quadratic(d: Array, o: Array) -> tuple[Array, Array]:
    """Computes t at the entry and exit of rays into the ball or cylinder |o + t d| <= 1."""
    a = np.maximum((d * d).sum(axis=0), 1e-12)
    mid = -(o * d).sum(axis=0) / a
    root = mid * mid - ((o * o).sum(axis=0) - 1) / a
    half = np.sqrt(np.maximum(root, 0))
    return np.where(root > 0, mid - half, np.float32(np.inf)), mid + half


def _window(shape: Shape, camera: Camera, height: int, width: int) -> tuple[slice, slice] | None:
    """Returns rows and columns of the image that contain a shape, or None if the shape cannot be seen."""
    signs = np.stack(np.meshgrid((-1, 1), (-1, 1), (-1, 1)), axis=-1).reshape(8, 3)
    corners = (signs * shape.half) @ shape.rotation.T + shape.center - camera.position
    x, y, z = (corners @ camera.rotation).T
    if (y <= _NEAR).all():
        return None
    if (y <= _NEAR).any():
        return slice(0, height), slice(0, width)
    f = camera.focal * width
    u, v = width / 2 + f * x / y, height / 2 - f * z / y
    rows = slice(max(int(v.min()) - 1, 0), min(int(v.max()) + 2, height))
    columns = slice(max(int(u.min()) - 1, 0), min(int(u.max()) + 2, width))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _visibility(scene: Scene, rays: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    """Computes the depth `[H, W]` of the nearest hit of every ray (infinite without one) and the index of its shape."""
    camera, (_, height, width) = scene.camera, rays.shape
    depth = np.full((height, width), np.inf, np.float32)
    index = np.full((height, width), MISS, np.int32)
    for i, shape in enumerate(scene.shapes):
        if (window := _window(shape, camera, height, width)) is None:
            continue
        part = rays[:, *window]
        to_local = shape.to_local()
        o = to_local @ (camera.position - shape.center)
        d = _turn(to_local @ camera.rotation, part.reshape(3, -1))
        enter, leave = _interval(shape.kind, o.astype(np.float32), d)
        enter, leave = enter.reshape(part.shape[1:]), leave.reshape(part.shape[1:])
        hit = (enter < leave) & (enter > _NEAR) & (enter < depth[window])
        depth[window][hit] = enter[hit]
        index[window][hit] = i
    return depth, index


def _local_normal(kind: str, p: Array) -> Array:
    """Computes the normals `[3, n]` of the unit solid at surface points `[3, n]`, before the inverse scaling."""
    if kind == "ball":
        return p
    n = np.zeros_like(p)
    if kind == "box":
        axis, column = np.abs(p).argmax(axis=0), np.arange(p.shape[1])
        n[axis, column] = np.sign(p[axis, column])
        return n
    cap = np.abs(p[2]) > np.sqrt(p[0] ** 2 + p[1] ** 2)
    n[:2] = np.where(cap, 0, p[:2])
    n[2] = np.where(cap, np.sign(p[2]), 0)
    return n


def _lit(scene: Scene, points: Array, skip: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Returns a bool `[n]` that is True for the world points `[3, n]` from which the lamp is seen.

    `skip` has the index of the shape on which each point lies, which is convex and cannot shade the point.
    """
    free = np.ones(points.shape[1], bool)
    to_light = scene.light[:, None] - points
    length2 = (to_light * to_light).sum(axis=0)

    def passing(where: npt.NDArray[np.integer], center: Array, radius: float) -> npt.NDArray[np.integer]:
        """Selects the points of `where` whose line to the lamp meets a ball, i.e. those that need an exact test."""
        offset, ray = center[:, None] - points[:, where], to_light[:, where]
        t = np.clip((offset * ray).sum(axis=0) / length2[where], 0, 1)
        gap2 = ((offset - t * ray) ** 2).sum(axis=0)
        return where[free[where] & (gap2 < radius * radius)]

    objects: dict[int, list[int]] = {}
    for i, shape in enumerate(scene.shapes):
        if shape.casts_shadow:
            objects.setdefault(shape.instance, []).append(i)
    for members in objects.values():
        shapes = [scene.shapes[i] for i in members]
        radii = [float(np.linalg.norm(s.half)) for s in shapes]
        center = np.mean([s.center for s in shapes], axis=0)
        reach = max(float(np.linalg.norm(s.center - center)) + r for s, r in zip(shapes, radii, strict=True))
        close = passing(np.arange(points.shape[1]), center, reach)
        for i, shape, radius in zip(members, shapes, radii, strict=True):
            near = passing(close, shape.center, radius)
            near = near[skip[near] != i]
            if near.size:
                to_local = shape.to_local()
                o = _turn(to_local, points[:, near] - shape.center[:, None])
                enter, leave = _interval(shape.kind, o, _turn(to_local, to_light[:, near]))
                free[near] = ~((enter < leave) & (leave > 1e-3) & (enter < 1))
    return free


def _sky(scene: Scene, rays: Array) -> Array:
    """Computes the colour of the sky `[H, W, 3]`."""
    d = _turn(scene.camera.rotation, rays)
    d = d / np.sqrt((d * d).sum(axis=0))
    clouds = smooth_noise(d[0] * 4, d[2] * 14, seed=int(abs(scene.light[0]) * 1000))
    up = np.clip(d[2] * 2.2 + 0.15 * clouds, 0, 1)[..., None]
    return scene.sky[0] * (1 - up) + scene.sky[1] * up


def render(scene: Scene, height: int, width: int) -> Render:
    """Renders a scene with one ray for each pixel, textures, Lambert shading and shadows."""
    camera = scene.camera
    rays = camera.rays(height, width)
    depth, index = _visibility(scene, rays)
    color = _sky(scene, rays).reshape(-1, 3)
    normals = np.zeros((height * width, 3), np.float32)

    seen = np.flatnonzero(index >= 0)
    which = index.reshape(-1)[seen]
    seen_rays = rays.reshape(3, -1)[:, seen]
    points = _turn(camera.rotation, seen_rays * depth.reshape(-1)[seen]) + camera.position[:, None]
    surface = np.zeros_like(points)  # albedo
    normal = np.zeros_like(points)
    glow = np.zeros(seen.size, np.float32)
    gloss = np.zeros(seen.size, np.float32)
    order = np.argsort(which, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(which[order])) + 1) if seen.size else ():
        shape = scene.shapes[which[group[0]]]
        to_local = shape.to_local()
        p = _turn(to_local, points[:, group] - shape.center[:, None])
        local = _local_normal(shape.kind, p)
        n = _turn(to_local.T, local)
        normal[:, group] = n / np.sqrt((n * n).sum(axis=0))
        surface[:, group] = albedo(shape.material, shape.kind, p * shape.half[:, None], local, shape.half)
        glow[group] = shape.material.glow
        gloss[group] = shape.material.gloss

    to_light = scene.light[:, None] - points
    distance = np.sqrt((to_light * to_light).sum(axis=0))
    to_light /= distance
    facing = np.maximum((normal * to_light).sum(axis=0), 0)
    sharp = np.zeros((height, width), np.float32)
    sharp.reshape(-1)[seen] = _lit(scene, (points + normal * 2e-3).astype(np.float32), which)
    free = cv2.GaussianBlur(sharp, (0, 0), max(width / 320, 0.5)).reshape(-1)[seen]  # cheap soft shadows
    fade = 2 / (1 + (distance / scene.reach) ** 2)
    halfway = to_light - (points - camera.position[:, None]) / np.linalg.norm(points - camera.position[:, None], axis=0)
    halfway /= np.sqrt((halfway * halfway).sum(axis=0)) + 1e-6
    shine = gloss * np.maximum((normal * halfway).sum(axis=0), 0) ** 40 * free
    ambient = 0.8 + 0.2 * normal[2]
    if scene.bounds is not None:
        ambient = 0.92 + 0.08 * normal[2]  # the floor reflects light
        for side in (0, 1):
            gap = np.abs(points - scene.bounds[side][:, None])
            ambient *= (1 - 0.35 * np.exp(-gap / 0.35) * (1 - np.abs(normal))).prod(axis=0)
    light = scene.ambient[:, None] * ambient + scene.light_color[:, None] * (facing * free * fade)
    color[seen] = (surface * (light * (1 - glow) + glow) + shine).T
    normals[seen] = _turn(camera.rotation.T, normal).T
    return Render(
        color.reshape(height, width, 3),
        np.where(np.isfinite(depth), depth, 0).astype(np.float32),
        normals.reshape(height, width, 3),
        index,
        rays,
    )


def photograph(color: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Converts rendered colour to a photo, uint8 `[H, W, 3]`, with exposure, tint, vignette, soft lens and noise."""
    height, width = color.shape[:2]
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    photo = color * gain.astype(np.float32) * (1 - rng.uniform(0, 0.12) * (x * x + y * y))[..., None]
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.45, 0.7)), np.float32)
    photo = np.where(photo > 0.8, 0.8 + 0.2 * np.tanh((photo - 0.8) / 0.2), photo)  # compresses highlights
    photo = photo + rng.standard_normal(photo.shape, dtype=np.float32) * rng.uniform(0.006, 0.022)
    return np.clip(np.rint(photo * 255), 0, 255).astype(np.uint8)


def boundaries(regions: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Selects the pixels whose right or lower neighbour belongs to another region, bool `[H, W]`."""
    out = np.zeros(regions.shape, bool)
    out[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    out[:-1] |= regions[:-1] != regions[1:]
    return out


def gather(values: list[int], index: npt.NDArray[np.int32], missing: int) -> npt.NDArray[np.int32]:
    """Returns the value of the shape at every pixel of `index`, and `missing` where nothing is hit."""
    return np.array([*values, missing], np.int32)[index]
