"""Textures: waves, noise and cells, whose formula's parameters are the class.

Shape letters: B images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from idat_zoo.backbones.weights.canvas import SIZE, pixel_centres
from idat_zoo.backbones.weights.draws import Floats, Ints, normal, uniform

CELLS: Final = 24


@dataclass(frozen=True, kw_only=True)
class TextureClasses:
    """Formula parameters of the textures, each [K]; `kind` 0: waves, 1: noise, 2: cells."""

    kind: Ints
    mode: Ints
    frequency: Floats
    angle: Floats
    spread: Floats
    sharpness: Floats


def texture_classes(rng: np.random.Generator, count: int) -> TextureClasses:
    """Draw parameters of waves (gratings, checkers), band-pass noise and cells."""
    return TextureClasses(
        kind=rng.integers(0, 3, size=count),
        mode=rng.integers(0, 4, size=count),
        frequency=np.exp(uniform(rng, math.log(1.5), math.log(11), count)),
        angle=uniform(rng, 0, math.pi, count),
        spread=uniform(rng, 0, 1, count),
        sharpness=np.exp(uniform(rng, math.log(0.8), math.log(12), count)),
    )


def waves(rng: np.random.Generator, mode: Ints, frequency: Floats, angle: Floats) -> Floats:
    """Gratings (modes 0, 1), checkers (2) and bent gratings (3), [B, 48, 48] around zero."""
    count = len(mode)
    at = pixel_centres()
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u = cos * at + sin * at[:, None]
    v = cos * at[:, None] - sin * at
    turns = (frequency * math.pi)[:, None, None]
    phase = uniform(rng, 0, 2 * math.pi, (2, count, 1, 1))
    bent = (mode == 3)[:, None, None]
    u = u + np.where(bent, np.float32(0.12) * np.sin(5 * v + phase[1]), 0)
    wave = np.cos(turns * u + phase[0])
    checker = (mode == 2)[:, None, None]
    value: Floats = np.where(checker, 2 * wave * np.cos(turns * v + phase[1]), wave * math.sqrt(2))
    return value


def band_noise(
    rng: np.random.Generator, mode: Ints, frequency: Floats, angle: Floats, spread: Floats
) -> Floats:
    """White noise filtered to a band: all angles (modes 0, 1), one (2), or 1/f (3)."""
    count = len(mode)
    fy = np.fft.fftfreq(SIZE, 1 / SIZE).astype(np.float32)[:, None]
    fx = np.arange(SIZE // 2 + 1, dtype=np.float32)
    radius = np.hypot(fx, fy)
    width = 0.15 + 0.5 * spread[:, None, None]
    octaves = np.log(np.maximum(radius, 0.5) / frequency[:, None, None])
    gain = np.exp(-0.5 * (octaves / width) ** 2)
    off = np.sin(np.arctan2(fy, fx) - angle[:, None, None])
    gain = np.where((mode == 2)[:, None, None], gain * np.exp(-8 * off**2), gain)
    fall = np.maximum(radius, 0.5) ** -(0.8 + 1.4 * spread[:, None, None])
    gain = np.where((mode == 3)[:, None, None], fall, gain)
    noise = np.fft.irfft2(gain * np.fft.rfft2(normal(rng, 1, (count, SIZE, SIZE))), s=(SIZE, SIZE))
    deviation = noise.std(axis=(1, 2), keepdims=True)
    value: Floats = (noise / np.maximum(deviation, 1e-6)).astype(np.float32)
    return value


def cells(rng: np.random.Generator, mode: Ints, frequency: Floats) -> Floats:
    """Scattered points: discs (modes 0, 1), walls between nearest points (2), filled cells (3)."""
    count = len(mode)
    at = pixel_centres()
    number = np.clip(frequency * 2, 3, CELLS)
    points = uniform(rng, -1.1, 1.1, (count, CELLS, 2))
    points[np.arange(CELLS) >= number[:, None]] = 9
    squared = (
        np.square(at - points[:, :, :1])[:, :, None, :]
        + np.square(at - points[:, :, 1:])[:, :, :, None]
    )
    nearest = squared.min(axis=1)
    radius = (0.55 / np.sqrt(number))[:, None, None]
    value = (radius - np.sqrt(nearest)) / radius * 2
    if (walls := mode == 2).any():
        second = np.partition(squared[walls], 1, axis=1)[:, 1]
        gap = np.sqrt(second) - np.sqrt(nearest[walls])
        value[walls] = (radius[walls] - gap) / radius[walls] * 2
    if (filled := mode == 3).any():
        level = normal(rng, 1.2, (int(filled.sum()), CELLS))
        owner = squared[filled].argmin(axis=1)
        flat = np.take_along_axis(level, owner.reshape(len(level), -1), axis=1)
        value[filled] = flat.reshape(-1, SIZE, SIZE)
    result: Floats = value
    return result


def draw_textures(rng: np.random.Generator, classes: TextureClasses, shape: Ints) -> Floats:
    """Draw texture instances of the given classes, [B] -> [B, 48, 48] in [0, 1]."""
    count = len(shape)
    kind, mode = classes.kind[shape], classes.mode[shape]
    frequency = classes.frequency[shape] * np.exp(normal(rng, 0.05, count))
    angle = classes.angle[shape] + normal(rng, 0.08, count)
    value = np.empty((count, SIZE, SIZE), dtype=np.float32)
    of = [kind == k for k in range(3)]
    value[of[0]] = waves(rng, mode[of[0]], frequency[of[0]], angle[of[0]])
    spread = classes.spread[shape]
    value[of[1]] = band_noise(rng, *(v[of[1]] for v in (mode, frequency, angle, spread)))
    value[of[2]] = cells(rng, mode[of[2]], frequency[of[2]])
    steep = classes.sharpness[shape] * np.exp(normal(rng, 0.1, count))
    squashed: Floats = 1 / (1 + np.exp(np.clip(-steep[:, None, None] * value, -30, 30)))
    return squashed
