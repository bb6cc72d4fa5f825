"""How fast, beside what the equations need and what others take: python -m benchmarks.speed [--sizes 128 256 512]

Prints a Markdown table, a column a size. Ratios are of times measured in this one run, interleaved; medians. Sizes of
256 and more also take some GB of memory for the textbook step. MONAI's rows need the package (pip install '.[bench]').
"""

import argparse
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch
from CTStyleGenCore import __version__
from CTStyleGenCore.devices import Computing, choose_precision
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import Preset, load_preset
from CTStyleGenCore.style_trainer import StyleTrainer
from CTStyleGenCore.synthesis import Model, synthesize_volume
from CTStyleGenCore.trainer import Trainer
from CTStyleGenCore.training_data import TrainingData
from torch.utils.flop_counter import FlopCounterMode

from .peers import peers
from .phantoms import anatomy_of, data_of, labels_of
from .textbook import Textbook

_REPEATS = {128: 5, 256: 4, 512: 2}
_CONTENTS = 4
_MORE_SLICES = 16
_VOLUME_SLICES = 128
PRESET, STYLES = load_preset("paper"), load_preset("styles")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory-of", nargs=4, metavar=("PRESET", "SIZE", "ORGANS", "SLICES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    computing = Computing(options.device, choose_precision(options.precision, options.device))
    if options.memory_of:
        preset, (size, organs, slices) = load_preset(options.memory_of[0]), map(int, options.memory_of[1:])
        print(json.dumps({"peak_bytes": peak_memory(preset, size, organs, slices, computing)}))
        return
    columns = {}
    for size in options.sizes:
        columns[size] = at_size(size, computing)
        print(f"{size}: {json.dumps(columns[size])}", file=sys.stderr, flush=True)
    print_table(columns, computing)
    for line in growth_at(options.sizes[0], computing):
        print(f"\n{line}")


# --- timing ---------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    """Time of one call; a GPU is waited for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median times of works done in turn, so that what else the machine does meets them all; after one for nothing."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: statistics.median(measured) for name, measured in times.items()}


def trainer_of(
    size: int, computing: Computing, organs: int = 6, contents: int = _CONTENTS, preset: Preset = PRESET
) -> Trainer:
    """A trainer that has seen each slice once, so that a step is one as they all are but for the first."""
    data = data_of(size, organs, contents)
    if preset.style_bank:
        data = TrainingData(data.contents, data.contents)
    kind = StyleTrainer if preset.style_bank else Trainer
    trainer = kind(preset, anatomy_of(organs), random_weights(), data, size, 0, computing)
    for _ in range(contents + contents % 2):
        trainer.train_step()
    return trainer


def two_steps(trainer: Trainer) -> None:
    """Two, as the discriminator learns in one of two."""
    trainer.train_step()
    trainer.train_step()


def passes(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """The bare passes that a step's equations need, in the trainer's own precision."""
    one = trainer.data.contents[0]
    x, y = (t.to(trainer.device) for t in (one.x, one.y))
    z = trainer.data.draw(0, 0, PRESET.noise_size).z.to(trainer.device)
    image, learning = x.clone().requires_grad_(), list(trainer.D.parameters())

    def generate() -> None:
        trainer.G.zero_grad(set_to_none=True)
        made = trainer._generate(y, z)
        made.backward(torch.ones_like(made))

    def judge_and_learn() -> None:
        (trainer._judge(x, y) + trainer._judge(x, y)).sum().backward(inputs=learning)
        trainer.D.zero_grad(set_to_none=True)

    def judge() -> None:
        image.grad = None
        trainer._judge(image, y).sum().backward(inputs=[image])

    def see() -> None:
        image.grad = None
        maps = list(trainer._see(image).values())
        torch.autograd.backward(maps, [torch.ones_like(m) for m in maps], inputs=[image])

    return {"G": generate, "D learns": judge_and_learn, "D judges": judge, "VGG": see}


def multiplications(computing: Computing) -> float:
    """Measured peak of matrix multiplication in the passes' precision, in FLOP/s."""
    side = 8192 if computing.device.startswith("cuda") else 2048
    a = torch.randn(side, side, device=computing.device, dtype=getattr(torch, computing.precision))
    return 2 * side**3 / min(seconds(lambda: a @ a) for _ in range(5))


# --- a column -------------------------------------------------------------------------------------------------------


def at_size(size: int, computing: Computing) -> dict[str, float]:
    """All of a size's figures by name: seconds, but for those named otherwise."""
    trainer, styles = trainer_of(size, computing), trainer_of(size, computing, preset=STYLES)
    textbook = Textbook(PRESET, 6, random_weights(), trainer.data, size, computing.device)
    with FlopCounterMode(display=False) as counted:
        two_steps(trainer)
    repeats = _REPEATS.get(size, 3)
    both = {"two steps": partial(two_steps, trainer), "two of styles": partial(two_steps, styles)}
    times = interleaved(both | passes(trainer), repeats)
    result = {"step": times["two steps"] / 2, "styles step": times["two of styles"] / 2}
    result["floor"] = times["G"] + times["VGG"] + times["D judges"] + times["D learns"] / 2
    result["textbook"] = sum(seconds(textbook.train_step) for _ in range(2)) / 2
    del textbook
    result["FLOP"] = counted.get_total_flops() / 2
    result["peak FLOP/s"] = multiplications(computing)
    result["peak_bytes"] = memory_of_a_process(PRESET, size, computing)
    result["styles peak_bytes"] = memory_of_a_process(STYLES, size, computing)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.ctstyle" for name in ("paper", "styles")}
        for path, one in zip(paths.values(), (trainer, styles), strict=True):
            write_untrained(path, one, size)
        models = {name: Model(path, computing.device) for name, path in paths.items()}
        result |= synthesis_at(size, models["paper"])
        labels = volume_of(size, 1)
        works = {name: partial(synthesize_volume, model, labels, 0) for name, model in models.items()}
        result |= {f"a slice of {name}": taken for name, taken in interleaved(works, repeats).items()}
        for name, path in paths.items():
            result[f"edited slice, {name}"] = edited_slice(path, size, computing, Path(folder))
    y, z = trainer.data.contents[0].y.to(trainer.device), torch.randn(1, PRESET.noise_size, device=trainer.device)
    return result | peers(size, trainer, y, z, lambda works: interleaved(works, min(repeats, 3)))


def write_untrained(path: Path, trainer: Trainer, size: int) -> None:
    styles = [trainer.data.styles[0].case_id]
    card: dict[str, Any] = {"preset": trainer.preset.card(), "anatomy": trainer.anatomy.to_json(), "styles": styles}
    card |= {"cases": [], **trainer.card(styles)}
    card |= {"size": size, "hu_range": [-1000, 1000], "features": {}, "losses": {}, "versions": {}}
    write_model(path, trainer.G.state_dict(), card)


def volume_of(size: int, slices: int) -> sitk.Image:
    labels = labels_of(size, 6, 1).byte().numpy()
    return sitk.JoinSeries([sitk.GetImageFromArray(labels)] * slices)


def synthesis_at(size: int, model: Model) -> dict[str, float]:
    synthesize_volume(model, volume_of(size, 1), 0)
    count = _VOLUME_SLICES if size == 512 else 16
    time_taken = seconds(lambda: synthesize_volume(model, volume_of(size, count), 0))
    volume = {"volume of 128": time_taken} if count == _VOLUME_SLICES else {}
    return volume | {"slices/s": count / time_taken}


def edited_slice(model: Path, size: int, computing: Computing, folder: Path) -> float:
    """From the request on the warm worker's stdin to its answer that the file of one slice is there."""
    labels = folder / "labels.nrrd"
    sitk.WriteImage(volume_of(size, 1), str(labels), useCompression=True)
    command = [sys.executable, "-m", "CTStyleGenCore", "serve", "--device", computing.device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None and worker.stdout is not None

        def ask(number: int, request: str, **fields: str) -> None:
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write(json.dumps({"id": number, "request": request} | fields) + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    raise RuntimeError(event["message"])
                if event["event"] in ("loaded", "done", "stopped"):
                    return

        ask(1, "load", model=str(model))
        slice_of_labels = {"model": str(model), "segmentation": str(labels), "output": str(folder / "ct.nrrd")}
        times = [seconds(partial(ask, number, "synthesize", **slice_of_labels)) for number in range(2, 8)]
        ask(8, "stop")
    return statistics.median(times)


# --- memory and growth ----------------------------------------------------------------------------------------------


def peak_memory(preset: Preset, size: int, organs: int, slices: int, computing: Computing) -> int:
    """Bytes that training at a size has taken at most: of the GPU's memory, or of this process's."""
    trainer = trainer_of(size, computing, organs, slices, preset)
    trainer.train_step()
    if computing.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: ru_maxrss would begin with what the parent process once took
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def memory_of_a_process(
    preset: Preset, size: int, computing: Computing, organs: int = 6, contents: int = _CONTENTS
) -> int:
    what = map(str, (preset.name, size, organs, contents))
    command = [sys.executable, "-m", "benchmarks.speed", "--memory-of", *what, "--device", computing.device]
    ran = subprocess.run([*command, "--precision", computing.precision], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)["peak_bytes"]


def growth_at(size: int, computing: Computing) -> list[str]:
    """Lines on how a step's time and the memory grow with organs, and with slices to learn from."""
    asked = {f"{organs} organs": (organs, _CONTENTS) for organs in (6, 2, 12, 24)}
    asked[f"6 organs and {_MORE_SLICES} slices"] = 6, _MORE_SLICES
    trainers = {name: trainer_of(size, computing, *numbers) for name, numbers in asked.items()}
    times = interleaved({name: partial(two_steps, trainer) for name, trainer in trainers.items()}, 3)
    memory = {name: memory_of_a_process(PRESET, size, computing, *numbers) for name, numbers in asked.items()}
    kept = [content.features.values() for content in trainers["6 organs"]._measured.values()]
    each = sum(features.nbytes for one in kept for features in one) / len(kept)
    return [
        *(
            f"A step at {size} with {name}: {taken / times['6 organs']:.2f} x the time, "
            f"{memory[name] / memory['6 organs']:.2f} x the memory."
            for name, taken in times.items()
        ),
        f"Kept of each content slice at {size}: {each / 1e6:.1f} MB, of at most 1.07 GB; the rest is measured anew.",
    ]


# --- the table ------------------------------------------------------------------------------------------------------


def print_table(columns: dict[int, dict[str, float]], computing: Computing) -> None:
    rows: list[tuple[str, Callable[[dict[str, float]], str]]] = [
        ("a training step", lambda c: f"{c['step']:.3g} s"),
        ("to the floor (bare passes of G, D, VGG)", lambda c: f"{c['step'] / c['floor']:.2f} x"),
        ("textbook step to ours", lambda c: f"{c['textbook'] / c['step']:.1f} x"),
        ("share of the matrix-multiply peak", lambda c: f"{c['FLOP'] / c['step'] / c['peak FLOP/s']:.0%}"),
        ("peak memory in training", lambda c: f"{c['peak_bytes'] / 1e9:.2f} GB"),
        ("synthesis", lambda c: f"{c['slices/s']:.3g} slices/s"),
        ("a volume of 512 x 512 x 128", lambda c: f"{c['volume of 128']:.3g} s"),
        ("one edited slice, warm worker", lambda c: f"{c['edited slice, paper']:.3g} s"),
        ("2,000 steps", lambda c: f"{c['step'] * 2000 / 60:.3g} min"),
        ("preset styles: a training step", lambda c: f"{c['styles step']:.3g} s"),
        ("styles' step to paper's", lambda c: f"{c['styles step'] / c['step']:.2f} x"),
        ("styles: peak memory in training", lambda c: f"{c['styles peak_bytes'] / 1e9:.2f} GB"),
        (
            "styles' slice to the one above, synthesis",
            lambda c: f"{c['a slice of styles'] / c['a slice of paper']:.2f} x",
        ),
        ("styles: one edited slice, warm worker", lambda c: f"{c['edited slice, styles']:.3g} s"),
        ("MONAI SPADE generator to ours, forward", lambda c: f"{c['SPADE forward'] / c['G forward']:.2f} x"),
        ("MONAI SPADE generator to ours, forward + backward", lambda c: f"{c['SPADE both'] / c['G both']:.2f} x"),
        ("pix2pix-sized U-Net to ours, forward", lambda c: f"{c['U-Net forward'] / c['G forward']:.2f} x"),
        ("pix2pix-sized U-Net to ours, forward + backward", lambda c: f"{c['U-Net both'] / c['G both']:.2f} x"),
    ]
    on_gpu = computing.device.startswith("cuda")
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    peak = next(iter(columns.values()))["peak FLOP/s"] / 1e9
    print(
        f"CTStyleGen {__version__}, PyTorch {torch.__version__}, preset {PRESET.name}, {where}, {computing.precision},"
    )
    print(f"whose matrix multiplication peaks at {peak:.0f} GFLOP/s.\n")
    print(f"| at | {' | '.join(map(str, columns))} |\n|{' --- |' * (len(columns) + 1)}")
    for name, value in rows:
        cells = []
        for column in columns.values():
            try:
                cells.append(value(column))
            except KeyError:  # not measured at this size, or no such package
                cells.append("-")
        print(f"| {name} | {' | '.join(cells)} |")
    for a, b in pairwise(columns):
        slower, larger = (columns[b][key] / columns[a][key] for key in ("step", "peak_bytes"))
        print(
            f"\nFrom {a} to {b}, {(b / a) ** 2:.0f} x the pixels: {slower:.1f} x the time, {larger:.1f} x the memory."
        )


if __name__ == "__main__":
    main()
