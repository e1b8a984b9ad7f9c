"""The layout of a store of stamps: names, shapes and version. Its description is STORE.md."""

FORMAT, VERSION = "diffdeblend stamps", 1

# Stamps that are read together, and that are in one file.
CHUNK, SHARD = 64, 1024

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
TRUTH = "truth"
