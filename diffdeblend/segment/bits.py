"""Bits of `LabelImage.flags` that tell of deblending."""

# These three have photutils' values.
DEBLENDED = 32
LOW_MINIMUM = 64
MANY_MARKERS = 128
# As the pixels do not all touch; photutils gives up on the whole image then.
NOT_CONNECTED = 1 << 20
