"""Many blends at once: cut from images, fitted in a few compiled programs, ragged again."""

from diffdeblend.batch.blend import Blend as Blend
from diffdeblend.batch.blend import blend_of_arrays as blend_of_arrays
from diffdeblend.batch.blend import make_blend as make_blend
from diffdeblend.batch.cut import cut_blends as cut_blends
from diffdeblend.batch.decoded_results import FoundDecoded as FoundDecoded
from diffdeblend.batch.fit_batch import fit_batch as fit_batch
from diffdeblend.batch.free_form import CAUTIOUS as CAUTIOUS
from diffdeblend.batch.free_form import FreeForm as FreeForm
from diffdeblend.batch.results import Found as Found
from diffdeblend.batch.stream import fit_stream as fit_stream
