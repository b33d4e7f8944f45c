"""The figures of the study, from arrays and data frames. Needs no torch; activations come as numpy arrays."""

from eraser_lib.figures._activations import activation_pca, cosine_heatmap, eigen_spectrum, pca_numbers
from eraser_lib.figures._gates import auc_by_layer, gate_distributions, roc_by_layer, roc_numbers
from eraser_lib.figures._pictures import image_strip, portrait_sheet
from eraser_lib.figures._scores import comparison_dots, reentry_curve, strength_curve, training_curves
from eraser_lib.plotting import save_figure, to_json

__all__ = [
    "activation_pca", "auc_by_layer", "comparison_dots", "cosine_heatmap", "eigen_spectrum",
    "gate_distributions", "image_strip", "pca_numbers", "portrait_sheet", "reentry_curve", "roc_by_layer",
    "roc_numbers", "save_figure", "strength_curve", "to_json", "training_curves",
]  # fmt: skip
