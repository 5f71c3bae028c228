"""A small incompressible grid fluid: enough for smoke that curls and flames that flicker.

Semi-Lagrangian advection and a Jacobi pressure projection (Stam, "Stable Fluids", 1999) with buoyancy and
vorticity confinement (Fedkiw et al., 2001), on a grid of a few hundred cells.
"""

from __future__ import annotations

import cv2
import numpy as np


class Fluid:
    """A buoyant fluid on an ``(height, width)`` grid; velocities are in cells per step, y points down."""

    def __init__(self, height: int, width: int, rng: np.random.Generator, buoyancy: float, swirl: float) -> None:
        self.density = np.zeros((height, width), np.float32)
        self._vx = np.zeros((height, width), np.float32)
        self._vy = np.zeros((height, width), np.float32)
        self._rng, self._buoyancy, self._swirl = rng, buoyancy, swirl
        self._y, self._x = np.mgrid[:height, :width].astype(np.float32)

    def step(self, source: np.ndarray, wind: float, cooling: float) -> None:
        """Advance one step.

        Args:
            source: density added, ``(height, width)``.
            wind: sideways acceleration where there is density, cells per step².
            cooling: share of the density lost in the step.
        """
        self.density = np.minimum(self.density + source, 1.0)
        self._vy -= self._buoyancy * self.density
        self._vx += self.density * (wind + 0.06 * self._rng.standard_normal(self.density.shape).astype(np.float32))
        self._confine()
        self._project()
        x, y = self._x - self._vx, self._y - self._vy
        self._vx = 0.97 * self._sample(self._vx, x, y)
        self._vy = 0.97 * self._sample(self._vy, x, y)
        self.density = (1.0 - cooling) * self._sample(self.density, x, y)

    @staticmethod
    def _sample(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)

    def _confine(self) -> None:
        curl = np.zeros_like(self._vx)
        curl[1:-1, 1:-1] = (self._vy[1:-1, 2:] - self._vy[1:-1, :-2] - self._vx[2:, 1:-1] + self._vx[:-2, 1:-1]) / 2
        strength = np.abs(curl)
        gy, gx = np.zeros_like(curl), np.zeros_like(curl)
        gy[1:-1], gx[:, 1:-1] = strength[2:] - strength[:-2], strength[:, 2:] - strength[:, :-2]
        norm = np.sqrt(gx * gx + gy * gy) + 1e-5
        self._vx += self._swirl * gy / norm * curl
        self._vy -= self._swirl * gx / norm * curl

    def _project(self) -> None:
        divergence = np.zeros_like(self._vx)
        divergence[1:-1, 1:-1] = (
            self._vx[1:-1, 2:] - self._vx[1:-1, :-2] + self._vy[2:, 1:-1] - self._vy[:-2, 1:-1]
        ) / 2
        pressure = np.zeros_like(divergence)
        for _ in range(12):
            pressure[1:-1, 1:-1] = (
                pressure[1:-1, 2:]
                + pressure[1:-1, :-2]
                + pressure[2:, 1:-1]
                + pressure[:-2, 1:-1]
                - divergence[1:-1, 1:-1]
            ) / 4
        self._vx[1:-1, 1:-1] -= (pressure[1:-1, 2:] - pressure[1:-1, :-2]) / 2
        self._vy[1:-1, 1:-1] -= (pressure[2:, 1:-1] - pressure[:-2, 1:-1]) / 2


def plume(
    rng: np.random.Generator,
    shape: tuple[int, int],
    frames: int,
    source: tuple[float, float, float],
    *,
    buoyancy: float,
    swirl: float,
    wind: float,
    cooling: float,
    warm_up: int,
    steps: int = 2,
) -> np.ndarray:
    """Density of a plume over time, ``(frames, height, width)`` in [0, 1].

    Args:
        rng: source of the turbulence.
        shape: the grid's (height, width), cells.
        frames: frames to record.
        source: (x, y, radius) of the emitter, cells.
        buoyancy: upward acceleration, cells per step².
        swirl: vorticity confinement.
        wind: sideways acceleration, cells per step².
        cooling: share of the density lost a step.
        warm_up: steps before the first recorded frame.
        steps: steps between recorded frames.
    """
    fluid = Fluid(*shape, rng, buoyancy, swirl)
    x, y, radius = source
    emitter = np.exp(-(((fluid._x - x) / radius) ** 2 + ((fluid._y - y) / radius) ** 2)).astype(np.float32)
    emitter[emitter < 0.2] = 0
    record = np.empty((frames, *shape), np.float32)
    for _ in range(warm_up):
        fluid.step(emitter * rng.uniform(0.4, 0.9), wind, cooling)
    for frame in range(frames):
        record[frame] = fluid.density
        for _ in range(steps):
            fluid.step(emitter * rng.uniform(0.4, 0.9), wind, cooling)
    return record
