"""Predictions: classifiers that know their classes and how their inputs are made, in memory and as files."""

from jaxmeta.prediction._classifier import Classifier as Classifier
from jaxmeta.prediction._classifier import Prediction as Prediction
from jaxmeta.prediction._classifier import load_classifier as load_classifier
from jaxmeta.prediction._classifier import save_classifier as save_classifier
from jaxmeta.prediction._inputs import Inputs as Inputs
from jaxmeta.prediction._labeled import read_labeled as read_labeled
from jaxmeta.prediction._prior_fitted import PriorFittedClassifier as PriorFittedClassifier
from jaxmeta.prediction._table import named_inputs as named_inputs
from jaxmeta.prediction._table import predictions_as as predictions_as
