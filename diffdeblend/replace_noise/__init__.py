"""One source at a time: all others replaced by noise."""

from diffdeblend.replace_noise.draw import NOISE_SOURCES as NOISE_SOURCES
from diffdeblend.replace_noise.draw import draw_replacement as draw_replacement
from diffdeblend.replace_noise.replace import alone as alone
from diffdeblend.replace_noise.replace import replaced as replaced
from diffdeblend.replace_noise.replacer import NoiseReplacer as NoiseReplacer
from diffdeblend.replace_noise.replacer import replace_noise as replace_noise
from diffdeblend.replace_noise.stamps import LoneStamps as LoneStamps
from diffdeblend.replace_noise.stamps import lone_stamps as lone_stamps
