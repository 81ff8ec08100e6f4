"""The transforms of training and evaluation images in a classification recipe."""

from datamodules.classification.transforms import EvaluationImage, TrainImage
from lightning_modules.classification.recipes import ClassificationRecipe


def train_image(recipe: ClassificationRecipe) -> TrainImage:
    """The transform of training images."""
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
    """The transform of evaluation images."""
    return EvaluationImage(
        recipe.image_size,
        recipe.resize,
        recipe.interpolation,
        squash=recipe.squash,
        normalisation=recipe.normalisation,
    )
