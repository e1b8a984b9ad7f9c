"""The sky under the sources: one file a family of models."""

from diffdeblend.background.models import AbstractBackground as AbstractBackground
from diffdeblend.background.models import ConstantBackground as ConstantBackground
from diffdeblend.background.models import MeshBackground as MeshBackground
from diffdeblend.background.models import PolynomialBackground as PolynomialBackground
