"""The words for the scenes of dynamics."""

from prophy.worlds.language.scene import Scene, Thing

_BALLS = "small|big|shiny|round|little|large|heavy|hard|smooth|tiny|huge|giant|plastic|wooden|glass|fast|rolling"
_HIT_BALLS = "ball|sphere|marble|billiard ball|pool ball|metal ball|steel ball|orb|snooker ball|glass marble"
_LUMP = "block of clay|lump of clay|clay block|blob|blob of clay|piece of clay|ball of clay|lump|soft block|foam block|sponge"

LIQUID = Thing(
    "water|liquid|juice|fluid|paint|lemonade|tea|wine|oil|ink|soda|syrup|colored water|coloured water",
    colour=0,
    kind="mass",
)
TANK = Thing(
    "tank|container|glass tank|aquarium|basin|tub|fish tank|bowl",
    "small|big|large|rectangular|square|transparent|closed|wide",
)

DYNAMICS: dict[tuple[str, str], Scene] = {
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
            "@pair ~exchange [momentum|energy] as they =collide",
            "@pair ~rebound [after the impact|after the crash|]",
            "@pair [~collide|~crash|~meet] with a [bang|thud|ping|clink|loud noise]",
            "@pair with [equal|different|the same] [mass|speed|velocity] ~collide",
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
                "wheel|cartwheel|wagon wheel|bike wheel|tyre|tire|hoop|bicycle wheel|disc|disk|ring",
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
            "@wheel ~roll with constant [speed|velocity]",
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
            "@crate ~land with a [thud|bang|crash]",
            "@crate [~hit the ground|~land on the floor|~tip over|~topple over]",
            "@crate ~fly up, then ~fall down",
            "@crate [~flip over|~twirl|~fly] and ~follow a [parabola|curved path]",
            "projectile motion of @crate",
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
                f"{_BALLS}|soft|elastic",
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
            "@ball that =look [shiny|soft|heavy|nice] ~bounce",
            "@ball [~rebound|~bounce] until it =stop",
            "@ball ~bounce and ~come to rest",
            "@ball ~go [boing|boing boing|thud|ping|plop]",
            "[bouncing|jumping|hopping]@ball",
            "[the bounce|the bouncing|the jump|elastic motion] of @ball",
            "[~bounce|~drop] @ball [on|onto] [the floor|the ground|a table]",
            "[~let @ball fall|~let @ball bounce|~release @ball from a height]",
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
            "@spring ~recoil and @block =move up",
            "@block ~oscillate with a constant [period|frequency|amplitude]",
            "the force of @spring ~pull @block up",
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
        {"liquid": LIQUID, "tank": TANK},
        (
            "@liquid [~slosh|~swing|~splash|~sway|~move|~flow|~rock] [from side to side|back and forth|around|] in @tank",
            "@liquid [~make waves|~wobble|~shake|~jiggle|~wiggle|~go splash|~move from left to right|~move to and fro] in @tank",
            "the surface of @liquid [~swing|~wobble|~move|~sway|~rise and ~fall] in @tank",
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
            "liquid": LIQUID,
            "vessel": Thing(
                "glass|cup|mug|jar|beaker|jug|drinking glass|bottle|wine glass|vase",
                "tall|empty|small|big|clear|transparent|large",
            ),
            "tap": Thing("tap|faucet|water tap|kitchen tap|pipe|spout", "old|metal|shiny|open"),
        },
        (
            "@liquid [~pour|~flow|~run|~stream|~go|~fall|~come] [from|out of] @tap [into @vessel|in @vessel|]",
            "@liquid [~pour|~flow|~run|~stream|~go|~splash|~fall|~trickle|~gush] [into|in] @vessel",
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
            "chimney": Thing("chimney|smokestack|brick chimney|stack", "old|tall|small|big|high"),
        },
        (
            "@smoke [~rise|~come|~drift|~curl|~billow|~go|~pour|~stream|~float] [from|out of|out from] @chimney",
            "@smoke [~rise|~drift|~float|~curl|~go|~climb|~swirl] [up|upwards|into the air|into the sky|above @chimney]",
            "@smoke ~leave @chimney [and ~rise|and ~drift away|]",
            "@chimney [~give off|~puff out|~let out|~blow out|~release|~make|~puff|~emit] @smoke",
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
            "@press ~make @lump go [splat|squish]",
            "@press ~come down, then [~flatten|~squash|~crush] [@lump|@clay]",
            "@press [~press|~squeeze|~push|~squash] [@lump|@clay] flat",
            "[@lump|@clay] ~be [squeezed|flattened|squashed|crushed|pressed|deformed|squished|compressed] [by @press|under @press|]",
            "[@lump|@clay] [~get|~become|~go] [flat|flatter|wider and flatter|squashed] [under @press|]",
            "[@lump|@clay] ~look [flat|flatter|wide|like a pancake] [under @press|]",
            "the [pressure|force|weight] of @press ~flatten [@lump|@clay]",
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
}
