"""The grammar of captions: many wordings for one event, some of them never seen in training.

A template is a sentence with choices: ``[a|b]`` picks one, ``{0}`` and ``{1}`` are the event's colours.
"""

from __future__ import annotations

import re

import numpy as np

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "orange", "amber"),
    "yellow": ("yellow", "yellow", "yellow", "golden"),
    "green": ("green", "green", "green", "emerald"),
    "blue": ("blue", "blue", "blue", "azure"),
    "purple": ("purple", "purple", "purple", "violet"),
}

#: (phenomenon, variant) -> (training templates, held-out templates)
TEMPLATES: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("collision", "balls"): (
        (
            "a {0} ball [collides|crashes|smashes] [with|into] a {1} ball",
            "a {0} ball and a {1} ball [collide|crash into each other|bump into each other]",
            "a {0} ball hits a {1} ball",
            "[two|] balls, {0} and {1}, [collide|meet and bounce apart]",
            "a [collision|crash] between a {0} ball and a {1} ball",
            "a {0} sphere rolls into a {1} sphere and they bounce apart",
        ),
        ("a {0} sphere and a {1} sphere collide and bounce apart", "a {0} ball and a {1} ball meet and bounce apart"),
    ),
    ("rigid_body_motion", "wheel"): (
        (
            "a {0} wheel [rolls|is rolling] [across the floor|along the ground|]",
            "a [rolling|turning] {0} wheel",
            "a {0} [wheel|cartwheel] with spokes turns as it rolls",
            "a {0} wheel moves along the [ground|floor], turning",
        ),
        ("a {0} wheel with spokes is rolling across the ground", "a {0} cartwheel rolls along the floor"),
    ),
    ("rigid_body_motion", "crate"): (
        (
            "a {0} [crate|box] [tumbles|spins] through the air and lands",
            "a {0} [crate|box] is thrown and falls to the [ground|floor]",
            "a [tumbling|falling] {0} [crate|box]",
            "someone throws a {0} [crate|box], it turns in the air",
        ),
        ("a {0} box is thrown, spins and lands on the floor", "a falling {0} crate turns in the air"),
    ),
    ("elastic_motion", "ball"): (
        (
            "a {0} ball [bounces|is bouncing|keeps bouncing] [up and down|on the floor|on the ground|]",
            "a [bouncy|bouncing|rubber] {0} ball [jumps up and down|bounces on the floor]",
            "a {0} rubber ball [drops|falls] and [bounces back|springs back up]",
            "a bouncing {0} ball",
        ),
        ("a {0} rubber ball is bouncing up and down on the floor", "a bouncy {0} ball drops and springs back up"),
    ),
    ("elastic_motion", "spring"): (
        (
            "a {0} [block|weight|mass] [swings|bounces|moves] up and down on a [spring|coil spring]",
            "a {0} [block|weight|mass] hangs from a spring and [swings|bounces|oscillates]",
            "a spring with a {0} [block|weight] [oscillates|swings up and down]",
        ),
        ("a {0} weight oscillates on a coil spring", "a {0} mass hangs from a spring and moves up and down"),
    ),
    ("liquid_motion", "slosh"): (
        (
            "[{0} liquid|{0} water|{0} juice] [sloshes|swings|splashes] [from side to side|back and forth|] in a [tank|glass tank|container]",
            "a [tank|container|glass tank] of [sloshing|moving] {0} [liquid|water|juice]",
            "waves of {0} [liquid|water] in a [tank|container]",
        ),
        (
            "sloshing {0} water moves back and forth in a container",
            "a container of {0} liquid that splashes from side to side",
        ),
    ),
    ("liquid_motion", "pour"): (
        (
            "{0} [liquid|water|juice] [pours|flows|runs] from a tap into a glass",
            "a tap [fills|is filling] a glass with {0} [liquid|water|juice]",
            "a glass [fills|is filled] with {0} [liquid|water|juice] from a tap",
            "[pouring|filling a glass with] {0} [liquid|water|juice]",
        ),
        ("a tap pours {0} juice into a glass", "{0} water flows from a tap, filling a glass"),
    ),
    ("gas_motion", "smoke"): (
        (
            "{0} smoke [rises|drifts|curls] [from|out of] a chimney",
            "a chimney [gives off|puffs|lets out] {0} smoke",
            "[a plume of|a cloud of|thick|] {0} smoke [rises|drifts up] [from a chimney|into the air]",
            "{0} [gas|smoke] [rising|drifting] from a chimney",
        ),
        ("a plume of {0} gas drifts out of a chimney", "thick {0} smoke curls up into the air from a chimney"),
    ),
    ("deformation", "press"): (
        (
            "a [press|heavy press] [squeezes|flattens|squashes|crushes] a [block of {0} clay|{0} clay block|lump of {0} clay]",
            "{0} clay is [squeezed|flattened|squashed] [by a press|under a press]",
            "a [soft|] {0} block is [deformed|flattened|squashed] by a [press|heavy press]",
        ),
        ("a lump of {0} clay is squashed under a heavy press", "a heavy press flattens a soft {0} block"),
    ),
    ("melting", "block"): (
        (
            "a [block of {0} ice|{0} ice block|{0} ice cube|{0} popsicle] [melts|is melting] [into a puddle|on the floor|away|]",
            "{0} ice [melts|is melting] [into a puddle|on the ground|]",
            "a {0} [ice cube|block|ice block] melts [and leaves a puddle|]",
            "a melting [{0} ice cube|block of {0} ice|{0} popsicle]",
        ),
        ("a {0} popsicle melts on the ground and leaves a puddle", "a melting {0} ice block"),
    ),
    ("solidification", "freeze"): (
        (
            "{0} [liquid|water] [freezes|is freezing|turns into ice|solidifies] in a [tank|container]",
            "a [tank|container] of {0} [liquid|water] [freezes|freezes from the bottom up|turns to ice]",
            "[freezing|solidifying] {0} [liquid|water] in a [tank|container]",
        ),
        ("{0} water solidifies in a tank from the bottom up", "a container of freezing {0} liquid turns into ice"),
    ),
    ("vaporization", "boil"): (
        (
            "{0} [liquid|water|soup] [boils|is boiling] in a [pot|beaker] [and steam rises|]",
            "a [pot|beaker] of [boiling|bubbling] {0} [liquid|water|soup] [gives off steam|]",
            "{0} [liquid|water] [evaporates|boils away|turns into steam] on a hot plate",
        ),
        ("a beaker of boiling {0} water on a hot plate", "{0} soup is boiling in a pot and gives off steam"),
    ),
    ("liquefaction", "condense"): (
        (
            "{0} [drops|droplets] [form|grow] [under|below] a cold plate and [fall|drip]",
            "{0} vapour [condenses|turns into drops] [on|under] a cold plate",
            "{0} [drops|droplets] [drip|fall] from a cold plate",
        ),
        ("{0} droplets form on a cold plate and drip", "{0} vapour turns into droplets under a cold plate"),
    ),
    ("combustion", "candle"): (
        (
            "a {0} candle [burns|is burning|burns down] [with a flickering flame|with a bright flame|]",
            "a [burning|lit] {0} candle",
            "a [flame|fire] [flickers|burns|dances] on a {0} candle",
        ),
        ("a lit {0} candle burns down with a bright flame", "a flickering flame burns on a {0} candle"),
    ),
    ("combustion", "logs"): (
        (
            "a [camp fire|campfire|bonfire|fire] [burns|is burning|flickers]",
            "[wooden|] logs [burn|are burning] [in a fire|with bright flames|]",
            "[wood|firewood] [burns|is burning] with [bright|flickering] flames",
            "a [burning|flickering] [campfire|bonfire|fire]",
        ),
        ("wooden logs are burning in a bonfire", "a campfire burns with flickering flames"),
    ),
    ("explosion", "bomb"): (
        (
            "a {0} [bomb|firework|grenade] [explodes|blows up|bursts|goes off] [in a fireball|into pieces|]",
            "[an explosion|a blast] of a {0} [bomb|firework|grenade]",
            "a {0} [bomb|firework] [blows up|explodes] [and sends pieces flying|]",
            "an exploding {0} [bomb|firework|grenade]",
        ),
        ("a {0} grenade goes off and sends pieces flying", "a blast, a {0} bomb bursts into pieces"),
    ),
    ("reflection", "mirror"): (
        (
            "a {0} [laser beam|light beam|beam of light|laser|ray of light] [is reflected|bounces off|reflects] [by|from|off] a mirror",
            "a mirror reflects a {0} [laser beam|light beam|beam of light|laser]",
            "a {0} [laser|light beam|ray of light] hits a mirror [and is reflected|and bounces off]",
        ),
        ("a beam of {0} light hits a mirror and bounces off", "a mirror reflects a {0} ray of light"),
    ),
    ("refraction", "glass"): (
        (
            "a {0} [laser beam|light beam|beam of light|laser|ray of light] [bends|is bent|is refracted|refracts] in [glass|a glass block|a block of glass]",
            "a [glass block|block of glass] [bends|refracts] a {0} [laser beam|light beam|beam of light|laser]",
            "a {0} [laser|light beam|ray of light] enters a [glass block|block of glass] [and bends|and is refracted|]",
        ),
        ("a beam of {0} light enters glass and bends", "a block of glass refracts a {0} ray of light"),
    ),
    ("scattering", "fog"): (
        (
            "a {0} [laser beam|light beam|beam of light|laser] [is scattered|scatters|spreads out] in [fog|mist|a cloud of fog]",
            "[fog|mist] scatters a {0} [laser beam|light beam|laser]",
            "a {0} [light beam|laser] shines into [fog|mist|a cloud of fog] [and glows|]",
        ),
        ("a beam of {0} light shines into mist and is scattered", "a cloud of fog scatters a {0} laser"),
    ),
    ("interference_and_diffraction", "ripples"): (
        (
            "two sources make {0} [waves|ripples] that [interfere|overlap]",
            "{0} [waves|ripples] from two sources [interfere|overlap|cross] in a tank",
            "an interference pattern of {0} [waves|ripples]",
            "{0} [waves|ripples] [spread|interfere] in a ripple tank",
        ),
        ("{0} ripples from two sources spread and interfere", "an interference pattern of {0} waves in a ripple tank"),
    ),
    ("unnatural_light_source", "neon"): (
        (
            "a {0} [neon lamp|neon light|neon sign|lamp] [blinks|flashes|glows|pulses] [on the wall|]",
            "a [blinking|glowing|flashing] {0} [neon lamp|neon light|neon sign]",
            "{0} light from a [neon lamp|neon sign] [pulses|glows|blinks]",
        ),
        ("a glowing {0} lamp pulses on the wall", "a flashing {0} lamp on the wall"),
    ),
}

PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left", "to the left"),
    "right": ("on the right", "on the right side", "at the right", "to the right"),
    "centre": ("", "", "", "in the middle", "in the centre"),
}

SETTINGS: dict[str, tuple[str, ...]] = {
    "day": ("", "", "by day", "in daylight"),
    "studio": ("", "", "in a studio", "in a bright studio"),
    "dusk": ("", "at dusk", "in the evening"),
    "night": ("at night", "in the dark", "at night"),
}

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(template: str, rng: np.random.Generator) -> str:
    """Make every choice of a template."""
    while match := _CHOICE.search(template):
        options = match.group(1).split("|")
        template = template[: match.start()] + options[rng.integers(len(options))] + template[match.end() :]
    return " ".join(template.split()).replace(" ,", ",")


def clause(phenomenon: str, variant: str, colours: tuple[str, ...], rng: np.random.Generator, held_out: bool) -> str:
    """One event in words."""
    templates = TEMPLATES[phenomenon, variant][held_out]
    words = [COLOUR_WORDS[colour][0 if held_out else rng.integers(len(COLOUR_WORDS[colour]))] for colour in colours]
    text = expand(templates[rng.integers(len(templates))], rng).format(*words)
    for vowel in ("orange", "amber", "azure", "emerald"):
        text = text.replace(f" a {vowel}", f" an {vowel}")
        text = f"an {text[2:]}" if text.startswith(f"a {vowel}") else text
    return text


def caption(clauses: list[tuple[str, str]], setting: str, rng: np.random.Generator) -> str:
    """Join events and their places (``left``, ``right``, ``centre``) into one caption, in either order."""
    placed = []
    order = rng.permutation(len(clauses))
    first = rng.random() < 0.4
    for i in order:
        text, place = clauses[i]
        words = PLACES[place][rng.integers(len(PLACES[place]))]
        if not words:
            placed.append(text)
        else:
            placed.append(f"{words}, {text}" if first else f"{text} {words}")
    joint = (
        (", ", " and ", " while ", ", and ")[rng.integers(4)]
        if not first
        else (", ", ", and ", " and ")[rng.integers(3)]
    )
    where = SETTINGS[setting][rng.integers(len(SETTINGS[setting]))]
    return " ".join(f"{joint.join(placed)} {where}".split()).replace(" ,", ",")
