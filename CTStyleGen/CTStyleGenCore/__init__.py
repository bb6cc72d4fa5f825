"""CTStyleGen's torch side: organ segmentations in, CT in the style of chosen scans out. Runs without 3D Slicer."""

__version__ = "0.1.0"
