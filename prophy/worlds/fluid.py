"""A small incompressible grid fluid: enough for smoke that curls and flames that flicker.

Semi-Lagrangian advection and a Jacobi pressure projection (Stam, "Stable Fluids", 1999) with buoyancy and
vorticity confinement (Fedkiw et al., 2001), on a grid of a few hundred cells. The density it carries may lie on a finer
grid than its motion: large pictures get sharper smoke that moves just as on small ones.
"""

from __future__ import annotations

import cv2
import numpy as np

STEPS = 16  #: of the fluid a second


class Fluid:
    """A buoyant fluid on a ``(height, width)`` grid; velocities are in cells per step, y points down.

    Attributes:
        density: ``(height · detail, width · detail)`` in [0, 1].
    """

    def __init__(
        self, height: int, width: int, rng: np.random.Generator, buoyancy: float, swirl: float, detail: int = 1
    ) -> None:
        self.density: np.ndarray = np.zeros((height * detail, width * detail), np.float32)
        self._vx: np.ndarray = np.zeros((height, width), np.float32)
        self._vy: np.ndarray = np.zeros((height, width), np.float32)
        self._rng, self._buoyancy, self._swirl, self._detail = rng, buoyancy, swirl, detail
        self._y, self._x = np.mgrid[:height, :width].astype(np.float32)
        self._fine_y, self._fine_x = np.mgrid[: height * detail, : width * detail].astype(np.float32)

    def emitter(self, x: float, y: float, radius: float) -> np.ndarray:
        """A round source of density 1 at its middle, on the grid of the density; lengths in cells."""
        fine_x, fine_y = ((fine + 0.5) / self._detail - 0.5 for fine in (self._fine_x, self._fine_y))
        source = np.exp(-(((fine_x - x) / radius) ** 2 + ((fine_y - y) / radius) ** 2)).astype(np.float32)
        source[source < 0.2] = 0
        return source

    def step(self, source: np.ndarray, wind: float, cooling: float) -> None:
        """Advance one step.

        Args:
            source: density added, on the grid of the density.
            wind: sideways acceleration where there is density, cells per step².
            cooling: share of the density lost in the step.
        """
        self.density = np.minimum(self.density + source, 1.0)
        density = self.density
        if self._detail > 1:
            density = cv2.resize(density, self._vx.shape[::-1], interpolation=cv2.INTER_AREA)
        self._vy -= self._buoyancy * density
        self._vx += density * (wind + 0.06 * self._rng.standard_normal(density.shape).astype(np.float32))
        self._confine()
        self._project()
        moving_x, moving_y = self._vx, self._vy
        x, y = self._x - moving_x, self._y - moving_y
        self._vx = 0.97 * self._sample(self._vx, x, y)
        self._vy = 0.97 * self._sample(self._vy, x, y)
        if self._detail > 1:
            shape = self.density.shape[::-1]
            x, y = (
                fine - self._detail * cv2.resize(speed, shape, interpolation=cv2.INTER_LINEAR)
                for fine, speed in ((self._fine_x, moving_x), (self._fine_y, moving_y))
            )
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
    times: np.ndarray,
    source: tuple[float, float, float],
    *,
    buoyancy: float,
    swirl: float,
    wind: float,
    cooling: float,
    warm_up: int,
    detail: int = 1,
) -> np.ndarray:
    """Density of a plume over time, ``(T, height · detail, width · detail)`` in [0, 1].

    Args:
        rng: source of the turbulence.
        shape: the grid's (height, width), cells.
        times: seconds to record, ``(T,)``, rising from 0; between two steps the density is blended.
        source: (x, y, radius) of the emitter, cells.
        buoyancy: upward acceleration, cells per step².
        swirl: vorticity confinement.
        wind: sideways acceleration, cells per step².
        cooling: share of the density lost a step.
        warm_up: steps before the first recorded moment.
        detail: cells of the density on a side of a cell of the motion.
    """
    fluid = Fluid(*shape, rng, buoyancy, swirl, detail)
    emitter = fluid.emitter(*source)
    for _ in range(warm_up):
        fluid.step(emitter * rng.uniform(0.4, 0.9), wind, cooling)
    record = np.empty((len(times), *fluid.density.shape), np.float32)
    done, before = 0, fluid.density
    for row, moment in enumerate(times * STEPS):
        while done < moment - 1e-6:
            before = fluid.density
            fluid.step(emitter * rng.uniform(0.4, 0.9), wind, cooling)
            done += 1
        share = np.float32(max(done - moment, 0.0))
        record[row] = fluid.density + share * (before - fluid.density) if share > 1e-6 else fluid.density
    for _ in range(2):  # what the same generator draws afterwards has always come two steps after the last frame
        fluid.step(emitter * rng.uniform(0.4, 0.9), wind, cooling)
    return record
