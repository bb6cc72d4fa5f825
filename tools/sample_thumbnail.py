"""The sample chest in the Sample Data module, its segmentation without CT: python -m tools.sample_thumbnail.

Each pixel has the color of the segment that fills most of the line of sight from the front.
"""

import numpy as np
import slicerio
from PIL import Image

from .demo import ROOT

_SIZE = (260, 280)  # pixels, what the Sample Data module shows


def main() -> None:
    """Writes CTStyleGenChest.png into the module's icons."""
    segmentation = slicerio.read_segmentation(slicerio.get_testdata_file("Segmentation.seg.nrrd"))
    voxels = segmentation["voxels"]  # [i, j, k]
    colors, depths = [np.zeros(3)], [np.full(voxels.shape[::2], 0.5)]
    for segment in segmentation["segments"]:
        depth = (voxels == segment["labelValue"]).sum(axis=1)
        colors.append(np.array(segment["color"]))
        depths.append(depth if "tissue" not in segment["name"].lower() else np.minimum(depth, 1))
    front = np.array(colors)[np.argmax(depths, axis=0)]
    shade = 0.55 + 0.45 * np.max(depths[1:], axis=0) / np.max(depths[1:])
    picture = (255 * front * shade[..., None]).astype(np.uint8).transpose(1, 0, 2)[::-1, ::-1]  # right is on the left
    image = Image.fromarray(picture).resize((_SIZE[0], _SIZE[1]), Image.Resampling.BICUBIC)
    image.save(ROOT / "CTStyleGen" / "Resources" / "Icons" / "CTStyleGenChest.png", optimize=True)


if __name__ == "__main__":
    main()
