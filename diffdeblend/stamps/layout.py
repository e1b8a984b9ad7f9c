"""The layout of a store of stamps: names, shapes and version. Its description is STORE.md."""

FORMAT, VERSION = "diffdeblend stamps", 1

# Stamps that are read together, and that are in one file. Arrays with a few numbers a stamp have
# files for `SMALL` times as many.
CHUNK, SHARD, SMALL = 64, 1024, 16

# Arrays with a row a stamp: their axes beyond the first, as words of `sizes`. Several forms of one
# array are told apart by their number of axes.
REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "id": ((),),
    "image": (("band", "y", "x"),),
    "variance": (("band", "y", "x"), ("band",)),
    "position": (("source", "xy"),),
}
OPTIONAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "source_id": (("source",),),
    "mask": (("band", "y", "x"), ("y", "x")),
    "psf_index": ((),),
    "ra": ((),),
    "dec": ((),),
    "cd": (("xy", "xy"),),
    "crowded": ((),),
}
# A row a PSF, or a row a stamp where there is no `psf_index`.
PSF = "psf"
# A group of arrays `(stamp, source)`.
TRUTH = "truth"

# What numbers an array may hold, as numpy's kinds and in words.
_REAL = ("f", "float32 or float64")
_WHOLE = ("iu", "whole numbers of up to 64 bits")
_FLAGS = ("biu", "booleans or whole numbers")
KINDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("image", "variance", "position", PSF, "ra", "dec", "cd"), _REAL),
    **dict.fromkeys(("id", "source_id", "psf_index"), _WHOLE),
    **dict.fromkeys(("mask", "crowded"), _FLAGS),
    TRUTH: ("biuf", "real numbers"),
}
# These are large, if they have pixels; all others are small.
PIXELS = ("image", "variance", "mask", PSF)
