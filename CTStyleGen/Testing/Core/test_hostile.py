"""Every reader against broken and hostile files: it takes them or refuses them in a sentence, and nothing else happens.

`make soak` does the same with thousands of files a reader.
"""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import BOUND_BYTES, READERS, Watched, check, whole_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's here")
_INPUTS = 80  # a reader


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return {name: whole_files(name, tmp_path_factory.mktemp(name)) for name in READERS}


@pytest.fixture(scope="module")
def readers(wholes: dict[str, list[Path]]) -> Iterator[Watched]:
    with Watched(wholes) as readers:
        yield readers


@pytest.mark.parametrize("name", READERS)
def test_no_file_does_worse_than_an_input_error(name: str, wholes: dict[str, list[Path]], readers: Watched) -> None:
    check(readers, name, wholes[name], _INPUTS)


@pytest.mark.parametrize("entry", ["data.pkl", "data/0", "version"])
def test_weights_packed_a_thousandfold_are_refused(
    entry: str, wholes: dict[str, list[Path]], tmp_path: Path, readers: Watched
) -> None:
    packed = tmp_path / "vgg.pth"
    whole = next(path for path in wholes["weights"] if path.name == packed.name)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name in archive.namelist():
            with made.open(name, "w") as file:
                file.write(archive.read(name))
                if name.endswith(entry):
                    for _ in range((BOUND_BYTES >> 20) + 100):
                        file.write(bytes(1 << 20))
    assert readers.read("weights", packed) == "refused"


_NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\n"
_MHA = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
_ENDLESS = "/dev/zero"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("long line.nrrd", _NRRD + "kinds: " + 2000 * "9" + "\n\n"),
        ("long line that looks like a key.nrrd", _NRRD + "kinds: " + 2000 * "9" + ":=1\n\n"),
        ("device.nrrd", _NRRD + f"data file: {_ENDLESS}\n\n"),
        ("device.nhdr", _NRRD + f"DataFile: {_ENDLESS}\n"),
        ("list.nhdr", _NRRD + f"data file: LIST\n{_ENDLESS}\n"),
        ("elsewhere.nhdr", _NRRD + "data file: ../labels.raw\n"),
        ("more than fits.nrrd", _NRRD.replace("2 2 2", "1024 1024 1024") + "\n"),
        (
            "a value a layer.nrrd",
            _NRRD.replace("2 2 2", "1000000 1 1 1").replace("dimension: 3", "dimension: 4") + "\n",
        ),
        ("long name.mha", f"Name = {300 * 'x'}\n{_MHA}ElementDataFile = LOCAL\n"),
        ("dimensions.mha", _MHA.replace("NDims = 3", "NDims = 99999") + "ElementDataFile = LOCAL\n"),
        ("negative dimensions.mha", _MHA.replace("NDims = 3", "NDims = -1") + "ElementDataFile = LOCAL\n"),
        ("printed.mhd", _MHA + "ElementDataFile = %s%n%s%n\n"),
        ("packed in more.mha", f"CompressedData = True\nCompressedDataSize = 1e12\n{_MHA}ElementDataFile = LOCAL\n"),
        ("packed in less.mha", f"CompressedData = True\nCompressedDataSize = -1\n{_MHA}ElementDataFile = LOCAL\n"),
        ("packed elsewhere.mha", f"CompressedData = True\nHeaderSize = 9\n{_MHA}ElementDataFile = LOCAL\n"),
        ("packed with a dictionary.mha", f"CompressedData = True\n{_MHA}ElementDataFile = LOCAL\nx 4\n"),
        ("device.mhd", _MHA + f"ElementDataFile = {_ENDLESS}\n"),
        ("list.mhd", _MHA + f"ElementDataFile = LIST\n{_ENDLESS}\n"),
    ],
    ids=lambda told: told if len(told) < 50 else "",
)
def test_headers_that_crash_or_mislead_the_libraries_below_are_refused(
    name: str, header: str, tmp_path: Path, readers: Watched
) -> None:
    path = tmp_path / name
    path.write_bytes(header.encode() + b"\1" * 16)
    for reader in ("ct", "labels"):
        assert readers.read(reader, path) == "refused"
