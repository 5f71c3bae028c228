"""Prompts as visitors type them, in plain words, with what they ask for: children, teachers, film people, strangers.

They measure the grammar and the text encoder and are never trained on. The words of :data:`WIDENING` were looked at
while the grammar was widened; those of :data:`HELD_OUT` were not. Which is which was drawn by lot before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prophy.phenomena import by_id

_FUNCTION_WORDS = """
a an the this that these those some any each every all both other another one
i you he she it we they me him her us them my your his its our their what which who
and or but nor so if as than then while when where how because until before after
of in on at to from by with without into onto out off over under up down through for about between against during
is are was were be been being am do does did has have had having will would can could may might shall should must
not no very too also just only there here again please s t d ll re ve m
"""

#: Words that carry grammar, not content; a prompt is still understood when one of them is unknown.
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True)
class PlainPrompt:
    """One prompt.

    Attributes:
        text: as typed.
        asks: what it asks for, events apart by semicolons: a phenomenon's id and the colours said, in order.
        unshown: words for things that no world can show; they rightly stay unknown.
    """

    text: str
    asks: str
    unshown: str = ""

    @property
    def events(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Phenomenon and colours of every event asked for.

        Raises:
            KeyError: a phenomenon that is none.
        """
        parts = [part.split() for part in self.asks.split(";") if part.strip()]
        return tuple((by_id(phenomenon).id, tuple(colours)) for phenomenon, *colours in parts)

    @property
    def words(self) -> tuple[str, ...]:
        """Its words, lower-case, without the things that no world can show."""
        return tuple(w for w in re.findall(r"[a-z0-9]+", self.text.lower()) if w not in self.unshown.split())

    @property
    def content_words(self) -> tuple[str, ...]:
        """Its words that are no :data:`FUNCTION_WORDS`."""
        return tuple(w for w in self.words if w not in FUNCTION_WORDS)


#: looked at while the grammar was widened
WIDENING = (
    PlainPrompt("ball bounces", "elastic_motion"),
    PlainPrompt("a bomb goes boom", "explosion"),
    PlainPrompt("big explosion!!", "explosion"),
    PlainPrompt("a blue popsicle melts and makes a puddle", "melting blue"),
    PlainPrompt("my ice lolly is dripping", "melting"),
    PlainPrompt("squish the green slime flat", "deformation green", "slime"),
    PlainPrompt("a red marble and a blue marble bump into each other", "collision red blue"),
    PlainPrompt("somebody fills my cup with orange juice", "liquid_motion orange"),
    PlainPrompt("the wheel goes round and round", "rigid_body_motion"),
    PlainPrompt("throw a green box in the air", "rigid_body_motion green"),
    PlainPrompt("a red laser goes through fog", "scattering red"),
    PlainPrompt("water is boiling, lots of bubbles", "vaporization"),
    PlainPrompt("the soup is too hot and steam comes out", "vaporization"),
    PlainPrompt("water turns to ice", "solidification"),
    PlainPrompt("a dog and a bouncing ball", "elastic_motion", "dog"),
    PlainPrompt("a green lamp goes on and off", "unnatural_light_source green"),
    PlainPrompt("waves in a tank of blue water", "liquid_motion blue"),
    PlainPrompt("a rubber ball dropped onto a hard floor loses height with each bounce", "elastic_motion"),
    PlainPrompt("free fall of a crate with rotation", "rigid_body_motion"),
    PlainPrompt("two waves overlap and interfere", "interference_and_diffraction"),
    PlainPrompt("condensation: water vapour forms droplets on a cold plate", "liquefaction"),
    PlainPrompt("droplets of orange liquid condense below a cold surface", "liquefaction orange"),
    PlainPrompt("freezing of water in a container from the bottom to the top", "solidification"),
    PlainPrompt("a block of ice melts at room temperature", "melting"),
    PlainPrompt("a burning candle becomes shorter over time", "combustion"),
    PlainPrompt("a liquid sloshing back and forth in a rectangular tank", "liquid_motion"),
    PlainPrompt("a fluorescent tube glowing orange", "unnatural_light_source orange"),
    PlainPrompt("a ball bounces on the left and a laser hits a mirror on the right", "elastic_motion; reflection"),
    PlainPrompt("close-up of a candle flame flickering in a dark room", "combustion"),
    PlainPrompt("slow motion shot of a red bouncing ball", "elastic_motion red"),
    PlainPrompt("cinematic footage of a bonfire at dusk", "combustion"),
    PlainPrompt("time lapse of an ice cube melting on a table", "melting"),
    PlainPrompt("neon sign flickering in the dark, moody atmosphere", "unnatural_light_source"),
    PlainPrompt("a blue neon light pulses on the wall of a bar", "unnatural_light_source blue", "bar"),
    PlainPrompt("a firework bursts in a huge fireball", "explosion"),
    PlainPrompt("camera follows a green wheel as it rolls across the floor", "rigid_body_motion green"),
    PlainPrompt("studio shot, two shiny metal balls collide", "collision"),
    PlainPrompt("boiling soup in a metal pot, steam rising, studio lighting", "vaporization"),
    PlainPrompt("a heavy press slowly crushing a blob of red clay", "deformation red"),
    PlainPrompt("a lake freezing over in winter", "solidification", "lake"),
    PlainPrompt("a shiny surface reflecting a beam of yellow light", "reflection yellow"),
    PlainPrompt(
        "a golden ball bounces in slow motion, a violet candle burns next to it",
        "elastic_motion yellow; combustion purple",
    ),
    PlainPrompt("please make video of ball what is jumping", "elastic_motion"),
    PlainPrompt("i want see red ball bounce on ground", "elastic_motion red"),
    PlainPrompt("water is pour in glass", "liquid_motion"),
    PlainPrompt("a glass get full of yellow water", "liquid_motion yellow"),
    PlainPrompt("ice become water", "melting"),
    PlainPrompt("the water becomes solid", "solidification"),
    PlainPrompt("the gas go out from chimney", "gas_motion"),
    PlainPrompt("light go inside the glass and change direction", "refraction"),
    PlainPrompt("laser is reflected on mirror", "reflection"),
    PlainPrompt("laser of red color in the fog", "scattering red"),
    PlainPrompt("a candle is in fire", "combustion"),
    PlainPrompt("bomb of orange color make explosion", "explosion orange"),
    PlainPrompt("wheel is turning and moving to right", "rigid_body_motion"),
    PlainPrompt("a cube of green color flying and falling", "rigid_body_motion green"),
    PlainPrompt("liquid moves from left to right in a container", "liquid_motion"),
    PlainPrompt("the vapor becomes drops", "liquefaction"),
    PlainPrompt("there is water drops falling from cold plate", "liquefaction"),
    PlainPrompt("first the ball falls, then it bounces", "elastic_motion"),
    PlainPrompt("before the bomb explodes it is hanging in the air", "explosion"),
    PlainPrompt("pour water in a mug", "liquid_motion"),
    PlainPrompt("someone pouring blue paint into a glass", "liquid_motion blue"),
    PlainPrompt("a faucet running into a cup", "liquid_motion"),
    PlainPrompt("red clay being squashed", "deformation red"),
    PlainPrompt("frost growing in a tank of green water", "solidification green"),
    PlainPrompt("a pot of boiling water", "vaporization"),
    PlainPrompt("a kettle boils and steam comes out", "vaporization"),
    PlainPrompt("dew drops dripping from a cold lid", "liquefaction"),
    PlainPrompt("a firecracker going off at night", "explosion"),
    PlainPrompt("i'd like to see logs burning in a fireplace", "combustion"),
    PlainPrompt("two sets of ripples crossing each other on a pond", "interference_and_diffraction", "pond"),
    PlainPrompt("two bouncing balls", "elastic_motion; elastic_motion"),
    PlainPrompt("two yellow candles", "combustion yellow; combustion yellow"),
    PlainPrompt("a blue ball bounces beside a burning candle", "elastic_motion blue; combustion"),
    PlainPrompt(
        "the ball on the right bounces and the lamp on the left blinks", "elastic_motion; unnatural_light_source"
    ),
    PlainPrompt("a bomb blows up and afterwards there is only smoke", "explosion"),
    PlainPrompt("water splashing around in an aquarium", "liquid_motion"),
    PlainPrompt("tiny green ball hits huge orange ball", "collision green orange"),
)

#: not looked at
HELD_OUT = (
    PlainPrompt("the ball goes boing boing", "elastic_motion"),
    PlainPrompt("a big red ball jumping up and down", "elastic_motion red"),
    PlainPrompt("my yellow ball is bouncing really high", "elastic_motion yellow"),
    PlainPrompt("a purple bomb that explodes into a thousand pieces", "explosion purple"),
    PlainPrompt("fire", "combustion"),
    PlainPrompt("a camp fire with marshmallows", "combustion", "marshmallows"),
    PlainPrompt("a candle and a bouncing ball", "combustion; elastic_motion"),
    PlainPrompt("the ice cream is melting in the sun", "melting"),
    PlainPrompt("two marbles crash", "collision"),
    PlainPrompt("water goes into a cup", "liquid_motion"),
    PlainPrompt("a box falls down", "rigid_body_motion"),
    PlainPrompt("smoke comes out of the chimney", "gas_motion"),
    PlainPrompt("a house with smoke coming out of the chimney", "gas_motion", "house"),
    PlainPrompt("blinking lights at night", "unnatural_light_source"),
    PlainPrompt("a spring goes up and down", "elastic_motion"),
    PlainPrompt("elastic collision of two billiard balls", "collision"),
    PlainPrompt("two spheres collide head-on and separate", "collision"),
    PlainPrompt("demonstrate conservation of momentum with two colliding balls", "collision"),
    PlainPrompt("a mass oscillating on a vertical spring", "elastic_motion"),
    PlainPrompt("simple harmonic motion of a yellow block on a spring", "elastic_motion yellow"),
    PlainPrompt("a wheel rolling without slipping on a flat surface", "rigid_body_motion"),
    PlainPrompt("law of reflection: a green laser beam strikes a plane mirror", "reflection green"),
    PlainPrompt("light ray reflected from a mirror at the same angle", "reflection"),
    PlainPrompt("refraction of a red laser in a glass block", "refraction red"),
    PlainPrompt("a beam of light bends when it enters glass", "refraction"),
    PlainPrompt("snell's law demonstrated with a blue beam", "refraction blue"),
    PlainPrompt("scattering of a purple laser beam in mist", "scattering purple"),
    PlainPrompt("interference pattern of two point sources in a ripple tank", "interference_and_diffraction"),
    PlainPrompt("water evaporates from a beaker on a hot plate", "vaporization"),
    PlainPrompt("plastic deformation of clay in a hydraulic press", "deformation"),
    PlainPrompt("an explosion throws fragments in all directions", "explosion"),
    PlainPrompt("convection of hot gas rising above a chimney", "gas_motion"),
    PlainPrompt("the spring stretches, then pulls the weight back up", "elastic_motion"),
    PlainPrompt("while the candle burns, the ice next to it melts", "combustion; melting"),
    PlainPrompt("a laser is refracted by glass while smoke rises beside it", "refraction; gas_motion"),
    PlainPrompt("wide shot, campfire burning at night", "combustion"),
    PlainPrompt("macro shot of droplets forming on a cold metal surface", "liquefaction"),
    PlainPrompt("thick purple smoke billows from a chimney at sunset", "gas_motion purple"),
    PlainPrompt("slow motion: orange juice pours into a tall glass", "liquid_motion orange"),
    PlainPrompt("a wooden crate tumbles through the air and hits the ground", "rigid_body_motion"),
    PlainPrompt("an emerald laser cutting through thick haze", "scattering green"),
    PlainPrompt("top view of ripples spreading from two points", "interference_and_diffraction"),
    PlainPrompt("the surface of the water looks like a mirror", ""),
    PlainPrompt("dusk scene with a fire on the left and a rolling wheel on the right", "combustion; rigid_body_motion"),
    PlainPrompt("a car explodes on the street", "explosion", "car"),
    PlainPrompt("a night scene: lamp flashing above, ball bouncing below", "unnatural_light_source; elastic_motion"),
    PlainPrompt("show how the clay gets flat", "deformation"),
    PlainPrompt("a machine press the clay and it becomes flat", "deformation"),
    PlainPrompt("two balls of different color, red and green, they hit together", "collision red green"),
    PlainPrompt("one ball blue hits one ball yellow", "collision blue yellow"),
    PlainPrompt("wood burn in fire", "combustion"),
    PlainPrompt("the water is boiled in the pot and becomes vapor", "vaporization"),
    PlainPrompt("lamp of blue color is blinking", "unnatural_light_source blue"),
    PlainPrompt("waves of two sources meets together", "interference_and_diffraction"),
    PlainPrompt("at the left a candle, at the right a ball that bounces", "combustion; elastic_motion"),
    PlainPrompt("on left side melting ice and on right side fire", "melting; combustion"),
    PlainPrompt("a weight is swinging on spring in the night", "elastic_motion"),
    PlainPrompt("a shiny marble bouncing on a wooden floor", "elastic_motion"),
    PlainPrompt("melting ice", "melting"),
    PlainPrompt("green ice cube melting", "melting green"),
    PlainPrompt("a red candle burning next to a green candle", "combustion red; combustion green"),
    PlainPrompt("spinning wheel", "rigid_body_motion"),
    PlainPrompt("a spinning box that lands on the ground", "rigid_body_motion"),
    PlainPrompt("squeeze a lump of purple dough under a press", "deformation purple"),
    PlainPrompt("freezing water", "solidification"),
    PlainPrompt("can you show me an exploding grenade?", "explosion"),
    PlainPrompt("a light beam bouncing off a mirror in a studio", "reflection"),
    PlainPrompt("mirror reflecting a purple laser", "reflection purple"),
    PlainPrompt("a red light passing through a prism", "refraction red"),
    PlainPrompt("a flashlight shining into fog", "scattering"),
    PlainPrompt("an orange beam fades away in the mist", "scattering orange"),
    PlainPrompt("a flashing red sign", "unnatural_light_source red"),
    PlainPrompt("smoke on the left, a melting ice cube to the right of it", "gas_motion; melting"),
    PlainPrompt("jelly wobbling on a plate", "", "jelly"),
    PlainPrompt("a cat chasing a laser dot", "", "cat chasing dot"),
    PlainPrompt("a heavy weight bobbing on a coil spring in daylight", "elastic_motion"),
    PlainPrompt("crimson gas drifting from a factory chimney in the evening", "gas_motion red", "factory"),
    PlainPrompt("a small steel ball knocks into a larger one", "collision"),
)
