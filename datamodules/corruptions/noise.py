"""Noise: what a sensor adds in low light, and broken values. `imagenet_c.TABLE` says what the figures are."""

from functools import lru_cache

import numpy as np
from scipy.stats import poisson

from datamodules.corruptions.rounding import cut

QUANTILES = 4096
"""Equally likely values that stand for a Poisson distribution."""


def gaussian_noise(image, deviation, rng):
    """Adds to every value a normal number of standard deviation 255 x `deviation`."""
    return cut(_normal(image.shape, 255 * deviation, rng) + image)


def speckle_noise(image, deviation, rng):
    """Multiplies every value with a normal number of mean 1 and standard deviation `deviation`."""
    noise = _normal(image.shape, deviation, rng)
    noise += 1
    noise *= image
    return cut(noise)


def shot_noise(image, photons, rng):
    """Every value becomes a count of photons, where white stands for `photons` of them on average.

    A value is looked up by its clean value and a random quantile: drawing from a Poisson distribution itself takes ten
    times as long. What happens less often than once in 8,192 draws is drawn as its quantile's middle.
    """
    quantile = rng.integers(0, QUANTILES, image.shape, np.uint16)
    place = image.astype(np.intp)
    place *= QUANTILES
    place += quantile
    return _counted(photons).take(place)


def impulse_noise(image, share, rng):
    """Replaces a `share` of the values, half by 0 and half by 255; channels are hit independently."""
    drawn = rng.integers(0, 65536, image.shape, np.uint16)
    half = round(32768 * share)
    out = image.copy()
    out[drawn < half] = 0
    out[drawn >= 65536 - half] = 255
    return out


def _normal(shape, deviation, rng):
    noise = rng.standard_normal(shape, np.float32)
    noise *= np.float32(deviation)
    return noise


@lru_cache(maxsize=16)
def _counted(photons: int) -> np.ndarray:
    """uint8 (256 x QUANTILES,): the noisy value for each clean value and quantile."""
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    most = int(poisson.ppf(middles[-1], photons)) + 1
    expected = np.arange(256)[:, None] * (photons / 255)
    levels = poisson.cdf(np.arange(most), expected)
    counts = np.stack([np.searchsorted(row, middles) for row in levels])
    return cut(np.minimum(counts * (255 / photons), 255).astype(np.float32)).ravel()
