"""The plan: peaks from shapes alone come close to real memory, profiles order as they should, errors name the cure."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn

from prophy.backbones.pipeline import published_like_pipeline
from prophy.branch import ProPhyBranch
from prophy.branch.family import default_sites
from prophy.catalogue.limits import ClipSize
from prophy.catalogue.published import PUBLISHED, published_like
from prophy.cli import main
from prophy.generation.pipelines import fastest_profile, load
from prophy.memory.footprint import footprint
from prophy.memory.offload import profile_of
from prophy.memory.plan import GIB, RESERVE, plan, plan_parts
from prophy.memory.plan_text import describe
from prophy.memory.profiles import PROFILES, OffloadMode, Profile, Stage
from prophy.memory.stages import open_parts, parts_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

SMALL = ClipSize(64, 48, 9)


# --- footprint --------------------------------------------------------------------------------------------------------


def test_a_footprint_counts_what_is_alive_at_once_and_nothing_else():
    def compute() -> None:
        x = torch.empty(1000, dtype=torch.uint8, device="meta")
        y = x + 1
        del x
        z = y.view(10, 100)  # no memory of its own
        z += 1
        del y
        torch.cat([z, z])

    assert footprint(compute).peak == 3000


def test_operations_are_counted_for_products_convolutions_and_attention():
    linear = nn.Linear(32, 64, bias=False, device="meta")
    assert footprint(lambda: linear(torch.empty(10, 32, device="meta"))).flops == 2 * 10 * 32 * 64
    q = torch.empty(1, 2, 100, 16, device="meta")
    attention = footprint(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert attention.flops == 4 * 2 * 100 * 100 * 16
    assert attention.peak < 2 * q.nbytes, "the matrix of all pairs was made"


def test_a_repeated_module_needs_as_much_replayed_as_run():
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)

    def decode() -> None:
        vae.decode(torch.empty(1, 4, 5, 40, 12, device="meta"))

    for vae.use_tiling in (False, True):
        assert footprint(decode, repeated=[vae.decoder]) == footprint(decode)


def test_a_computation_elsewhere_is_refused():
    with pytest.raises(ValueError, match="no tensor on the meta device"):
        footprint(lambda: torch.ones(3) + 1)
    with pytest.raises(ValueError, match="device 'tpu' is not known here: use cuda or cpu"):
        footprint(lambda: None, device="tpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the resident size of a process on Linux")
def test_peaks_are_within_a_tenth_of_what_a_process_takes():
    import plan as benchmark

    cases = ["wan branch, bfloat16", "cogvideox denoising, float32", "wan decoding in tiles, float32"]
    for name, row in benchmark.run(cases).items():
        print(f"{name}: predicted {row['predicted'] / 1e6:.0f} MB, measured {row['measured'] / 1e6:.0f} MB")
        assert row["activations"] > 0.3 * row["weights"], "too small a part to judge by"
        assert abs(benchmark.error(row)) < 0.1, name


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    from prophy.assets import default_model

    return plan(default_model(), SMALL, vram=8 * GIB)


def test_a_folder_is_planned_from_its_configurations(embedded):
    sizes = {part.name: part.parameters for part in embedded.parts}
    assert sizes.keys() == {"text encoder", "transformer", "branch", "autoencoder"}
    from prophy.generation.pipelines import load

    pipeline = load(dtype=torch.bfloat16)
    for name, module in (("transformer", pipeline.transformer), ("branch", pipeline.branch)):
        assert sizes[name] == sum(p.numel() for p in module.parameters())
        (size,) = [part.nbytes for part in embedded.parts if part.name == name]
        real = sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
        assert size == real, "dtypes differ from those of from_pretrained"


def test_every_mode_holds_fewer_weights_than_the_one_before_and_is_slower(embedded):
    by_profile = {entry.profile: entry for entry in embedded.profiles}
    assert list(by_profile) == list(PROFILES)
    modes = [by_profile[Profile(mode)] for mode in OffloadMode]
    for before, after in pairwise(modes):
        assert max(s.weights for s in after.stages) < max(s.weights for s in before.stages)
        assert after.slow_down > before.slow_down
    assert modes[0].slow_down == 1
    for mode in OffloadMode:
        plain, tiled = by_profile[Profile(mode)], by_profile[Profile(mode, tiling=True)]
        assert tiled.peak.total <= plain.peak.total


def test_the_fastest_profile_that_fits_is_chosen_and_the_reason_names_the_next(embedded):
    assert embedded.chosen == Profile(OffloadMode.ALL)
    needs = {entry.profile: entry.peak.total + RESERVE for entry in embedded.profiles}
    from prophy.memory.plan import choose

    for vram in (needs[Profile(OffloadMode.ALL)], needs[Profile(OffloadMode.ALL)] - 1, min(needs.values())):
        chosen, reason = choose(embedded.profiles, vram)
        fitting = [entry for entry in embedded.profiles if needs[entry.profile] <= vram]
        assert chosen == min(fitting, key=lambda entry: entry.slow_down).profile
        assert "fits" in reason
    chosen, reason = choose(embedded.profiles, min(needs.values()) - 1)
    assert chosen is None
    assert "no profile fits" in reason
    assert "make the clip smaller or shorter" in reason


def test_a_branch_of_our_shape_sits_at_every_fifth_block_and_the_last():
    assert default_sites(30) == [0, 5, 10, 15, 20, 25, 29]
    assert default_sites(42)[-2:] == [40, 41]
    assert default_sites(26) == [0, 5, 10, 15, 20, 25]


def test_a_branch_folder_is_planned_by_its_own_configuration(tmp_path, tiny_branch):
    from prophy.assets import default_model

    tiny_branch.save_config(tmp_path)
    with pytest.raises(ValueError, match="load it beside its own base"):
        open_parts(default_model(), branch=tmp_path)
    own = open_parts(default_model()).branch
    assert isinstance(own, ProPhyBranch)
    assert open_parts(default_model(), branch=False).branch is None
    with pytest.raises(ValueError, match="holds no branch"):
        open_parts(default_model(), branch=tmp_path / "nothing")


@pytest.mark.parametrize("model", ["wan2.1-1.3b", "cogvideox-2b", "wan2.2-ti2v-5b"])
def test_published_models_of_every_kind_are_planned_without_weights(model: str):
    clip = ClipSize(352, 288, 9)
    made = plan(model, clip, vram=24 * GIB)
    assert [entry.profile for entry in made.profiles] == list(PROFILES)
    all_of_it = made.profiles[0]
    assert [stage.stage for stage in all_of_it.stages] == list(Stage)
    assert all(stage.activations > 1e6 for stage in all_of_it.stages)
    assert all_of_it.stages[0].weights == sum(part.nbytes * part.count for part in made.parts)


def test_the_text_names_parts_profiles_choice_and_assumptions(embedded):
    text = describe(embedded)
    for words in (
        "text encoder",
        "sequential+tiling",
        "▸ all ",
        "chosen   all: ",
        "times are estimates for 80 TFLOP/s",
    ):
        assert words in text
    rows = [line for line in text.splitlines() if "×  " in line]
    assert len(rows) == len(PROFILES)
    assert len({line.index("×  ") for line in rows}) == 1, "columns do not line up"


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_json_for_machines(capsys):
    from prophy.assets import default_model

    assert main(["plan", "--model", str(default_model()), "--size", "64x48x9", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["chosen"] is None
    assert [entry["profile"] for entry in printed["profiles"]] == [str(profile) for profile in PROFILES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "wan9"], "no model 'wan9': use one of wan2.1-1.3b"),
        (["--model", "wan9", "--size", "64x64x9"], "no model 'wan9': use one of wan2.1-1.3b"),
        (["--model", "."], "holds no model (model_index.json is missing)"),
        (["--model", "assets/prophy-tiny"], "prophy-tiny does not say what clip it was made for: give --size"),
        (["--model", "wan2.1-1.3b", "--size", "832x480"], "is not WxHxF: give three numbers"),
        (
            ["--model", "wan2.1-1.3b", "--size", "830x480x81"],
            "this model's steps of 16: use 832×480",
        ),
        (["--model", "wan2.1-1.3b", "--size", "832x480x80"], "is not 1 + 4k, all this model can make: use 81"),
        (["--model", "wan2.1-1.3b", "--size", "0x480x81"], "is not WxHxF: give three numbers"),
        (["--model", "cogvideox-2b", "--size", "720x480x45"], "is not 1 + 8k, all this model can make: use 49"),
        (["--model", "wan2.1-1.3b", "--vram", "-8"], "-8 GiB of accelerator memory: give a number above 0"),
        (["--model", "wan2.1-1.3b", "--vram", "nan"], "nan GiB of accelerator memory: give a number above 0"),
        (["--model", "wan2.1-1.3b", "--vram", "inf"], "inf GiB of accelerator memory: give a number above 0, up to"),
        (["--model", "wan2.1-1.3b", "--vram", "1e300"], "1e+300 GiB of accelerator memory: give a number above 0"),
        (["--model", "wan2.1-1.3b", "--branch", "nowhere"], "nowhere holds no branch"),
    ],
)
def test_bad_input_is_one_line_that_names_the_cure(arguments: list[str], message: str, capsys):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_planning_opens_no_weights(tmp_path):
    """A folder of configurations alone is enough, in a process that may open nothing else."""
    import plan as benchmark

    benchmark.write_model(tmp_path, "wan", benchmark.TINY["wan"])
    command = [sys.executable, "-m", "prophy", "plan", "--model", str(tmp_path), "--size", "64x64x9", "--vram", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "chosen   all" in done.stdout
    assert done.stderr == ""


def test_an_opened_pipeline_is_planned_as_its_folder_is(embedded):
    pipeline = load(dtype=torch.bfloat16, device="cpu")
    again = plan_parts(parts_of(pipeline), embedded.clip, vram=embedded.vram)
    assert [(p.name, p.parameters) for p in again.parts] == [(p.name, p.parameters) for p in embedded.parts]
    for ours, theirs in zip(again.profiles, embedded.profiles, strict=True):
        assert ours.peak.total == pytest.approx(theirs.peak.total, rel=0.01)


def test_auto_takes_the_fastest_profile_that_fits_and_says_when_none_does(embedded):
    pipeline = load(dtype=torch.bfloat16, device="cpu")
    assert str(fastest_profile(pipeline, 80 * GIB, embedded.clip)) == "all"
    smallest = min(embedded.profiles, key=lambda entry: entry.peak.total)
    tight = embedded.reserve + round(1.02 * smallest.peak.total)
    chosen = fastest_profile(pipeline, tight, embedded.clip)
    (entry,) = [entry for entry in embedded.profiles if entry.profile == chosen]
    assert entry.peak.total <= tight - embedded.reserve
    with pytest.raises(ValueError, match="no profile fits: even .* make the clip smaller"):
        fastest_profile(pipeline, embedded.reserve, embedded.clip)


def test_load_places_a_pipeline_in_the_profile_that_was_asked_for():
    pipeline = load(profile="sequential+tiling", device="cpu")
    assert str(profile_of(pipeline)) == "sequential+tiling"
    assert pipeline.vae.use_tiling
    assert str(profile_of(load(device="cpu"))) == "all"
    with pytest.raises(ValueError, match="no memory profile 'fast': use one of all, "):
        load(profile="fast")


def test_a_fine_tune_is_known_by_the_shape_of_its_transformer():
    with torch.device("meta"):
        transformer = WanTransformer3DModel.from_config(dict(PUBLISHED["wan2.1-1.3b"].transformer))
    assert published_like(type(transformer).__name__, transformer.config) is PUBLISHED["wan2.1-1.3b"]
    assert published_like_pipeline(load(device="cpu")) is None


def test_two_transformers_of_one_shape_are_another_model_than_one():
    a14b = PUBLISHED["wan2.2-a14b"]
    assert published_like(a14b.transformer_class, a14b.transformer, transformers=2) is a14b
    assert published_like(a14b.transformer_class, a14b.transformer) is PUBLISHED["wan2.1-14b"]


@pytest.mark.timeout(400)
def test_the_documents_say_what_the_plan_says():
    """``python benchmarks/model_plans.py`` writes them."""
    import model_plans

    assert model_plans.HERE.read_text() == model_plans.tables(), "run python benchmarks/model_plans.py"
    text = model_plans.GUIDE.read_text()
    assert text == model_plans.guide(text), "run python benchmarks/model_plans.py"
    assert text.count(" GiB\n") >= 6, "the commands by card say their peaks"
