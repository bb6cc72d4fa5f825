"""What the tests of the Slicer side share. Importing it makes `slicer` usable where it is only slicer-core, from PyPI.

In the real application nothing is prepared, and the same tests run there.
"""

from .bootstrap import prepare

IN_APPLICATION = not prepare()  # whether this is the real Slicer
