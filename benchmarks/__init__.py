"""What is run by hand and printed, never asserted in a test. Some share files to break with the tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "CTStyleGen" / "Testing" / "Core")]
