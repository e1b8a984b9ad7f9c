"""From an image to labels: smoothing, thresholds, connected pixels, and how blends come apart."""
