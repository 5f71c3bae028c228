"""The words for the scenes of thermodynamics."""

from prophy.worlds.language.dynamics import LIQUID, TANK
from prophy.worlds.language.scene import Scene, Thing

THERMODYNAMICS: dict[tuple[str, str], Scene] = {
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
        {"liquid": LIQUID, "tank": TANK},
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
        (
            "@bomb ~go off and ~burst into pieces",
            "a fireball ~blow @bomb apart",
            "@bomb ~hang in the air, then ~go boom",
        ),
    ),
}
