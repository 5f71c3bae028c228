"""The words for the scenes of optics."""

from prophy.worlds.language.scene import Scene, Thing

_BEAM = Thing(
    "laser beam|laser|light beam|beam of light|beam|ray of light|light ray|ray|laser ray|flashlight beam|laser pointer|spotlight",
    "thin|bright|narrow|strong|single",
    colour=0,
)
_LIGHT = Thing("light|laser light", colour=0, kind="mass")
_SOURCES = "[two sources|two points|two point sources|two stones|two drops]"

OPTICS: dict[tuple[str, str], Scene] = {
    ("reflection", "mirror"): Scene(
        {
            "beam": _BEAM,
            "light": _LIGHT,
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
            "@beam ~be deflected by @mirror",
            "@mirror ~look [shiny|bright] when @beam =hit it",
            "the law of reflection [with|for] @beam and @mirror",
            "the angle of incidence equals the angle of reflection for @beam",
            "[~shine|~point|~aim|~send] @beam [at|on|onto] @mirror",
            "~reflect [@beam|@light] [with|in|off] @mirror",
        ),
        ("@light ~strike @mirror and ~bounce off", "@mirror ~send @beam back up", "@beam ~meet @mirror, then ~bounce"),
    ),
    ("refraction", "glass"): Scene(
        {
            "beam": _BEAM,
            "light": _LIGHT,
            "glass": Thing(
                "glass block|block of glass|prism|glass cube|piece of glass|glass prism|glass slab|slab of glass",
                "thick|clear|big",
            ),
        },
        (
            "[@beam|@light] [~bend|~be bent|~be refracted|~refract|~change direction] [in|inside] [@glass|glass]",
            "@glass [~bend|~refract|~break|~deflect] [@beam|@light]",
            "@beam [~change its path|~change its angle|~slow down] in @glass",
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
            "beam": _BEAM,
            "light": _LIGHT,
            "fog": Thing("fog|mist|haze|thick fog|foggy air|dusty air|dense fog", kind="mass"),
            "cloud": Thing("cloud of fog|cloud|cloud of mist|fog cloud", "thick|white|dense|grey|gray"),
        },
        (
            "[@beam|@light] [~be scattered|~scatter|~spread out|~spread|~glow|~get lost] in [@fog|@cloud]",
            "[@beam|@light] [~fade|~fade away|~be lost|~become weaker|~get weak|~get blurry|~disappear] in [@fog|@cloud]",
            "[@fog|@cloud] [~scatter|~spread|~blur|~soften] [@beam|@light]",
            "@beam [~shine|~go|~pass|~cut] [into|through] [@fog|@cloud] [and ~glow|and ~be scattered|and ~fade|]",
            "[@fog|@cloud] [~glow|~light up] in @beam",
            "@beam ~look [blurry|weak|soft] in [@fog|@cloud]",
            "@beam ~illuminate [@fog|@cloud]",
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
            "@waves [~interfere|~overlap|~cross|~meet|~mix|~add up|~combine|~expand] [in @tank|on the water|on a water surface|]",
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
            "@lamp [~blink|~flash|~glow|~pulse|~flicker|~light up|~twinkle] [on the wall|on a wall|on a stand|slowly|quickly|]",
            "@lamp [~go|~turn|~switch|~blink|~flash] on and off",
            "@lamp [~get|~become|~glow] [bright and dark|brighter and darker|bright, then dark]",
            "@neon [~shine [in the room|on the wall|]|~glow [in the room|on the wall|]|~light up the wall|~illuminate the room|~look bright]",
            "artificial light from @neon",
            "[light|the light] [~shine|~come|~pulse|~flash] from @neon",
            "[blinking|glowing|flashing|pulsing|flickering]@lamp",
            "[the glow|the light|the flashing] of @neon",
            "[@neon|@neon on the wall|@lamp that =blink]",
            "[~switch|~turn] @lamp on and off",
        ),
        ("@neon ~pulse, then ~go dark", "@lamp ~flash brighter and darker", "quickly_blinking@lamp"),
    ),
}
