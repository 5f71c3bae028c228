"""Files that say more than they hold, or something else than they should: one line, at once, and no memory is taken."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from synthetic import GRID, make_trace

import prophy
from prophy import phenomena
from prophy.annotation.config import read_config
from prophy.assets import default_model
from prophy.catalogue.describe import describe_model
from prophy.catalogue.limits import ClipSize
from prophy.data.cache import TensorCache
from prophy.data.folder import read_folder
from prophy.data.present import read_list
from prophy.files import read_regular
from prophy.grid import TokenGrid
from prophy.memory.plan import plan
from prophy.routing.targets import TokenTargets
from prophy.routing.trace import RoutingTrace
from prophy.schema import parsed, read_json, read_object
from prophy.training.checkpoints import load_checkpoint, saved_in

MODEL = default_model()
SECONDS, GIB = 5.0, 2**30


@pytest.fixture(autouse=True)
def bounded():
    """Five seconds, and no gibibyte."""
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - begin < 4 * SECONDS, "machines are busy at times"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GIB


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


# --- arrays -----------------------------------------------------------------------------------------------------------


def declared(path: Path, shape: tuple[int, ...], name: str = "values") -> Path:
    """Targets whose array of zeros is as large as it says, and a thousandth of that on disk."""
    about = {"grid": [1, 1, shape[0]], "source": "x", "phenomena_version": phenomena.VERSION}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in (("about", np.array(json.dumps(about))), ("labelled", np.zeros(17, bool))):
            with archive.open(f"{member}.npy", "w") as file:
                np.lib.format.write_array(file, array)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            left = 4 * int(np.prod(shape))
            while left > 0:
                file.write(bytes(min(left, 2**22)))
                left -= 2**22
    return path


def test_targets_that_declare_a_gibibyte_are_refused_before_it_is_taken(tmp_path: Path):
    path = declared(tmp_path / "targets.npz", (2**24, 17))
    assert path.stat().st_size < 4 * 2**20
    with pytest.raises(ValueError, match="declares more than 128 MiB") as refused:
        TokenTargets.load(path)
    one_line(refused)


@pytest.mark.parametrize("load", [TokenTargets.load, RoutingTrace.load])
def test_an_array_that_declares_more_than_the_file_holds_is_refused(tmp_path: Path, load):
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("values.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 17)})
        file.write(b"\0" * 100)
    with pytest.raises(ValueError, match="is not of the size that it declares") as refused:
        load(path)
    one_line(refused)


def test_what_is_saved_is_still_read(tmp_path: Path):
    trace, grid = make_trace(), TokenGrid(2, 3, 4)
    trace.save(tmp_path / "trace.npz")
    assert np.array_equal(RoutingTrace.load(tmp_path / "trace.npz").topk_ids, trace.topk_ids)
    targets = TokenTargets(np.ones((24, 17), np.float32), np.ones(17, bool), grid, "worlds")
    targets.save(tmp_path / "targets.npz")
    assert np.array_equal(TokenTargets.load(tmp_path / "targets.npz").values, targets.values)
    assert GRID.num_tokens == trace.grid.num_tokens


def test_many_threads_read_arrays_at_once(tmp_path: Path):
    """Numpy parses a header as Python source, which Python 3.11 cannot do in several threads at once."""
    make_trace().save(tmp_path / "trace.npz")
    failed = []

    def read() -> None:
        try:
            for _ in range(30):
                RoutingTrace.load(tmp_path / "trace.npz")
        except ValueError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_that_names_one_video_twenty_thousand_times_stays_small(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    rows = "".join(f"a.mp4,caption {i}\n" for i in range(20_000))
    (tmp_path / "captions.csv").write_text(f"file,caption\n{rows}")
    reading = read_folder(tmp_path)
    assert len(reading.faults) == 20_000
    assert sum(len(fault.detail) for fault in reading.faults) < 20_000 * 200


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The embedded model's small files."""
    for path in MODEL.rglob("*.json"):
        copy = tmp_path / "model" / path.relative_to(MODEL)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path / "model"


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("transformer", {"rope_max_seq_len": 10**9}, "rope_max_seq_len=1000000000 must be at most 65536"),
        ("transformer", {"attention_head_dim": 10**9}, "attention_head_dim=1000000000 must be at most"),
        ("transformer", {"attention_head_dim": 4096, "num_attention_heads": 512}, "is more than 65536"),
        ("transformer", {"num_layers": 10**12}, "num_layers=1000000000000 must be at most 512"),
        ("transformer", {"num_layers": "8"}, "num_layers='8' must be a valid integer"),
        ("transformer", {"patch_size": []}, "patch_size"),
        ("transformer", {"patch_size": [1, 1]}, "patch_size"),
        ("transformer", {"num_attention_heads": 0}, "num_attention_heads=0 must be at least 1"),
        ("transformer", {"new_field": [[[[[[[[[[1]]]]]]]]]]}, "new_field is nested too deeply"),
        ("transformer", {"new_field": 10**40}, "out of all measure"),
        ("vae", {"num_res_blocks": 10**12}, "num_res_blocks=1000000000000 must be at most 64"),
        ("vae", {"dim_mult": []}, "dim_mult"),
        ("vae", {"z_dim": None, "scale_factor_spatial": "8"}, "scale_factor_spatial='8'"),
        ("text_encoder", {"vocab_size": 10**12}, "vocab_size=1000000000000 must be at most"),
        ("branch", {"top_k": 1.5}, "top_k=1.5 must be a valid integer"),
        ("branch", {"top_k": None}, "top_k=None"),
        ("branch", {"sites": []}, "sites"),
        ("branch", {"sites": "147"}, "sites='147'"),
        ("branch", {"backbone": []}, "backbone=\\[\\]"),
        ("branch", {"backbone": {"num_layers": 10**9}}, "num_layers=1000000000"),
        ("branch", {"reference_grid": [5, 8]}, "reference_grid"),
        ("branch", {"map_hidden": 10**9}, "map_hidden=1000000000"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_line_with_its_file_and_field(model: Path, part, fields, message: str):
    change(model / part / "config.json", **fields)
    with pytest.raises(ValueError, match=message) as refused:
        describe_model(model)
    assert f"{part}/config.json is damaged" in one_line(refused)


def test_a_configuration_that_no_class_can_be_built_from_is_one_line(model: Path):
    """What no check knows beforehand: the classes' own complaints, where a plan builds or computes them."""
    for part, changes in (
        ("text_encoder", {"feed_forward_proj": []}),
        ("text_encoder", {"is_encoder_decoder": 0}),
        ("transformer", {"eps": "small"}),
        ("vae", {"temperal_downsample": []}),
    ):
        kept = (model / part / "config.json").read_text()
        change(model / part / "config.json", **changes)
        with pytest.raises(ValueError, match=r"config\.json says|configurations say") as caught:
            plan(model, ClipSize(64, 64, 17), branch=False)
        assert "\n" not in str(caught.value), changes
        (model / part / "config.json").write_text(kept)


WRONG = [[], [1], "text", 3, None, True, {}, {"_class_name": 3}]


@pytest.mark.parametrize("content", [json.dumps(value) for value in WRONG] + ["[" * 100_000, "{", "", "\udcff", "NaN"])
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json", "branch/config.json"])
def test_small_files_of_any_other_content_are_one_line(model: Path, name: str, content: str):
    (model / name).write_bytes(content.encode(errors="surrogateescape"))
    try:
        describe_model(model)
    except ValueError as error:
        said = str(error)
    else:
        said = "it is read: what a configuration leaves out is its class's default"
        assert content == "{}" or "_class_name" in content
        assert name == "transformer/config.json"
    assert "\n" not in said


@pytest.mark.parametrize("entry", [[], ["diffusers"], "diffusers", 3, None, {"a": 1}, [1, 2], ["diffusers", ["x"]]])
def test_a_part_that_is_named_otherwise_is_refused(model: Path, entry: object):
    change(model / "model_index.json", transformer=entry)
    with pytest.raises(ValueError, match="has no transformer of a stock class") as refused:
        describe_model(model)
    one_line(refused)


def test_the_embedded_model_and_its_branch_pass(model: Path):
    assert describe_model(model).branch["top_k"] == 2


def test_the_command_line_says_one_line(model: Path):
    change(model / "branch" / "config.json", top_k=1.5)
    asked = [sys.executable, "-m", "prophy", "plan", "--model", str(MODEL), "--branch", str(model / "branch")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "top_k=1.5 must be a valid integer" in done.stderr
    assert "Traceback" not in done.stderr


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_without_end_is_one_line():
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed("[" * 100_000)
    with pytest.raises(ValueError, match="Expecting value"):
        parsed("")


def test_an_object_is_asked_for(tmp_path: Path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a.json is damaged \(it holds a list, not an object\): make it again"):
        read_object(tmp_path / "a.json", "make it again")
    with pytest.raises(ValueError, match="larger than 0 MiB"):
        read_json(tmp_path / "a.json", 2)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


# --- what is no file --------------------------------------------------------------------------------------------------


def no_file(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(path.parent)  # an address has at most a hundred bytes
            try:
                listening.bind(path.name)
            finally:
                os.chdir(here)


READERS = {
    "annotation.json": lambda folder: read_config(folder / "annotation.json"),
    "model/model_index.json": lambda folder: describe_model(folder / "model"),
    "targets.npz": lambda folder: TokenTargets.load(folder / "targets.npz"),
    "trace.npz": lambda folder: RoutingTrace.load(folder / "trace.npz"),
    "list.json": lambda folder: read_list(folder / "list.json"),
    "checkpoint/state.json": lambda folder: load_checkpoint(folder / "checkpoint"),
    "saved/state.json": lambda folder: saved_in(folder / "saved"),
    "table/captions.csv": lambda folder: read_folder(folder / "table" / "captions.csv"),
    "entries/cache.json": lambda folder: TensorCache(folder / "entries"),
    "plain": lambda folder: read_regular(folder / "plain", 2**20),
}


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str, kind: str):
    no_file(tmp_path / name, kind)
    with pytest.raises((ValueError, OSError)) as refused:
        READERS[name](tmp_path)
    one_line(refused)


@pytest.mark.parametrize("name", [True, [], {}, 3])
def test_a_pipeline_that_names_no_class_is_refused_in_one_line(name: object, tmp_path: Path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ValueError, match="names no class in model_index.json .*: copy that file again"):
        prophy.load(tmp_path)
