"""The prompts an embedded model is judged by, by eye: fixed before its training ended, every result shown.

There are 24 for the first generation, and 34 for the second: two of each phenomenon, in plain words and in sentences
that its training never has.
"""

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

PLAIN_PROMPTS: tuple[FixedPrompt, ...] = (
    _fixed(201, "collision", "a red marble crashes into a blue marble, then they roll away"),
    _fixed(202, "collision", "two balls, green and orange, roll together and knock into each other at night"),
    _fixed(203, "rigid_body_motion", "a purple wheel goes over the floor as it turns"),
    _fixed(204, "rigid_body_motion", "a yellow box is thrown and turns in the air"),
    _fixed(205, "elastic_motion", "a blue rubber ball drops, then jumps up and down"),
    _fixed(206, "elastic_motion", "an orange weight hangs on a spring and swings at dusk"),
    _fixed(207, "liquid_motion", "green water sways to and fro in a glass tank"),
    _fixed(208, "liquid_motion", "red juice runs from a tap and fills a glass"),
    _fixed(209, "gas_motion", "a chimney lets a plume of blue smoke go up"),
    _fixed(210, "gas_motion", "yellow smoke climbs from a chimney at night"),
    _fixed(211, "deformation", "a press pushes down and flattens a purple lump of clay"),
    _fixed(212, "deformation", "red dough goes flat, then bulges"),
    _fixed(213, "melting", "a green ice cube drips and turns into a puddle"),
    _fixed(214, "melting", "a slowly melting orange popsicle in the evening"),
    _fixed(215, "solidification", "blue water in a tank hardens from below"),
    _fixed(216, "solidification", "a container with solidifying yellow liquid at night"),
    _fixed(217, "vaporization", "red soup bubbles in a pot and gives off steam"),
    _fixed(218, "vaporization", "purple water simmers on a stove"),
    _fixed(219, "liquefaction", "green drops gather on a cold plate and drip"),
    _fixed(220, "liquefaction", "orange vapour condenses below a cold plate and falls as drops"),
    _fixed(221, "combustion", "a blue candle glows with a small flame at night"),
    _fixed(222, "combustion", "flames dance on dry wood in the evening"),
    _fixed(223, "explosion", "a red bomb goes off and bursts into pieces"),
    _fixed(224, "explosion", "a fireball blows a purple bomb apart at night"),
    _fixed(225, "reflection", "green light strikes a mirror and bounces off in the dark"),
    _fixed(226, "reflection", "a yellow laser beam meets a mirror, then bounces"),
    _fixed(227, "refraction", "orange light passes into a glass block and bends at night"),
    _fixed(228, "refraction", "a blue laser beam breaks as it enters a prism"),
    _fixed(229, "scattering", "red light cuts through fog and spreads at night"),
    _fixed(230, "scattering", "a purple light beam gets blurry, then fades in mist"),
    _fixed(231, "interference_and_diffraction", "yellow waves run from two sources and cross"),
    _fixed(232, "interference_and_diffraction", "green ripples meet and mix in a ripple tank"),
    _fixed(233, "unnatural_light_source", "an orange lamp flashes brighter and darker at night"),
    _fixed(234, "unnatural_light_source", "a blue neon light pulses, then goes dark"),
)


def fixed_prompts(grammar: str) -> tuple[FixedPrompt, ...]:
    """Those in the words of a grammar, by its name.

    Raises:
        KeyError: no such grammar.
    """
    return {"first": FIXED_PROMPTS, "plain": PLAIN_PROMPTS}[grammar]
