"""From labels to a catalogue: positions, shapes and fluxes, one file a family of measurements."""
