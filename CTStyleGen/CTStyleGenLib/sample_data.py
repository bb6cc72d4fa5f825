"""A chest for the Sample Data module, to try it all at once. Nothing is fetched before the click."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

# CT and segmentation with which the package slicerio tests itself, at the commit of its release 1.1.2.
_SOURCE = "https://raw.githubusercontent.com/lassoan/slicerio/f4b02946055debc15eac1a3b31ddde128278d115/slicerio/data/"
_CATEGORY = "CTStyleGen"
_THUMBNAIL = Path(__file__).parents[1] / "Resources" / "Icons" / "CTStyleGenChest.png"


def registerSampleData() -> None:
    """Adds the chest to the Sample Data module, where there is one."""
    if not hasattr(slicer.modules, "sampledata"):
        return
    from SampleData import SampleDataLogic

    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        SampleDataLogic.registerCustomSampleDataCategory(_CATEGORY, title=_("CT Style Generation"))
    SampleDataLogic.registerCustomSampleDataSource(
        category=_CATEGORY,
        sampleName=_("Chest CT with segmentation"),
        thumbnailFileName=str(_THUMBNAIL),
        uris=[_SOURCE + "CTChest4.nrrd", _SOURCE + "Segmentation.seg.nrrd"],
        fileNames=["CTStyleGenChest.nrrd", "CTStyleGenChest.seg.nrrd"],
        nodeNames=["Chest CT", "Chest segmentation"],
        loadFileTypes=["VolumeFile", "SegmentationFile"],
        checksums=[
            "SHA256:439ee098e50ee8e3254bd80ed8bcf7f8d006da4cab35be7a65b61ccb30dd6a3d",
            "SHA256:1a35d7165f51521cf4c747d81278eb461e5f151b0ea43f1bfb38fba3453140cf",
        ],
    )
