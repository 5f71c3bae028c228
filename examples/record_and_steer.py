"""Make a clip and record its routing, mute the expert that acts most, and say what that changed. Seconds on a CPU.

python examples/record_and_steer.py "a red ball bounces on the floor" --out runs
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import prophy
from prophy.phenomena import PHENOMENA
from prophy.routing.distance import routing_difference


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default="a red ball bounces on the floor")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    arguments = parser.parse_args(argv)

    # 1. The embedded model with its branch; the name of a published model, and branch="DIR", would do as well.
    pipeline = prophy.load()

    # 2. A clip. Its trace says which expert acted on which token, at every denoising step.
    settings = prophy.GenerationSettings(arguments.prompt, seed=3, steps=arguments.steps)
    plain = prophy.generate(pipeline, settings)
    trace = plain.trace
    assert trace is not None, "the embedded model has a branch"
    shares = np.bincount(trace.topk_ids[-1, :, 0], minlength=trace.num_experts) / trace.grid.num_tokens
    strongest = int(shares.argmax())
    print(f"expert {strongest} is the strongest on {shares[strongest]:.0%} of the tokens")

    # 3. Where the branch sees which phenomenon, at the last step: P' of eq. 5, one number a token and phenomenon.
    map_NP = trace.phenomenon_maps[-1].astype(np.float32)
    for phenomenon in np.argsort(map_NP.mean(0))[::-1][:2]:
        print(f"{PHENOMENA[phenomenon].name}: {map_NP[:, phenomenon].max():.2f} at its strongest token")

    # 4. The same noise, with that expert muted: a scale of 0; 2 boosts, -1 inverts the router's logit.
    steered = prophy.generate(pipeline, replace(settings, steering=prophy.Steering(refinement={strongest: 0})))
    assert steered.trace is not None
    moved_THW = routing_difference(trace, steered.trace)
    changed = np.abs(plain.frames.astype(int) - steered.frames).mean()
    print(f"muted: the routing moved by {moved_THW.mean():.2f} (0 to 1), the pixels by {changed:.1f} (0 to 255)")

    # 5. Both as run folders: clip, routing, sheet and everything that is needed to make them again.
    for made in (plain, steered):
        print(made.save(arguments.out).path)


if __name__ == "__main__":
    main()
