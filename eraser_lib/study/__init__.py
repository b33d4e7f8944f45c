"""The engine of the study: presets, the matrix of notebooks, manifests, reports. Imports no torch."""
