"""Files as broken disks and enemies make them, and readers in a process of their own that is watched.

A reader may take a file or refuse it by an InputError of one sentence, within _SECONDS and BOUND_BYTES of memory
beyond what its process takes when idle. Everything else is a fault: another exception, an allocation beyond the bound
(also one that ends as an InputError), a crash, a hang. What is taken must be fit for use: see each reader below.
"""

import contextlib
import gzip
import io
import json
import math
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

BOUND_BYTES = 512 << 20
_SECONDS, _START_SECONDS = 10.0, 120.0
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a file on a disk takes longer than reading it
_WEIGHTS_SIZE, _NOISE = 64, 8  # a generator's, small

# --- readers, in the child ------------------------------------------------------------------------------------------


def read_ct(path: Path) -> None:
    from CTStyleGenCore.volumes import read_ct

    ct = read_ct(path)
    assert ct.GetDimension() == 3 and ct.GetPixelID() == sitk.sitkInt16 and ct.GetNumberOfPixels() > 0
    assert sitk.GetArrayViewFromImage(ct).min() >= -1024 and not ct.GetMetaDataKeys()
    _check_grid(ct)


def read_labels(path: Path) -> None:
    from CTStyleGenCore.anatomy import load_anatomy
    from CTStyleGenCore.cases import read_labels

    thorax = load_anatomy("thorax")
    labels, _ = read_labels(path, thorax)
    assert labels.GetDimension() == 3 and labels.GetPixelID() == sitk.sitkUInt8
    assert 0 < sitk.GetArrayViewFromImage(labels).max() < len(thorax.organs)
    _check_grid(labels)


def _check_grid(image: sitk.Image) -> None:
    numbers = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    assert all(map(math.isfinite, numbers)) and min(image.GetSpacing()) > 0
    assert abs(abs(np.linalg.det(np.reshape(image.GetDirection(), (3, 3)))) - 1) < 0.01


def read_table(path: Path) -> None:
    from CTStyleGenCore.anatomy import Anatomy, load_anatomy

    table = load_anatomy(path)
    assert Anatomy.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False))) == table
    table.place("left lung")


def read_card(path: Path) -> None:
    from CTStyleGenCore.model_file import read_card
    from CTStyleGenCore.styles import style_mix

    card = read_card(path)
    style_mix(card, ())
    assert ", ".join(card["styles"] + card["cases"]) and json.dumps(card, allow_nan=False)


def read_model(path: Path) -> None:
    import torch
    from CTStyleGenCore.synthesis import Model

    model = Model(path, "cpu")
    labels = torch.zeros(1, model.G.size, model.G.size, dtype=torch.int64)
    assert model.synthesize(labels, model.noise_code(0, 0)).isfinite().all()


def read_dataset(path: Path) -> None:
    from CTStyleGenCore.cases import find_cases

    for files in find_cases(path):
        assert files.named is not None and all(segment.value > 0 for segment in files.named)


def read_splits(path: Path) -> None:
    from CTStyleGenCore.splits import read_splits

    assert set(read_splits(path, ["A", "B", "C"]).train) <= {"A", "B", "C"}


def read_plan(path: Path) -> None:
    from CTStyleGenCore.expansion import read_plan

    assert isinstance(read_plan(path), dict)


def read_checkpoint(path: Path) -> None:
    """What is read must be good for a step, or refused as another network's; see training.resume."""
    import torch
    from CTStyleGenCore.checkpoint import load_flat_state, read_checkpoint
    from CTStyleGenCore.errors import InputError

    state, run = read_checkpoint(path)
    run.get("step")
    network, optimizer = _learner()
    try:
        load_flat_state({"G": network, "optimizer_G": optimizer}, state)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError("The checkpoint is damaged.") from error
    _step(network, optimizer)
    assert all(p.shape == (3, 5) or p.shape == (3,) for p in network.parameters()) and torch.is_grad_enabled()


def _learner() -> tuple[Any, Any]:
    import torch

    network = torch.nn.Linear(5, 3)
    return network, torch.optim.Adam(network.parameters(), fused=True)


def _step(network: Any, optimizer: Any) -> None:
    import torch

    network(torch.ones(2, 5)).sum().backward()
    optimizer.step()


def read_weights(path: Path) -> None:
    from CTStyleGenCore.perceptual import read_weights

    weights = read_weights("vgg16", path)
    assert len(weights.mean) == len(weights.std) == 3 and all(map(math.isfinite, (*weights.mean, *weights.std)))


def read_training(path: Path) -> None:
    """What Slicer's timer makes of a training's folder."""
    import CTStyleGenTesting  # noqa: F401 - prepares slicer
    from CTStyleGenLib.loss_plot import relativeLosses
    from CTStyleGenLib.speed import inWords
    from CTStyleGenLib.training_run import Training

    training = Training(path)
    assert training.poll() and not training.checkpoint.exists()
    for text in (training.message, training.notice, *relativeLosses(training), inWords(training.secondsLeft or 0)):
        assert text.isprintable() and len(text) < 3000
    assert 0 <= training.done < 1 << 31 and 0 <= training.total < 1 << 31  # what a progress bar can show
    assert len(training.log()) < 50_000


def read_request(path: Path) -> None:
    from CTStyleGenCore.worker import lines, parse_request

    with path.open("rb") as file:
        for line in lines(file.read):
            with one_sentence():
                parse_request(line)


READERS: dict[str, Callable[[Path], None]] = {
    "ct": read_ct,
    "series": read_ct,
    "labels": read_labels,
    "table": read_table,
    "card": read_card,
    "model": read_model,
    "dataset": read_dataset,
    "splits": read_splits,
    "plan": read_plan,
    "checkpoint": read_checkpoint,
    "weights": read_weights,
    "training": read_training,
    "request": read_request,
}


_ALLOCATION = re.compile(r"bad_alloc|(?<!Bits)[Aa]llocat(?!or)")  # not BitsAllocated nor std::allocator


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    from CTStyleGenCore.errors import InputError

    try:
        yield
    except InputError as error:
        message = str(error)
        assert message.isprintable() and 10 < len(message) < 3000 and message.endswith((".", "?")), message
        cause: BaseException | None = error
        while cause := cause and (cause.__cause__ or cause.__context__):
            assert not isinstance(cause, MemoryError) and not _ALLOCATION.search(str(cause)), (
                f"needs too much memory: {cause}"
            )


def _watched() -> None:
    """The child: [reader, path] a line comes on stdin, a line with what came of it goes out."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, path = json.loads(line)
        answer = "refused"
        try:
            with one_sentence():
                READERS[name](Path(path)) if path else limit_memory()
                answer = "taken"
        except BaseException:
            answer = traceback.format_exc()
        out.write(json.dumps(answer) + "\n")
        out.flush()


def limit_memory() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    idle = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (idle + BOUND_BYTES, idle + BOUND_BYTES))


class Watched:
    """The readers in a child process.

    >>> with Watched({"table": [whole]}) as readers:
    ...     readers.read("table", path)  # AssertionError, with what happened, unless the file is taken or refused
    """

    def __init__(self, wholes: Mapping[str, Sequence[Path]]) -> None:
        """``wholes``: files that the readers must take, by reader. They load all libraries; then memory is limited."""
        self._wholes = wholes
        self._start()

    def _start(self) -> None:
        paths = (Path(__file__).parents[2], Path(__file__).parents[1] / "Python")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        command, pipe = [sys.executable, __file__], subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        for name, paths in self._wholes.items():
            for path in paths:
                assert self._ask(name, told_path(name, path), _START_SECONDS) == "taken", f"{path} is refused"
        self._ask("limit", None, _SECONDS)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        self._child.communicate()

    def read(self, name: str, path: Path) -> str:
        """ "taken" or "refused"; AssertionError for all else."""
        try:
            return self._ask(name, told_path(name, path), _SECONDS)
        except EOFError as error:
            self._start()  # for the next file
            raise AssertionError(f"the reader {name} {error}") from error

    def _ask(self, name: str, path: Path | None, seconds: float) -> str:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(json.dumps([name, path and str(path)]).encode() + b"\n")
        self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], seconds)
        line = self._child.stdout.readline() if ready else b""
        if not line:
            self._child.kill()
            code = self._child.wait()
            raise EOFError(f"crashed with {code}" if ready else "hangs")
        answer = json.loads(line)
        assert answer in ("taken", "refused"), answer
        return answer


# --- files to break, one or more for each reader ----------------------------------------------------------------------


def _volume(path: Path, values: np.ndarray, told: dict[str, str] | None = None) -> Path:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.9, 2.5))
    for key, value in (told or {}).items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=path.suffix != ".nii")
    return path


def _hu() -> np.ndarray:
    values = np.random.default_rng(0).integers(-1000, 1500, (4, 7, 6)).astype(np.int16)
    values[0, 0], values[1, 1] = -3024, 30_000  # padding, metal
    return values


_SEGMENTS = {
    "Segmentation_MasterRepresentation": "Binary labelmap",
    **{
        f"Segment{n}_{key}": value
        for n in (0, 1)
        for key, value in {
            "ID": f"Segment_{n}",
            "Name": ("lungs", "heart")[n],
            "LabelValue": str(n + 1),
            "Layer": "0",
            "Tags": "TerminologyEntry:x~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~^^~~^^~^^|",
        }.items()
    },
}


def _dicom(path: Path, k: int = 0) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    one = Dataset()
    told = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=[f"hostile {k}"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["hostile"]),
        "Modality": "CT",
        "SliceThickness": "2.5",
        "ImagePositionPatient": ["1", "2", f"{2.5 * k}"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["0.5", "0.75"],
        "Rows": 7,
        "Columns": 6,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": (_hu()[k] + 1024).tobytes(),
    }
    for keyword, value in told.items():
        setattr(one, keyword, value)
    one["PixelData"].VR = "OW"
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.save_as(path, enforce_file_format=True)
    return path


def _card() -> dict[str, Any]:
    from CTStyleGenCore.anatomy import load_anatomy
    from CTStyleGenCore.presets import PRESETS
    from CTStyleGenCore.style_codes import CODE_SIZE

    code = [float(hu) for hu in range(CODE_SIZE)]
    return {
        "preset": PRESETS["styles"].card() | {"noise_size": _NOISE},
        "anatomy": load_anatomy("thorax").to_json(),
        "styles": ["A", "B"],
        "style_codes": {"A": {"body": code, "lungs": code}, "B": {"lungs": code}},
        "cases": ["A", "B", "C"],
        "size": _WEIGHTS_SIZE,
        "hu_range": [-1000.0, 1000.0],
        "features": {"kind": "random"},
        "losses": {"weights": {"gan": 1.0}, "last": {"gan": 0.5}},
        "versions": {"ctstylegen": "0.1.0"},
    }


def _model(path: Path, weights: bool) -> Path:
    """A model, or one with its card alone, which is told by a thousandth of the bytes."""
    from CTStyleGenCore.anatomy import load_anatomy
    from CTStyleGenCore.model_file import write_model
    from CTStyleGenCore.networks import make_generator

    generator = make_generator("styles", _WEIGHTS_SIZE, load_anatomy("thorax"), _NOISE)
    write_model(path, generator.state_dict() if weights else {}, _card())
    return path


def _json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _lines(path: Path, told: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in told), encoding="utf-8")
    return path


def _weights(path: Path) -> Path:
    """One layer of VGG-16, which `read_weights` takes."""
    import torch
    from safetensors.torch import save_file

    state = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    if path.suffix == ".pth":
        torch.save(state, path, _use_new_zipfile_serialization=path.stem == "vgg")
    else:
        save_file(state, path, {"mean": "0,0,0", "std": "1,1,1"})
    return path


def _training(folder: Path) -> list[Path]:
    """A training's folder: what was asked for, and what its process told."""
    asked = {"model": str(folder / "m.ctstyle"), "started": "2026-01-01T12:00:00", "options": {"size": 64}}
    told: tuple[dict[str, Any], ...] = (
        {"event": "run", "time": 1.0},
        {"event": "notice", "message": "It says so."},
        {"event": "progress", "done": 1, "total": 9, "losses": {"style": 0.5}, "seconds_left": 2.0},
        {"event": "checkpoint", "step": 1},
        {"event": "error", "kind": "stopped", "message": "Stopped at step 1 of 9."},
    )
    return [_json(folder / "training.json", asked), _lines(folder / "events.jsonl", told)]


def whole_files(reader: str, folder: Path) -> list[Path]:
    """Files that the reader takes, in folders of their own where it is told a folder."""
    labels = np.arange(4 * 7 * 6, dtype=np.uint8).reshape(4, 7, 6) % 3
    if reader == "ct":
        names = ("ct ä.nrrd", "ct.nii.gz", "ct.nii", "ct.mha")
        return [*(_volume(folder / name, _hu()) for name in names), _dicom(folder / "ct.dcm")]
    if reader == "series":
        return [_dicom(folder / f"{k}.dcm", k) for k in range(3)]
    if reader == "labels":
        return [_volume(folder / "a b.seg.nrrd", labels, _SEGMENTS), _volume(folder / "labels.nii.gz", labels)]
    if reader in ("card", "model"):
        return [_model(folder / "m.ctstyle", weights=reader == "model")]
    if reader == "table":
        from CTStyleGenCore.anatomy import load_anatomy

        return [_json(folder / "table.json", load_anatomy("thorax").to_json())]
    if reader == "dataset":
        (folder / "imagesTr").mkdir()
        (folder / "imagesTr" / "A_0000.nii.gz").touch()
        return [_json(folder / "dataset.json", {"labels": {"background": 0, "lung": 1}, "file_ending": ".nii.gz"})]
    if reader == "splits":
        return [_json(folder / "splits.json", {"train": ["A"], "test": ["B", "C"], "patients": {"B": "P", "C": "P"}})]
    if reader == "plan":
        return [_json(folder / "plan.json", {"per_case": 2, "styles": [["A"]], "model": {"name": "m", "sha256": "0"}})]
    if reader == "checkpoint":
        from CTStyleGenCore.checkpoint import flat_state, write_checkpoint

        network, optimizer = _learner()
        _step(network, optimizer)
        state = flat_state({"G": network, "optimizer_G": optimizer})
        write_checkpoint(folder / "m.checkpoint", state, {"step": 3, "loss_weights": [1.0]})
        return [folder / "m.checkpoint"]
    if reader == "weights":
        return [_weights(folder / name) for name in ("vgg.safetensors", "vgg.pth", "before 1.6.pth")]
    if reader == "training":
        return _training(folder)
    requests = (
        {"id": 1, "request": "hello"},
        {"id": "b", "request": "synthesize", "model": "/m", "segmentation": "/s", "output": "/o", "slices": [2, 3]},
    )
    return [_lines(folder / "requests.jsonl", requests)]


def told_path(reader: str, file: Path) -> Path:
    """What the reader is told to read: the file, or for some the folder that it is in."""
    return file.parent if reader in ("series", "dataset", "plan", "training") else file


# --- breaking them -------------------------------------------------------------------------------------------------

_NUMBERS = ("0", "-1", "1", "3", "65536", "2147483648", "99999999999999999999", "nan", "inf", "1e400", "", "9" * 5000)
_HUGE_NAME = "\x1b[31mä\n\u2028" * 500
ODD = (None, True, -1, 0, 1 << 70, 10**400, 0.5, math.nan, math.inf, "", "\ud800", "a\nb", _HUGE_NAME, [], {}, [[]])
_EXTREMES = [
    struct.pack(order + kind, value)
    for order in "<>"
    for kind, values in {
        "h": (-1, 0, 32767, -32768),
        "i": (-1, 0, 1 << 30, (1 << 31) - 1),
        "q": (-1, 1 << 40, (1 << 62)),
        "f": (math.nan, math.inf, 0.0, 1e38, -1.0),
        "d": (math.nan, math.inf, 1e300),
    }.items()
    for value in values
]


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file after some damage, within what is compressed as well."""
    if whole[:2] == b"\x1f\x8b" and draw(st.booleans()):
        return gzip.compress(draw(_damaged(gzip.decompress(whole))), 1)
    head, zipped, packed = whole.partition(b"\n\n\x1f\x8b")  # NRRD
    if zipped and draw(st.booleans()):
        head = draw(_damaged(head))
        return head + zipped + packed
    return draw(_damaged(whole))


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(data), 600)) | st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 64)))
        kind = draw(st.sampled_from(("cut", "extreme", "bytes", "drop", "repeat", "swap", "number", "number")))
        if kind == "cut":
            data = data[:at]
        elif kind == "extreme":
            value = draw(st.sampled_from(_EXTREMES))
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "bytes":
            data = data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[end:]
        elif kind == "drop":
            data = data[:at] + data[end:]
        elif kind == "repeat":
            data = data[:at] + data[at:end] * draw(st.integers(2, 400)) + data[end:]
        elif kind == "swap":
            data = data[:at] + data[end : 2 * end - at] + data[at:end] + data[2 * end - at :]
        elif numbers := list(re.finditer(rb"\d+", data[:4096])):
            found = draw(st.sampled_from(numbers))
            data = data[: found.start()] + draw(st.sampled_from(_NUMBERS)).encode() + data[found.end() :]
    return data


@st.composite
def odd_json(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which some part is something else: of another type or size, missing, or there twice."""
    kind = draw(st.sampled_from(("here", "in", "in", "in", "in")))
    if isinstance(value, dict) and value and kind == "in":
        key = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(("drop", "rename", "in", "in", "in")))
        if how == "drop":
            return {k: v for k, v in value.items() if k != key}
        if how == "rename":
            return {
                draw(st.sampled_from(("", "1", "nan", "\ud800", _HUGE_NAME))) if k == key else k: v
                for k, v in value.items()
            }
        return {**value, key: draw(odd_json(value[key]))}
    if isinstance(value, list) and value and kind == "in":
        place = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(("drop", "repeat", "in", "in")))
        if how == "drop":
            return value[:place] + value[place + 1 :]
        if how == "repeat":
            return value[:place] + [value[place]] * draw(st.sampled_from((2, 300))) + value[place + 1 :]
        return [*value[:place], draw(odd_json(value[place])), *value[place + 1 :]]
    return draw(st.sampled_from(ODD))


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


_DEEP = b"[" * 100_000, b'{"a":' * 100_000


def broken_json(value: object) -> st.SearchStrategy[bytes]:
    """JSON that is odd, damaged, or nested deeper than any parser likes."""
    return odd_json(value).map(_text) | broken(_text(value)) | st.sampled_from(_DEEP) | st.binary(max_size=64)


@st.composite
def broken_header(draw: st.DrawFn, whole: bytes, key: str) -> bytes:
    """A safetensors file whose JSON, a text of its metadata, is odd or too deep; or whose header is."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    if draw(st.booleans()):
        text = header["__metadata__"][key]
        odd = broken_json(json.loads(text)) if text.startswith("{") else broken(text.encode())
        header["__metadata__"][key] = draw(odd).decode(errors="replace")
    else:
        header = draw(odd_json(header))
    text = _text(header)
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


_TYPES = ("int8", "uint8", "ushort", "int", "uint64", "int64", "float", "double", "block")
_SIZES = (
    "1 1 1",
    "1 4 5",
    "6 5 1",
    "0 4 5",
    "4 5",
    "9",
    "3 4 5 2",
    "2 2 2 2 2",
    "1024 1024 1024",
    "1048576 512 2",
    "3 4 1000000000000",
)
_VALUES = (b"\xff", b"\x7f", b"\x01", b"\x7f\xf8", b"\0\0\x80\x7f", b"\0\0\xc0\xff", struct.pack("<2h", -3024, 30_000))
_NUMBER = st.sampled_from(("0", "-1", "0.5", "nan", "inf", "1e-300", "1e300"))
_ODD_LINES = (
    *("data file: /dev/zero", "data file: /dev/stdin", "data file: ../x.raw", "data file: LIST\n/dev/stdin"),
    *("data file: %d.raw 1 9 1", "byte skip: -1", "line skip: 1000000000", "kinds: vector domain domain"),
    *("kinds: RGB-color domain domain", "content: \x1b[31m", "Segment007_ID:=s", f"Segment{'9' * 5000}_ID:=s"),
    *(
        "Segment0_ID:=s",
        "Segment0_ID:=s\nSegment0_Layer:=99999999999",
        "Segment0_ID:=s\nSegment0_LabelValue:=99999999999",
    ),
)


@st.composite
def odd_nrrd(draw: st.DrawFn) -> bytes:
    """NRRD files that are well-formed but strange in one or some of: type, dimensions and sizes, axes, voxels, more."""
    odd = draw(
        st.sets(st.sampled_from(("type", "sizes", "encoding", "space", "values", "line")), min_size=1, max_size=3)
    )
    kind = draw(st.sampled_from(_TYPES)) if "type" in odd else "short"
    sizes = draw(st.sampled_from(_SIZES)) if "sizes" in odd else "6 5 4"
    encoding = draw(st.sampled_from(("gzip", "gzip", "ascii", "hex", "bzip2", "none"))) if "encoding" in odd else "raw"
    count = len(sizes.split())
    told = [f"type: {kind}", f"dimension: {count}", f"sizes: {sizes}", f"encoding: {encoding}", "endian: little"]
    if "space" in odd and count >= 3:
        axes = [
            [draw(st.just("1") | _NUMBER) if a == b else draw(st.just("0") | _NUMBER) for b in range(3)]
            for a in range(3)
        ]
        directions = [*["none"] * (count - 3), *(f"({','.join(axis)})" for axis in axes)]
        told += ["space: left-posterior-superior", f"space directions: {' '.join(directions)}"]
        told.append(f"space origin: ({','.join(draw(st.just('1') | _NUMBER) for _ in range(3))})")
    if "line" in odd:
        told.append(draw(st.sampled_from(_ODD_LINES)))
    width = {"uint64": 8, "int64": 8, "double": 8, "float": 4, "int": 4, "short": 2, "ushort": 2}.get(kind, 1)
    value = draw(st.sampled_from(_VALUES)) if "values" in odd else b"\1\0"
    voxels = (value * 4096)[: min(width * math.prod(map(int, sizes.split())), 4096)]
    if encoding == "gzip":
        voxels = gzip.compress(voxels * draw(st.sampled_from((1, 1000))), 1)
    return ("NRRD0004\n" + "\n".join(told) + "\n\n").encode() + voxels


_DICOM_VALUES = (
    b"",
    b"x ",
    b"2\\5 ",
    b"nan ",
    b"-1",
    b"0 ",
    b"1e400 ",
    b"9" * 5000,
    b"\xff\xff",
    bytes(4),
    b"\xff" * 8,
)


@st.composite
def odd_dicom(draw: st.DrawFn, whole: bytes) -> bytes:
    """A DICOM file (explicit VR, little endian) with elements that have another value, VR or length, or are gone."""
    data, at, number = whole[:144], 144, 0  # of the preamble, the mark, and the length of the group that follows
    odd = draw(st.sets(st.integers(0, 24), min_size=1, max_size=3))
    while at < len(whole):
        head, form = (12, "<I") if whole[at + 4 : at + 6] in (b"OB", b"OW") else (8, "<H")
        named = whole[at : at + head - struct.calcsize(form)]
        (length,) = struct.unpack_from(form, whole, at + len(named))
        value = whole[at + head :][:length]
        at, number = at + head + length, number + 1
        how = draw(st.sampled_from(("value", "value", "value", "vr", "length", "gone"))) if number - 1 in odd else ""
        if how == "value":
            value = draw(st.sampled_from(_DICOM_VALUES))
        elif how == "vr":
            named = named[:4] + draw(st.sampled_from((b"UN", b"SQ", b"DS", b"US"))) + named[6:]
        elif how == "gone":
            continue
        told = draw(st.sampled_from((0, 1, 0xFFFF))) if how == "length" else len(value)
        data += named + struct.pack(form, told) + value
    return data


@st.composite
def odd_archive(draw: st.DrawFn, whole: bytes) -> bytes:
    """A .pth archive that packs its entries, has others, or says other lengths than it has."""
    how = draw(st.sampled_from(("keep", "pack", "number", "swap")))
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(made, "w") as odd:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        chosen = draw(st.sampled_from(sorted(entries)))
        for name, data in entries.items():
            if how == "number" and name.endswith(".pkl"):
                data = draw(_odd_pickle(data))
            if how == "swap" and name == chosen:
                data = draw(st.binary(max_size=64))
            odd.writestr(name, data, zipfile.ZIP_DEFLATED if how == "pack" else zipfile.ZIP_STORED, 1)
    data = made.getvalue()
    for _ in range(draw(st.integers(0, 2))):  # lengths are in the directory at the end, and before each entry
        at = draw(st.sampled_from([m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04", data)]))
        place = at + (20 if data[at + 2] == 1 else 18) + draw(st.sampled_from((0, 4)))
        data = data[:place] + draw(st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\0\0\0\x40"))) + data[place + 4 :]
    return data


@st.composite
def _odd_pickle(draw: st.DrawFn, whole: bytes) -> bytes:
    """A pickle some of whose numbers are others: lengths of tensors and of what they lie in."""
    found = [m.start() for m in re.finditer(rb"[KM]", whole)]  # BININT1, BININT2
    for at in draw(st.lists(st.sampled_from(found), min_size=1, max_size=4, unique=True)):
        number = draw(st.sampled_from((-1, 0, 1, 1000, 1 << 30, (1 << 31) - 1)))
        width = 2 if whole[at : at + 1] == b"K" else 3
        whole = whole[:at] + b"J" + struct.pack("<i", number) + whole[at + width :]
        found = [place for place in found if place < at]
        if not found:
            break
    return whole


def hostile(reader: str, whole: Path) -> st.SearchStrategy[bytes]:
    """What may stand in the place of a whole file of the reader."""
    data = whole.read_bytes()
    if key := {".ctstyle": "card", ".checkpoint": "run", ".safetensors": "mean"}.get(whole.suffix):
        return broken(data) | broken_header(data, key)
    if whole.suffix == ".json":
        return broken_json(json.loads(data))
    if whole.suffix == ".jsonl":
        requests = st.sampled_from([json.loads(line) for line in data.splitlines()])
        odd = st.lists(requests.flatmap(broken_json), max_size=3)
        endless = st.just(data + b'{"event": "' + b"x" * (3 << 20))
        return odd.map(lambda told: b"\n".join([*told, b""])) | broken(data) | endless
    if whole.suffix == ".pth":
        return broken(data) | (odd_archive(data) if data.startswith(b"PK") else _odd_pickle(data))
    if whole.suffix == ".dcm":
        return broken(data) | odd_dicom(data)
    return broken(data) | odd_nrrd() if whole.suffix == ".nrrd" else broken(data)


def check(readers: Watched, name: str, wholes: Sequence[Path], inputs: int, part: int = 0) -> Counter[str]:
    """Gives the reader so many hostile files, each in a whole one's place; returns how many were taken and refused.

    AssertionError: with the smallest fault.
    """
    answers: Counter[str] = Counter()
    strategies = {whole: hostile(name, whole) for whole in wholes}

    @seed(part)
    @settings(max_examples=inputs, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(wholes).flatmap(lambda whole: st.tuples(st.just(whole), strategies[whole])))
    def holds(case: tuple[Path, bytes]) -> None:
        whole, data = case
        file = folder / whole.name
        file.write_bytes(data)
        try:
            answers[readers.read(name, file)] += 1
        finally:
            shutil.copyfile(whole, file)

    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        folder = Path(made) / "where ü they are"
        shutil.copytree(wholes[0].parent, folder)
        holds()
    return answers


if __name__ == "__main__":
    _watched()
