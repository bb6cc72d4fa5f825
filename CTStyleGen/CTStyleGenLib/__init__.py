"""CTStyleGen's Slicer side: segments in, synthetic CT volumes out. Torch is only in the child process."""
