"""AlexNet's errors, by which ImageNet-C's and ImageNet-P's measures are divided (Hendrycks, Dietterich, ICLR 2019).

They are valid only for the published files, with ImageNet's 1000 classes at 224 x 224. Corruptions that are generated
by any code differ from these files (no JPEG compression, other random numbers, here other frost) by more than one
AlexNet differs from another.
"""

SEVERITIES = (1, 2, 3, 4, 5)

ALEXNET_ERRORS = {
    # corruption: top-1 error at severities 1 to 5
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.9487, 0.9872, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.5843, 0.70048, 0.82108, 0.8975, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.9187, 0.94952),
    "frost": (0.6139, 0.79734, 0.8879, 0.89942, 0.9343),
    "fog": (0.67474, 0.7605, 0.84378, 0.8726, 0.945),
    "brightness": (0.4514, 0.48502, 0.54048, 0.62166, 0.7244),
    "contrast": (0.64548, 0.7615, 0.88874, 0.9776, 0.9927),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.5462, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
"""As published by the benchmark's authors (github.com/hendrycks/robustness, issue 10)."""

ALEXNET_CLEAN_ERROR = 0.43478
"""Top-1 error of the same network on the clean validation set: an accuracy of 56.522 per cent (torchvision's
`AlexNet_Weights.IMAGENET1K_V1.meta`). The paper's table has 43.5 per cent."""

ALEXNET_FLIP_PROBABILITIES = {
    "gaussian_noise": 0.2365,
    "shot_noise": 0.3006,
    "motion_blur": 0.0930,
    "zoom_blur": 0.0594,
    "snow": 0.1193,
    "brightness": 0.0489,
    "translate": 0.1101,
    "rotate": 0.1310,
    "tilt": 0.0705,
    "scale": 0.2353,
}
"""AlexNet's flip probability on each of ImageNet-P's sequences. UNVERIFIED: no primary source was found, so mean flip
rates may not be comparable with published ones. AlexNet's top-5 distances are unknown, so top-5 distances are not
divided by them here."""
