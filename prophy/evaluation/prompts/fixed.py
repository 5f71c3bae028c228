"""The 24 prompts the embedded model is judged by, by eye: fixed before its training ended, every result shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FixedPrompt:
    """A prompt, its seed, and the phenomena it asks for."""

    prompt: str
    seed: int
    phenomena: tuple[str, ...]


def _fixed(seed: int, phenomena: str, prompt: str) -> FixedPrompt:
    return FixedPrompt(prompt, seed, tuple(phenomena.split()))


FIXED_PROMPTS: tuple[FixedPrompt, ...] = (
    _fixed(101, "collision", "a red ball collides with a blue ball"),
    _fixed(102, "collision", "two balls, yellow and purple, meet and bounce apart at night"),
    _fixed(103, "elastic_motion", "a green rubber ball bounces on the floor"),
    _fixed(104, "elastic_motion", "a purple weight bounces up and down on a spring"),
    _fixed(105, "liquid_motion", "blue water sloshes from side to side in a glass tank"),
    _fixed(106, "liquid_motion", "orange juice pours from a tap into a glass"),
    _fixed(107, "gas_motion", "green smoke rises from a chimney"),
    _fixed(108, "gas_motion", "a chimney puffs red smoke at dusk"),
    _fixed(109, "deformation", "a heavy press squeezes a block of yellow clay"),
    _fixed(110, "deformation", "purple clay is flattened under a press at night"),
    _fixed(111, "melting", "a block of blue ice melts into a puddle"),
    _fixed(112, "melting", "a red popsicle is melting in daylight"),
    _fixed(113, "combustion", "a green candle burns with a flickering flame"),
    _fixed(114, "combustion", "wooden logs are burning in a fire at night"),
    _fixed(115, "explosion", "an orange bomb explodes in a fireball"),
    _fixed(116, "explosion", "a blue firework blows up and sends pieces flying in the evening"),
    _fixed(117, "reflection", "a red laser beam bounces off a mirror in the dark"),
    _fixed(118, "reflection", "a mirror reflects a green light beam"),
    _fixed(119, "refraction", "a yellow laser beam is refracted by a block of glass at night"),
    _fixed(120, "refraction", "a glass block bends a purple beam of light"),
    _fixed(121, "elastic_motion combustion", "a red ball bounces on the left and a blue candle burns on the right"),
    _fixed(
        122,
        "gas_motion melting",
        "purple smoke rises from a chimney on the left while a green ice block melts on the right",
    ),
    _fixed(
        123,
        "liquid_motion explosion",
        "on the left, a tap fills a glass with blue water, on the right, a red grenade explodes",
    ),
    _fixed(
        124,
        "deformation reflection",
        "a press flattens orange clay on the right, a green laser is reflected by a mirror on the left at night",
    ),
)
