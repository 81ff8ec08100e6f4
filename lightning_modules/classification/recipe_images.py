"""The images that a classification recipe trains and is evaluated on."""

from datamodules.classification.transforms import EvaluationImage, TrainImage
from lightning_modules.classification.recipes import ClassificationRecipe


def train_image(recipe: ClassificationRecipe) -> TrainImage:
    """What a training image goes through."""
    return TrainImage(
        recipe.image_size,
        recipe.crop,
        randaugment=recipe.randaugment,
        interpolation=recipe.interpolation,
        operations=recipe.randaugment_operations,
        area=recipe.crop_area,
        squash=recipe.train_squash,
        jitter=recipe.jitter,
        grey=recipe.grey,
        colour_noise=recipe.colour_noise,
        normalisation=recipe.normalisation,
    )


def evaluation_image(recipe: ClassificationRecipe) -> EvaluationImage:
    """What an image goes through before the network is evaluated on it."""
    return EvaluationImage(
        recipe.image_size,
        recipe.resize,
        recipe.interpolation,
        squash=recipe.squash,
        normalisation=recipe.normalisation,
    )
