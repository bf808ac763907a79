"""A small ray caster: boxes, ellipsoids and cylinders under a pinhole camera, with shadows and procedural textures.

World coordinates are metres with z up. Camera coordinates are x right, y along the optical axis, z up, so the depth
of a point is its y and the normals of `Render` already have the axes of NYUD's. Everything is float32 NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from mtl_jax.data.rendered.textures import Material, albedo, smooth_noise

Array = npt.NDArray[np.float32]
VOID = 255  # label of a shape that has none
MISS = -1  # index of pixels that hit nothing
_NEAR = 0.05  # metres


def yaw(angle: float) -> Array:
    """Rotation about z, [3, 3], angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def along(direction: npt.ArrayLike) -> Array:
    """A rotation, [3, 3], whose third column is the given direction (any length but zero)."""
    z = np.asarray(direction, np.float32)
    z = z / np.linalg.norm(z)
    x = np.cross(z, (0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0))
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1).astype(np.float32)


def _turn(matrix: npt.NDArray[np.floating], vectors: Array) -> Array:
    """matrix @ vectors, [3, 3] and [3, ...], without BLAS: its threads would compete with the rendering processes."""
    return np.einsum("ij,j...->i...", matrix.astype(np.float32), vectors)


@dataclass(frozen=True, eq=False)
class Shape:
    """A convex solid: the unit box, ball or cylinder scaled by `half`, rotated, then moved to `center`.

    Attributes:
        kind: "box", "ball" or "cylinder" (axis along the local z).
        center: [3] metres.
        half: [3] half extents in metres.
        material: what the surface looks like.
        label: semantic class, `VOID` for none.
        instance: shapes with the same number make up one object.
        part: label of a second labelling (human parts), 0 for none.
        rotation: [3, 3] local to world.
        casts_shadow: whether it blocks the light; False for the enclosing walls.
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
        """[3, 3]: world directions to the frame where the solid is the unit one."""
        return (self.rotation.T / self.half[:, None]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Attributes:
        position: [3] metres.
        rotation: [3, 3] camera to world; columns are right, forward, up.
        focal: focal length divided by the image's width.
    """

    position: Array
    rotation: Array
    focal: float

    @classmethod
    def looking(cls, position: npt.ArrayLike, angle: float, pitch: float, roll: float, focal: float) -> Camera:
        """A camera turned to the left by `angle` from the world's y axis, up by `pitch`, clockwise by `roll` (rad)."""
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], np.float32)
        turn = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]], np.float32)
        return cls(np.asarray(position, np.float32), (yaw(angle) @ tilt @ turn).astype(np.float32), focal)

    def rays(self, height: int, width: int) -> Array:
        """[3, H, W] directions in camera coordinates through the pixel centres, with forward component 1."""
        f = self.focal * width
        u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / f
        v = (height / 2 - np.arange(height, dtype=np.float32) - 0.5) / f
        out = np.ones((3, height, width), np.float32)
        out[0], out[2] = u[None, :], v[:, None]
        return out


@dataclass(frozen=True, eq=False)
class Scene:
    """What to render.

    Attributes:
        shapes: the solids.
        camera: the viewpoint.
        light: [3] position of the lamp in metres.
        light_color: [3] its colour and strength.
        ambient: [3] colour and strength of the light from everywhere.
        bounds: [2, 3] lower and upper corner of the room, whose corners are darker; None outdoors.
        sky: [2, 3] colours at the horizon and above, seen where nothing is hit.
        reach: distance in metres at which the lamp's light has halved; infinite for the sun.
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
    """Maps of a rendered scene.

    Attributes:
        color: [H, W, 3] linear colour around 0..1, without noise.
        depth: [H, W] metres along the optical axis, 0 where nothing is hit.
        normals: [H, W, 3] unit vectors in camera coordinates, 0 where nothing is hit.
        index: [H, W] int32 index into the scene's shapes, `MISS` where nothing is hit.
        rays: [3, H, W] directions in camera coordinates, forward component 1.
    """

    color: Array
    depth: Array
    normals: Array
    index: npt.NDArray[np.int32]
    rays: Array


def _interval(kind: str, o: Array, d: Array) -> tuple[Array, Array]:
    """Where rays o + t d ([3] or [3, n] each) are inside the unit solid: entry and exit; entry > exit is a miss."""
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
    """Entry and exit of |o + t d| <= 1."""
    a = np.maximum((d * d).sum(axis=0), 1e-12)
    mid = -(o * d).sum(axis=0) / a
    root = mid * mid - ((o * o).sum(axis=0) - 1) / a
    half = np.sqrt(np.maximum(root, 0))
    return np.where(root > 0, mid - half, np.float32(np.inf)), mid + half


def _window(shape: Shape, camera: Camera, height: int, width: int) -> tuple[slice, slice] | None:
    """Rows and columns outside of which the shape cannot be seen; None if it is behind the camera."""
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
    """Nearest hit along every ray: depth [H, W] (infinite if none) and index of the shape."""
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
    """Normal of the unit solid at surface points, [3, n], before the inverse scaling."""
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
    """Whether the lamp is seen from world points [3, n]; the convex shape a point lies on cannot shade it itself."""
    free = np.ones(points.shape[1], bool)
    to_light = scene.light[:, None] - points
    length2 = (to_light * to_light).sum(axis=0)

    def passing(where: npt.NDArray[np.integer], center: Array, radius: float) -> npt.NDArray[np.integer]:
        """Those of the points `where` whose way to the lamp meets a ball: only they are worth an exact test."""
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
    """Colour of the background, [H, W, 3]."""
    d = _turn(scene.camera.rotation, rays)
    d = d / np.sqrt((d * d).sum(axis=0))
    clouds = smooth_noise(d[0] * 4, d[2] * 14, seed=int(abs(scene.light[0]) * 1000))
    up = np.clip(d[2] * 2.2 + 0.15 * clouds, 0, 1)[..., None]
    return scene.sky[0] * (1 - up) + scene.sky[1] * up


def render(scene: Scene, height: int, width: int) -> Render:
    """Casts one ray per pixel: nearest surface, texture, Lambert shading, shadows."""
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
    free = cv2.GaussianBlur(sharp, (0, 0), max(width / 320, 0.5)).reshape(-1)[seen]  # a soft shadow, cheaply
    fade = 2 / (1 + (distance / scene.reach) ** 2)
    halfway = to_light - (points - camera.position[:, None]) / np.linalg.norm(points - camera.position[:, None], axis=0)
    halfway /= np.sqrt((halfway * halfway).sum(axis=0)) + 1e-6
    shine = gloss * np.maximum((normal * halfway).sum(axis=0), 0) ** 40 * free
    ambient = 0.8 + 0.2 * normal[2]
    if scene.bounds is not None:
        ambient = 0.92 + 0.08 * normal[2]  # light comes back from the floor too
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
    """Rendered colour to an 8-bit photo, [H, W, 3]: exposure, tint, vignette, soft lens, sensor noise."""
    height, width = color.shape[:2]
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    photo = color * gain.astype(np.float32) * (1 - rng.uniform(0, 0.12) * (x * x + y * y))[..., None]
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.45, 0.7)), np.float32)
    photo = np.where(photo > 0.8, 0.8 + 0.2 * np.tanh((photo - 0.8) / 0.2), photo)  # highlights roll off
    photo = photo + rng.standard_normal(photo.shape, dtype=np.float32) * rng.uniform(0.006, 0.022)
    return np.clip(np.rint(photo * 255), 0, 255).astype(np.uint8)


def boundaries(regions: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels, [H, W], whose right or lower neighbour belongs to another region."""
    out = np.zeros(regions.shape, bool)
    out[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    out[:-1] |= regions[:-1] != regions[1:]
    return out


def gather(values: list[int], index: npt.NDArray[np.int32], missing: int) -> npt.NDArray[np.int32]:
    """A per-shape value for every pixel of `index`, with `missing` where nothing was hit."""
    return np.array([*values, missing], np.int32)[index]
