"""Textured backgrounds, distractor objects, and objects that occlude people."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.canvas import Canvas, Color, shade
from tools.lab.synthetic.outfit import hsv

Generator = np.random.Generator


def draw_background(rng: Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Draws a (height, width, 3) BGR background, in paler colors than clothes."""
    horizon = int(height * rng.uniform(0.35, 0.8))
    image = np.empty((height, width, 3), np.float32)
    image[:horizon] = _gradient(_pale(rng), _pale(rng), horizon)
    image[horizon:] = _gradient(_pale(rng), _pale(rng), height - horizon)
    if rng.random() < 0.4:
        _add_stripes(rng, image[:horizon])
    if rng.random() < 0.3:
        _add_stripes(rng, image[horizon:])
    image += _cloud(rng, width, height, cells=int(rng.integers(4, 12)), strength=rng.uniform(5, 18))
    image += _cloud(rng, width, height, cells=int(rng.integers(30, 80)), strength=rng.uniform(2, 9))
    background = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(1, 9)):
        _add_shape(rng, background)
    return background


def draw_distractor(rng: Generator, canvas: Canvas) -> None:
    """Draws a distractor with limb-like parts: a lamp, a tree, a sign, or a fence."""
    width, height = canvas.size
    foot = np.array([rng.uniform(0, width), height * rng.uniform(0.6, 1.0)])
    size = height * rng.uniform(0.2, 0.6)
    color, other = _pale(rng), hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.9))
    top = foot - [size * rng.uniform(-0.05, 0.05), size]
    stem = size * rng.uniform(0.015, 0.045)
    kind = rng.choice(["lamp", "tree", "sign", "fence"])
    if kind == "fence":
        for step in range(int(rng.integers(3, 7))):
            post = foot + np.array([step * size * 0.14, 0])
            canvas.limb(post, post - [0, size * 0.35], (stem, stem), color, outline=0.4)
        return
    canvas.limb(foot, top, (stem, stem * 0.8), color, outline=0.4)
    if kind == "lamp":
        canvas.disc(top, size * 0.07, other, outline=0.5)
    elif kind == "tree":
        for branch in rng.uniform(-1, 1, (3, 2)) * [0.2, 0.12] * size:
            fork = top + np.array([0, size * 0.3])
            canvas.limb(fork, top + branch, (stem * 0.7, stem * 0.5), color, outline=0.4)
            canvas.disc(top + branch, size * rng.uniform(0.07, 0.13), hsv(0.33, 0.45, rng.uniform(0.3, 0.6)))
    else:
        board = np.array([[-0.12, -0.08], [0.12, -0.08], [0.12, 0.08], [-0.12, 0.08]]) * size
        canvas.polygon(top + board, other, outline=0.5)


def draw_seat(canvas: Canvas, box: NDArray[np.floating], color: Color) -> None:
    """Draws a seat that fills a box (4,) xyxy in image pixels."""
    x1, y1, x2, y2 = box
    lip = (y2 - y1) * 0.12
    canvas.polygon(_corners(x1, y1, x2, y2), shade(color, 0.8), outline=0.6)
    canvas.polygon(_corners(x1, y1 - lip, x2, y1 + lip), color, outline=0.6)


def draw_occluder(rng: Generator, canvas: Canvas, box: NDArray[np.floating]) -> None:
    """Draws an object that occludes a part of a box (4,) xyxy: a crate, a table, a bush or a pole."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    color = hsv(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.85))
    kind = rng.choice(["crate", "table", "bush", "pole"])
    if kind == "pole":
        x, radius = rng.uniform(x1 + 0.15 * width, x2 - 0.15 * width), height * rng.uniform(0.02, 0.05)
        top, foot = np.array([x, y1 - height * rng.uniform(0, 0.5)]), np.array([x, y2 + 3])
        canvas.limb(foot, top, (radius, radius), color, outline=0.6)
        return
    # occludes the lower part or one side of the person
    top = y2 - height * rng.uniform(0.15, 0.42)
    left, right = x1 + width * rng.uniform(-0.4, 0.35), x2 - width * rng.uniform(-0.4, 0.35)
    bottom = y2 + height * rng.uniform(0.0, 0.05)
    if kind == "bush":
        green = hsv(rng.uniform(0.22, 0.4), rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.6))
        radius = (bottom - top) / 2
        for _ in range(14):
            center = np.array([rng.uniform(left, right), rng.uniform(top + radius, bottom)])
            canvas.disc(center, radius * rng.uniform(0.6, 1.0), shade(green, rng.uniform(0.8, 1.2)), outline=0.4)
    elif kind == "table":
        slab = (bottom - top) * 0.25
        leg = max(1.5, (right - left) * 0.03)
        for x in (left + 2 * leg, right - 2 * leg):
            canvas.polygon(_corners(x - leg, top, x + leg, bottom), shade(color, 0.75), outline=0.5)
        canvas.polygon(_corners(left, top, right, top + slab), color, outline=0.6)
    else:
        canvas.polygon(_corners(left, top, right, bottom), color, outline=0.7)
        for share in (0.33, 0.66):
            y = top + share * (bottom - top)
            canvas.polygon(_corners(left, y, right, y + 1), shade(color, 0.7))


def degrade(rng: Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Simulates the brightness, contrast and color cast of a cheap camera, with slight blur and noise."""
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9)), np.uint8)
    gains = rng.uniform(0.8, 1.12) * rng.uniform(0.94, 1.06, 3)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0.5, 6))
    degraded = image * gains.astype(np.float32) + np.float32(rng.uniform(-14, 14)) + noise
    return np.clip(degraded, 0, 255).astype(np.uint8)


def _corners(x1: float, y1: float, x2: float, y2: float) -> NDArray[np.floating]:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _pale(rng: Generator) -> Color:
    return hsv(rng.random(), rng.uniform(0.02, 0.3), rng.uniform(0.3, 0.92))


def _gradient(top: Color, bottom: Color, rows: int) -> NDArray[np.floating]:
    share = np.linspace(0, 1, rows)[:, None, None]
    return (1 - share) * np.array(top) + share * np.array(bottom)


def _add_stripes(rng: Generator, area: NDArray[np.float32]) -> None:
    """Adds stripes (boards, tiles, wallpaper) in place: a square wave along one direction."""
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    period, strength = rng.uniform(8, 45), rng.uniform(-22, 22)
    ys, xs = np.ogrid[: area.shape[0], : area.shape[1]]
    wave = (np.cos(angle) * xs + np.sin(angle) * ys) % period < period * rng.uniform(0.1, 0.5)
    area += np.where(wave, np.float32(strength), np.float32(0))[..., None]


def _cloud(rng: Generator, width: int, height: int, cells: int, strength: float) -> NDArray[np.float32]:
    """Returns smooth random brightness with slight color variation, from a grid of `cells` x `cells` values."""
    light = rng.standard_normal((cells, cells, 1), dtype=np.float32)
    color = rng.standard_normal((cells, cells, 3), dtype=np.float32)
    coarse = (light + np.float32(0.35) * color) * np.float32(strength)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _add_shape(rng: Generator, background: NDArray[np.uint8]) -> None:
    """Draws a pale rectangle with frame, disc, line or triangle in place."""
    height, width = background.shape[:2]
    color = _pale(rng)
    x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
    w, h = (int(side) for side in rng.integers(8, 90, 2))
    kind = rng.integers(4)
    if kind == 0:
        cv2.rectangle(background, (x, y), (x + w, y + h), color, -1)
        cv2.rectangle(background, (x, y), (x + w, y + h), shade(color, 0.7), 2, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(background, (x, y), w // 2, color, -1, cv2.LINE_AA)
    elif kind == 2:
        cv2.line(background, (x, y), (x + 2 * w - 90, y + 2 * h - 90), color, int(rng.integers(1, 8)), cv2.LINE_AA)
    else:
        cv2.fillConvexPoly(background, np.array([[x, y], [x + w, y + h // 3], [x + w // 3, y + h]]), color, cv2.LINE_AA)
