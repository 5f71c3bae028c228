"""What can be said about each scene of the worlds: its things by their many names, and what they do.

A saying is one of three, told apart by where its first verb stands:

- an *act*, ``@ball ~bounce [up and down|]``: a subject and what it does;
- a *deed*, ``~pour @liquid into @vessel``: what somebody does, or is told to do;
- a *name*, ``bouncing@ball``: the event as a thing.

``[a|b]`` picks one. ``~bounce`` takes the form that the sentence needs, ``=bounce`` is finite in every sentence.
``@ball`` is a thing with its determiner, ``$ball`` one without; a word may stand before either and goes inside,
``bouncing@ball`` is "a bouncing red ball". A leading ``+`` marks a subject that is plural by itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """Something that captions mention.

    Attributes:
        nouns: its names, the plainest first, separated by bars.
        adjectives: what it may be called besides, separated by bars.
        colour: which of the event's colours it has; None if it has none of them.
        kind: ``one``, ``mass`` (water), ``many`` (drops) or ``pair`` (two things in the event's two colours).
        another: whether it is the second of two like things: "another ball", "a blue one".
    """

    nouns: str
    adjectives: str = ""
    colour: int | None = None
    kind: str = "one"
    another: bool = False


@dataclass(frozen=True)
class Scene:
    """The words for one scene.

    Attributes:
        things: by the key that sayings use.
        sayings: the sentences and names that training sees.
        held_out: those it never sees; at least two acts.
    """

    things: dict[str, Thing]
    sayings: tuple[str, ...]
    held_out: tuple[str, ...]


_BALLS = "small|big|shiny|round|little|large|heavy|hard|smooth|tiny|huge|giant|plastic|wooden|glass|fast|rolling"
_HIT_BALLS = "ball|sphere|marble|billiard ball|pool ball|metal ball|steel ball|orb|snooker ball|glass marble"
_LIQUIDS = "water|liquid|juice|fluid|paint|lemonade|tea|wine|oil|ink|soda|syrup|colored water|coloured water"
_LUMP = "block of clay|lump of clay|clay block|blob|blob of clay|piece of clay|ball of clay|lump|soft block|foam block|sponge"
_BEAM = "laser beam|laser|light beam|beam of light|beam|ray of light|light ray|ray|laser ray|flashlight beam|laser pointer|spotlight"
_SOURCES = "[two sources|two points|two point sources|two stones|two drops]"

_TANK = Thing(
    "tank|container|glass tank|aquarium|basin|tub|fish tank|bowl",
    "small|big|large|rectangular|square|transparent|closed|wide",
)
_LIQUID = Thing(_LIQUIDS, colour=0, kind="mass")
_LIGHT = Thing(_BEAM, "thin|bright|narrow|strong|single", colour=0)

SCENES: dict[tuple[str, str], Scene] = {
    ("collision", "balls"): Scene(
        {
            "first": Thing(_HIT_BALLS, _BALLS, colour=0),
            "second": Thing(_HIT_BALLS, _BALLS, colour=1, another=True),
            "pair": Thing(_HIT_BALLS, _BALLS, kind="pair"),
        },
        (
            "@first [~hit|~strike|~collide with|~crash into|~bump into|~smash into|~knock into|~run into|~meet] @second",
            "@first [~roll into|~roll against|~bounce off|~knock against|~touch|~push] @second [and they bounce apart|]",
            "@pair [~collide|~crash|~clash|~hit each other|~bump into each other|~crash into each other] [head on|]",
            "@pair [~meet|~smash together|~bounce off each other|~knock together|~come together|~hit together]",
            "@pair ~roll [towards each other|together] and ~collide",
            "@pair [~collide|~meet], then [~roll|~move|~bounce] [apart|away]",
            "@pair ~exchange momentum as they =collide",
            "momentum ~be conserved when @pair =collide",
            "[a collision|an impact] of @pair [~happen|~occur|~take place]",
            "conservation of momentum [in a collision of|with] @pair",
            "@pair ~collide [and they separate|and they roll away|and afterwards they roll apart]",
            "[a collision|a crash|a clash|an impact|an elastic collision|the collision] [of|between] @pair",
            "[~crash|~bump|~smash|~bang] @pair [into each other|together]",
            "[~roll|~push|~shoot] @first [into|against|at] @second",
        ),
        (
            "@pair ~touch and ~bounce apart",
            "@first ~crash into @second, then they roll away",
            "@pair ~roll together and ~knock into each other",
        ),
    ),
    ("rigid_body_motion", "wheel"): Scene(
        {
            "wheel": Thing(
                "wheel|cartwheel|wagon wheel|bike wheel|tyre|tire|hoop|bicycle wheel|car wheel|disc|disk|ring",
                "small|big|old|round|metal|heavy|wooden|fast|large",
                0,
            )
        },
        (
            "@wheel [~roll|~turn|~spin|~move|~rotate|~run] [across the floor|along the ground|over the floor|down the street|]",
            "@wheel [~roll|~turn|~go|~spin] [along|past|by|around|round|round and round|on the ground|on a flat surface|]",
            "@wheel [~roll|~move] [without slipping|from one side to the other|in a straight line]",
            "@wheel with spokes [~turn|~roll|~spin]",
            "@wheel ~turn as it =roll",
            "[rolling|turning|spinning|rotating|moving]@wheel",
            "[rigid body motion|the rotation|the motion] of @wheel",
            "[@wheel in motion|@wheel with spokes|@wheel]",
            "[~roll|~spin|~turn|~push] @wheel [across the floor|along the ground|]",
        ),
        ("@wheel ~go over the floor as it =turn", "@wheel ~rotate and ~move along the floor", "slowly_rolling@wheel"),
    ),
    ("rigid_body_motion", "crate"): Scene(
        {
            "crate": Thing(
                "crate|box|cube|wooden box|wooden crate|chest|package|parcel|brick|cardboard box|wooden cube|suitcase",
                "small|big|heavy|square|empty|large|light|wooden|closed",
                0,
            )
        },
        (
            "@crate [~tumble|~fly|~spin|~turn|~flip|~rotate|~whirl] [through|in] the air [and ~land|and ~hit the floor|]",
            "@crate [~fall|~drop] [down|to the ground|to the floor|on the ground|from above|]",
            "@crate ~be [thrown|tossed|flung] [in the air|through the air|into the air|up|away|]",
            "@crate ~be thrown, then ~spin and ~land [on the floor|on the ground|]",
            "@crate [~tumble|~fly|~spin|~fall] before it =land",
            "@crate [~hit the ground|~land on the floor|~tip over|~topple over]",
            "@crate ~fly up, then ~fall down",
            "[tumbling|falling|flying|spinning|rotating]@crate",
            "[the fall|the flight|free fall|the rotation|rigid body motion] of @crate",
            "gravity ~pull @crate [down|to the ground]",
            "[~throw|~toss|~drop|~flip|~fling] @crate [in the air|through the air|on the floor|on the ground|up|]",
        ),
        ("@crate ~be thrown and ~turn in the air", "@crate ~tumble down, then ~hit the ground", "@crate in free fall"),
    ),
    ("elastic_motion", "ball"): Scene(
        {
            "ball": Thing(
                "ball|rubber ball|bouncy ball|toy ball|marble|sphere|basketball|football|tennis ball|orb|beach ball|soccer ball|ping pong ball",
                f"{_BALLS}|soft|bouncy",
                0,
            )
        },
        (
            "@ball [~bounce|~jump|~hop|~keep bouncing|~bounce again and again] [up and down|on the floor|on the ground|]",
            "@ball [~bounce|~jump] [up|high|around|in place|off the floor|on a table|on a hard surface|very high|]",
            "@ball [~fall|~drop|~fall down] and [~bounce|~bounce back|~bounce back up|~spring back up|~jump up again]",
            "@ball first ~fall, then ~bounce [back|up|]",
            "@ball [~fall|~drop] before it =bounce",
            "@ball ~hit the [floor|ground] and ~bounce [back|up|]",
            "@ball ~bounce [lower and lower|lower each time|less and less|higher and higher|like crazy|many times|non stop]",
            "@ball ~lose [height|energy|speed] with [each|every] bounce",
            "gravity ~pull @ball down and it =bounce",
            "@ball ~be dropped [on|onto] the [floor|ground] and ~bounce",
            "@ball [~go|~move] up and down",
            "[bouncing|jumping|hopping]@ball",
            "[the bounce|the bouncing|the jump|elastic motion] of @ball",
            "[~bounce|~drop] @ball [on|onto] [the floor|the ground|a table]",
        ),
        (
            "@ball ~drop, then ~jump up and down",
            "@ball ~hop on a hard floor",
            "@ball ~fall to the ground and ~spring up",
        ),
    ),
    ("elastic_motion", "spring"): Scene(
        {
            "block": Thing("block|weight|mass|load|metal block|object", "small|big|heavy|square", 0),
            "spring": Thing("spring|coil spring|metal spring|coil|elastic spring", "long|vertical|soft|strong"),
        },
        (
            "@block [~swing|~bounce|~move|~bob|~oscillate|~go|~jump|~vibrate] up and down on @spring",
            "@block [~hang|~bounce|~swing|~bob|~dangle|~oscillate] [on|from|below|under] @spring",
            "@block [~oscillate|~move|~vibrate] on @spring",
            "@spring with @block [~oscillate|~swing|~bounce|~vibrate|~go up and down|~swing up and down]",
            "@spring [~stretch|~extend] and [~shrink|~contract] [with @block on it|above @block]",
            "@spring [~stretch|~extend], then ~pull @block [up|back up|up again]",
            "@spring [~hold|~carry|~pull] @block that =swing",
            "@spring ~go up and down",
            "[oscillating|swinging|bouncing|bobbing|hanging]@block on @spring",
            "[@block on @spring|@spring with @block|@spring above @block]",
            "[harmonic motion|simple harmonic motion|elastic motion|the oscillation|the vibration|the motion] of @block on @spring",
            "[~hang|~pull|~bounce] @block on @spring",
        ),
        (
            "@block ~hang on @spring and ~swing",
            "@spring ~stretch while @block =oscillate",
            "vibrating@block on @spring",
        ),
    ),
    ("liquid_motion", "slosh"): Scene(
        {"liquid": _LIQUID, "tank": _TANK},
        (
            "@liquid [~slosh|~swing|~splash|~sway|~move|~flow|~rock] [from side to side|back and forth|around|] in @tank",
            "@liquid [~make waves|~wobble|~move from left to right|~move to and fro] in @tank",
            "the surface of @liquid [~swing|~wobble|~move|~sway] in @tank",
            "+waves [~move|~run|~go] [back and forth|from side to side] in @tank of $liquid",
            "[sloshing|splashing|swinging|moving|wobbling]@liquid in @tank",
            "[@tank of|@tank with] [sloshing|moving|splashing]$liquid",
            "[waves|sloshing|a wave|liquid motion] [in|on] @tank of $liquid",
            "waves of $liquid in @tank",
            "[~shake|~rock|~move] @tank of $liquid",
            "~slosh @liquid around in @tank",
        ),
        ("@liquid ~sway to and fro in @tank", "+waves ~swing from side to side in @tank with $liquid"),
    ),
    ("liquid_motion", "pour"): Scene(
        {
            "liquid": _LIQUID,
            "vessel": Thing(
                "glass|cup|mug|jar|beaker|jug|drinking glass|bottle|wine glass|vase",
                "tall|empty|small|big|clear|transparent|large",
            ),
            "tap": Thing("tap|faucet|water tap|kitchen tap|pipe|spout", "old|metal|shiny|open"),
        },
        (
            "@liquid [~pour|~flow|~run|~stream|~go|~fall|~come] [from|out of] @tap [into @vessel|in @vessel|]",
            "@liquid [~pour|~flow|~run|~stream|~go|~splash|~fall] [into|in] @vessel",
            "@liquid ~be poured [into|in] @vessel",
            "@tap [~fill|~fill up] @vessel with $liquid",
            "@tap [~pour @liquid|~let @liquid run] into @vessel",
            "@tap above @vessel [~pour|~let out] $liquid",
            "@tap [~run|~flow|~pour] into @vessel",
            "@vessel [~fill|~fill up|~be filled|~be filled up] with $liquid [from @tap|]",
            "@vessel [~get|~become] full of $liquid",
            "[@liquid|the level of @liquid|the surface of @liquid] ~rise in @vessel [below @tap|]",
            "[pouring|flowing|running]@liquid [into @vessel|from @tap]",
            "a stream of $liquid [from @tap|into @vessel|that fills @vessel]",
            "[~pour|~put] @liquid [into|in] @vessel",
            "[~fill|~fill up] @vessel with $liquid",
            "~open @tap and ~fill @vessel with $liquid",
        ),
        (
            "@liquid ~run from @tap and ~fill @vessel",
            "@vessel ~get full as @tap =pour $liquid",
            "@tap ~fill @vessel up",
        ),
    ),
    ("gas_motion", "smoke"): Scene(
        {
            "smoke": Thing("smoke|gas|thick smoke|hot gas|dense smoke|dark smoke|lots of smoke", colour=0, kind="mass"),
            "chimney": Thing("chimney|smokestack|brick chimney|stack|factory chimney", "old|tall|small|big|high"),
        },
        (
            "@smoke [~rise|~come|~drift|~curl|~billow|~go|~pour|~stream|~float] [from|out of|out from] @chimney",
            "@smoke [~rise|~drift|~float|~curl|~go|~climb|~swirl] [up|upwards|into the air|into the sky|above @chimney]",
            "@smoke ~leave @chimney [and ~rise|and ~drift away|]",
            "@chimney [~give off|~puff out|~let out|~blow out|~release|~make|~puff] @smoke",
            "[a plume|a cloud|a column|a puff] of $smoke [~rise|~drift|~float|~go] [from @chimney|up|into the air]",
            "[rising|drifting|curling|billowing|floating|swirling]@smoke",
            "[@smoke from|@smoke above|@smoke over] @chimney",
            "a [plume|cloud|column|puff] of $smoke [from|above|over|out of] @chimney",
            "@chimney with $smoke",
            "[gas motion|the motion] of @smoke [above @chimney|from @chimney]",
            "~blow @smoke out of @chimney",
        ),
        (
            "@smoke ~climb from @chimney",
            "@chimney ~let a plume of $smoke go up",
            "a column of $smoke ~drift out of @chimney",
        ),
    ),
    ("deformation", "press"): Scene(
        {
            "lump": Thing(_LUMP, "soft|small|big", 0),
            "clay": Thing(
                "clay|soft clay|dough|play dough|putty|modelling clay|plasticine|wet clay", colour=0, kind="mass"
            ),
            "press": Thing("press|hydraulic press|heavy press|machine|plate|metal plate", "big|strong|huge"),
        },
        (
            "@press [~squeeze|~flatten|~squash|~crush|~deform|~squish|~push|~compress] [@lump|@clay]",
            "@press [~press|~press down on|~push down on|~come down on|~move down on] [@lump|@clay]",
            "@press ~come down, then [~flatten|~squash|~crush] [@lump|@clay]",
            "@press [~press|~squeeze|~push|~squash] [@lump|@clay] flat",
            "[@lump|@clay] ~be [squeezed|flattened|squashed|crushed|pressed|deformed|squished|compressed] [by @press|under @press|]",
            "[@lump|@clay] [~get|~become|~go] [flat|flatter|wider and flatter|squashed] [under @press|]",
            "[@lump|@clay] [~change shape|~change its shape|~spread|~bulge|~deform] [under @press|]",
            "[squashed|flattened|squeezed|pressed|squished]@lump",
            "[the deformation|the pressing|plastic deformation] of [@lump|@clay]",
            "[@lump under @press|@clay under @press|@press on @lump|@press above @lump]",
            "[~squash|~flatten|~squeeze|~press|~squish|~crush|~push] [@lump|@clay] [flat|with @press|under @press|]",
        ),
        (
            "@press ~push down and ~flatten [@lump|@clay]",
            "@lump ~be pressed flat by @press",
            "@clay ~go flat, then ~bulge",
        ),
    ),
    ("melting", "block"): Scene(
        {
            "cube": Thing(
                "ice cube|block of ice|ice block|popsicle|ice lolly|piece of ice|cube of ice|ice pop|icicle|chunk of ice",
                "small|big|frozen|cold|shiny|large|square",
                0,
            ),
            "ice": Thing("ice|ice cream|frozen juice|snow|frozen water", colour=0, kind="mass"),
        },
        (
            "[@cube|@ice] [~melt|~thaw|~drip|~melt away|~melt down] [into a puddle|on the floor|on the ground|on a table|]",
            "[@cube|@ice] [~melt|~turn|~change] [to|into] [water|liquid|a puddle]",
            "[@cube|@ice] [~become|~turn to] [water|liquid|a puddle]",
            "[@cube|@ice] ~melt [slowly|at room temperature|in the heat|from the heat|over time|in summer|because it is hot|in a warm room]",
            "[@cube|@ice] ~melt and ~leave a puddle [behind|]",
            "[@cube|@ice] [~get|~become] smaller [and smaller|]",
            "[@cube|@ice] [~shrink|~melt], then only a puddle is left",
            "a puddle ~grow [under|below|around] [@cube|@ice]",
            "[melting|dripping|thawing][@cube|@ice]",
            "[the melting of @cube|the melting of @ice|a puddle of melting$ice|@cube|@ice in the heat]",
            "[~melt|~heat|~warm up|~thaw] [@cube|@ice]",
        ),
        ("@cube ~drip and ~turn into a puddle", "@ice ~shrink and ~melt away", "slowly_melting@cube"),
    ),
    ("solidification", "freeze"): Scene(
        {"liquid": _LIQUID, "tank": _TANK},
        (
            "@liquid [~freeze|~solidify|~turn to ice|~turn into ice|~become ice|~become solid] [in @tank|]",
            "@liquid ~freeze [in winter|because it is cold|in the cold|at low temperature]",
            "@liquid [~harden|~get hard|~get solid|~freeze over|~become hard|~become frozen] [in @tank|]",
            "@liquid [~freeze|~solidify] [from the bottom up|from the bottom to the top|from below|slowly] [in @tank|]",
            "@tank of $liquid [~freeze|~turn to ice|~freeze solid|~freeze from the bottom up]",
            "[ice|frost] [~grow|~form|~rise|~spread] in @tank of $liquid",
            "[freezing|solidifying]@liquid [in @tank|]",
            "[the freezing of|the solidification of] @liquid [in @tank|]",
            "@tank of freezing$liquid",
            "[ice|frost] growing in @tank of $liquid",
            "[~freeze|~cool|~chill] @liquid [in @tank|to ice|until it =freeze]",
        ),
        ("@liquid ~get cold, then ~become ice", "@liquid in @tank ~harden from below", "@tank with solidifying$liquid"),
    ),
    ("vaporization", "boil"): Scene(
        {
            "liquid": Thing("water|liquid|soup|tea|stew|fluid|hot water|coffee", colour=0, kind="mass"),
            "pot": Thing(
                "pot|pan|beaker|saucepan|kettle|cooking pot|metal pot|cauldron",
                "small|big|hot|shiny|old|open|large|glass",
            ),
        },
        (
            "@liquid [~boil|~bubble|~cook|~simmer] in @pot [on a stove|on a hot plate|]",
            "@liquid [~evaporate|~boil away|~vaporize|~turn into steam|~become steam|~turn to vapour] [in @pot|from @pot|]",
            "@liquid [~evaporate|~turn into vapor|~become vapor|~boil] on a [hot plate|stove|hot surface]",
            "@liquid ~boil and [steam =rise|steam =come out|vapour =rise]",
            "@liquid ~get [hot|hotter], then ~boil",
            "@liquid ~be [so|very|too] hot and steam =come out",
            "@liquid ~boil with [lots of|many|a lot of] bubbles",
            "+bubbles ~rise in @liquid",
            "[steam|vapour|vapor] [~rise|~come|~go up] [from|out of] @pot of [hot|boiling]$liquid",
            "@pot of $liquid [~boil|~bubble|~steam|~get hot|~give off steam]",
            "@liquid ~be [heated until it =boil|boiled in @pot|cooked in @pot]",
            "[boiling|bubbling|evaporating]@liquid [in @pot|on a stove|]",
            "[@pot of|@pot with] boiling$liquid",
            "[steam|bubbles|vapour] [from|above|over|in] @pot of boiling$liquid",
            "the [boiling|evaporation|vaporization] of @liquid",
            "[~boil|~heat|~cook] @liquid [in @pot|on a stove|]",
        ),
        (
            "@liquid ~bubble in @pot and ~give off steam",
            "@pot of $liquid ~get hot, then ~steam",
            "@liquid ~simmer on a stove",
        ),
    ),
    ("liquefaction", "condense"): Scene(
        {
            "drops": Thing(
                "drops|droplets|water drops|drops of water|drops of liquid|dew drops|water droplets",
                "small|big|round|shiny|tiny|clear|large",
                0,
                "many",
            ),
            "vapour": Thing("vapour|vapor|water vapour|steam|water vapor|moisture", colour=0, kind="mass"),
            "plate": Thing("cold plate|cold lid|cold surface|cold metal plate|cold glass plate|cool plate|metal lid"),
        },
        (
            "@drops [~form|~grow|~hang|~appear|~gather|~condense|~collect] [under|below|on|beneath] @plate",
            "@drops [~form|~grow] [under|on] @plate and [~fall|~drip|~drip down]",
            "@drops [~drip|~fall|~drop|~fall down|~drip down] [from|off] @plate",
            "@drops [~hang|~grow|~form], then ~fall [down|to the floor|from @plate]",
            "@drops ~grow before they =fall",
            "@vapour [~condense|~turn into drops|~become drops|~turn to liquid|~become liquid] [on|under|below] @plate",
            "@vapour [~become water|~turn into water|~turn to water|~liquefy|~turn into dew] [on|under] @plate",
            "[falling|dripping|growing|hanging]@drops [under|below|from|on] @plate",
            "condensation [of @vapour|] [on|under] @plate",
            "[@drops on|@drops under|@drops below|@drops from] @plate",
            "@plate with @drops",
            "[~cool|~condense] @vapour [on|under] @plate",
        ),
        (
            "@drops ~gather on @plate and ~drip",
            "@vapour ~condense below @plate and ~fall as drops",
            "@drops ~appear, then ~drip",
        ),
    ),
    ("combustion", "candle"): Scene(
        {"candle": Thing("candle|wax candle|birthday candle", "small|big|tall|thin|short|little|thick|long|single", 0)},
        (
            "@candle [~burn|~flicker|~glow|~burn down|~shine|~burn away] [brightly|slowly|with a flickering flame|]",
            "@candle ~burn with a [bright|small|warm|dancing|big] flame",
            "@candle [~be lit|~be on fire|~burn and ~get shorter|~get shorter|~become shorter]",
            "@candle ~be lit, then ~burn",
            "a [flame|fire|candle flame] [~flicker|~burn|~dance|~glow|~shine] [on|above|on top of] @candle",
            "[the flame|the light|the fire] of @candle [~flicker|~dance|~move|~burn|~glow]",
            "[burning|lit|flickering|glowing]@candle",
            "[the flame of|a flame on|a flame above|fire on|combustion of] @candle",
            "[@candle|@candle|@candle with a flame]",
            "[~light|~burn] @candle",
        ),
        ("@candle ~glow with a small flame", "the fire of @candle ~dance and ~shine", "@candle with a dancing flame"),
    ),
    ("combustion", "logs"): Scene(
        {
            "fire": Thing(
                "fire|campfire|camp fire|bonfire|log fire|wood fire|fireplace", "small|big|warm|hot|bright|large"
            ),
            "logs": Thing("logs|wooden logs|branches|sticks|pieces of wood", "dry|old|thick|crossed", None, "many"),
            "wood": Thing("wood|firewood|dry wood", kind="mass"),
        },
        (
            "@fire [~burn|~flicker|~blaze|~glow|~crackle] [brightly|with bright flames|with big flames|]",
            "[@logs|@wood] [~burn|~be on fire|~blaze|~glow|~catch fire] [in @fire|with bright flames|brightly|]",
            "+flames [~rise|~dance|~flicker|~leap] [above|from|over] [@logs|@wood|@fire]",
            "[@logs|@wood] ~catch fire, then ~burn",
            "[burning|flickering|blazing|crackling]@fire",
            "[burning@logs|burning@wood|flames on @logs|fire on @logs|logs on fire|flames of @fire|@fire with flames|combustion of @wood]",
            "[@fire|@fire|@logs in @fire]",
            "[~burn|~light] [@logs|@wood]",
            "[~light|~make] @fire [with @logs|with @wood|]",
        ),
        ("@logs ~blaze with big flames", "@fire ~crackle and ~glow", "+flames ~dance on @wood"),
    ),
    ("explosion", "bomb"): Scene(
        {
            "bomb": Thing(
                "bomb|firework|grenade|firecracker|rocket|stick of dynamite|dynamite|mine",
                "small|big|round|huge|heavy|old|loud",
                0,
            )
        },
        (
            "@bomb [~explode|~blow up|~burst|~go off|~detonate|~go boom] [in a fireball|into pieces|with a bang|in the air|]",
            "@bomb [~explode|~burst] [in a big explosion|into many pieces|in a ball of fire|suddenly|loudly]",
            "@bomb [~burst|~explode|~blow up] and ~send pieces flying",
            "@bomb ~hang in the air, then [~explode|~blow up|~burst]",
            "@bomb ~hang in the air before it =explode",
            "@bomb ~explode, afterwards only smoke is left",
            "@bomb ~make [an explosion|a fireball|a big bang]",
            "+[pieces|fragments|parts] of @bomb ~fly [away|apart|around|in all directions]",
            "an explosion [~throw|~send|~blow] [pieces|fragments] of @bomb [through the air|in all directions|around]",
            "[exploding|bursting|detonating]@bomb",
            "[an explosion|a blast|the explosion|a big explosion|a detonation] of @bomb",
            "[an explosion|a big explosion|a huge fireball|a loud blast|explosion|@bomb]",
            "[an explosion|the explosion|a blast|a big explosion] [~happen|~occur|~take place|~start]",
            "[something|everything] [~explode|~blow up]",
            "[~blow up|~explode|~set off|~detonate|~light] @bomb",
        ),
        ("@bomb ~go off and ~burst into pieces", "a fireball ~blow @bomb apart", "@bomb ~hang there, then ~go boom"),
    ),
    ("reflection", "mirror"): Scene(
        {
            "beam": _LIGHT,
            "light": Thing("light|laser light", colour=0, kind="mass"),
            "mirror": Thing(
                "mirror|flat mirror|plane mirror|shiny surface|shiny plate|metal mirror", "clean|polished|flat"
            ),
        },
        (
            "[@beam|@light] ~be reflected [by|off|from|on|in|at] @mirror",
            "[@beam|@light] [~bounce|~come back|~reflect] [off|from] @mirror",
            "@beam [~hit|~strike|~meet|~fall on|~shine on|~shine onto|~touch] @mirror [and ~bounce off|and ~be reflected]",
            "@beam ~hit @mirror, then [~go back up|~bounce off|~leave at the same angle|~change direction]",
            "@mirror [~reflect|~send back|~throw back] [@beam|@light]",
            "[the reflection|reflection] of [@beam|@light] [in|by|on|from] @mirror",
            "[@beam on @mirror|@mirror and @beam|@mirror with @beam|reflected@beam]",
            "@mirror that reflects @beam",
            "the law of reflection [with|for] @beam and @mirror",
            "the angle of incidence equals the angle of reflection for @beam",
            "[~shine|~point|~aim|~send] @beam [at|on|onto] @mirror",
            "~reflect [@beam|@light] [with|in|off] @mirror",
        ),
        ("@light ~strike @mirror and ~bounce off", "@mirror ~send @beam back up", "@beam ~meet @mirror, then ~bounce"),
    ),
    ("refraction", "glass"): Scene(
        {
            "beam": _LIGHT,
            "light": Thing("light|laser light", colour=0, kind="mass"),
            "glass": Thing(
                "glass block|block of glass|prism|glass cube|piece of glass|glass prism|glass slab|slab of glass",
                "thick|clear|big",
            ),
        },
        (
            "[@beam|@light] [~bend|~be bent|~be refracted|~refract|~change direction] [in|inside] [@glass|glass]",
            "@glass [~bend|~refract|~break] [@beam|@light]",
            "@beam [~enter|~go into|~pass into|~go inside|~shine into|~hit|~fall into] @glass [and ~bend|and ~be refracted]",
            "[@beam|@light] [~go|~pass|~shine|~travel] [through|into|inside] [@glass|glass]",
            "[@beam|@light] ~bend when it =enter [@glass|glass]",
            "@beam ~enter @glass, then [~bend|~change direction]",
            "[the refraction|refraction] of [@beam|@light] [in|by|at] [@glass|glass]",
            "[bent|refracted|bending]@beam in @glass",
            "[the law of refraction|snell's law] [with|for] @beam and @glass",
            "[@beam in @glass|@beam inside @glass|@beam through @glass|@glass that bends @beam|@glass with @beam]",
            "[~shine|~send|~point] @beam [into|through] @glass",
            "[~bend|~refract] [@beam|@light] with @glass",
        ),
        ("@light ~pass into @glass and ~bend", "@beam ~break as it =enter @glass", "@beam that =hit @glass ~be bent"),
    ),
    ("scattering", "fog"): Scene(
        {
            "beam": _LIGHT,
            "light": Thing("light|laser light", colour=0, kind="mass"),
            "fog": Thing("fog|mist|haze|thick fog|foggy air|dusty air|dense fog", kind="mass"),
            "cloud": Thing("cloud of fog|cloud|cloud of mist|fog cloud", "thick|white|dense|grey|gray"),
        },
        (
            "[@beam|@light] [~be scattered|~scatter|~spread out|~spread|~glow|~get lost] in [@fog|@cloud]",
            "[@beam|@light] [~fade|~fade away|~be lost|~become weaker|~get weak|~get blurry|~disappear] in [@fog|@cloud]",
            "[@fog|@cloud] [~scatter|~spread|~blur|~soften] [@beam|@light]",
            "@beam [~shine|~go|~pass|~cut] [into|through] [@fog|@cloud] [and ~glow|and ~be scattered|and ~fade|]",
            "[@fog|@cloud] [~glow|~light up] in @beam",
            "@beam ~enter [@fog|@cloud], then [~fade|~spread out|~get weaker]",
            "[scattering|the scattering] of [@beam|@light] [in|by] [@fog|@cloud]",
            "[@beam in|@beam through] [@fog|@cloud]",
            "[@fog|@cloud] [with|and] @beam",
            "[~shine|~point|~send] @beam [into|through] [@fog|@cloud]",
        ),
        (
            "@light ~cut through [@fog|@cloud] and ~spread",
            "@fog ~soften @beam",
            "@beam ~get blurry, then ~fade in @fog",
        ),
    ),
    ("interference_and_diffraction", "ripples"): Scene(
        {
            "waves": Thing(
                "waves|ripples|water waves|rings|circular waves|circles|water rings", "small|round|tiny|big", 0, "many"
            ),
            "tank": Thing("ripple tank|tank|water tank", "small|big"),
        },
        (
            "@waves [~interfere|~overlap|~cross|~meet|~mix|~add up] [in @tank|on the water|on a water surface|]",
            f"@waves from {_SOURCES} [~interfere|~overlap|~cross|~meet|~spread|~come together|~run into each other]",
            f"+{_SOURCES} [~make|~send out|~produce|~create] @waves [that overlap|that interfere|that cross|]",
            "@waves [~spread|~interfere] in @tank",
            "+two [sets|groups] of $waves [~cross|~meet|~overlap|~interfere|~cross each other]",
            f"@waves ~spread from {_SOURCES}, then [~overlap|~interfere|~cross]",
            "[an interference pattern|interference|interference and diffraction|the interference|a pattern|diffraction] of @waves",
            "[interfering|overlapping|crossing|spreading]@waves [in @tank|on the water|]",
            f"[@waves|@waves that overlap|@waves that meet|@waves spreading] from {_SOURCES}",
            f"[~make|~create] @waves [from|with] {_SOURCES}",
        ),
        (f"@waves ~run from {_SOURCES} and ~cross", "@waves ~meet and ~mix in @tank", "+two groups of $waves ~add up"),
    ),
    ("unnatural_light_source", "neon"): Scene(
        {
            "lamp": Thing(
                "lamp|neon lamp|neon light|neon sign|light|sign|light bulb|neon tube|lantern|bulb|led|led light|fluorescent tube",
                "small|big|round|bright|old|electric",
                0,
            ),
            "neon": Thing(
                "neon light|neon sign|neon lamp|neon tube|lamp|fluorescent lamp", "small|big|round|bright", 0
            ),
        },
        (
            "@lamp [~blink|~flash|~glow|~pulse|~flicker|~light up] [on the wall|on a wall|on a stand|slowly|quickly|]",
            "@lamp [~go|~turn|~switch|~blink|~flash] on and off",
            "@lamp [~get|~become|~glow] [bright and dark|brighter and darker|bright, then dark]",
            "@neon [~shine [in the room|on the wall|]|~glow [in the room|on the wall|]|~light up the wall]",
            "[light|the light] [~shine|~come|~pulse|~flash] from @neon",
            "[blinking|glowing|flashing|pulsing|flickering]@lamp",
            "[the glow|the light|the flashing] of @neon",
            "[@neon|@neon on the wall|@lamp that =blink]",
            "[~switch|~turn] @lamp on and off",
        ),
        ("@neon ~pulse, then ~go dark", "@lamp ~flash brighter and darker", "quickly_blinking@lamp"),
    ),
}
