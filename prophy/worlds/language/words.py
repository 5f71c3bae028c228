"""The words that every scene shares: colours, places, settings, and how people ask for a video."""

from __future__ import annotations

#: colour -> its names, the plainest first
COLOUR_WORDS: dict[str, str] = {
    "red": "red|crimson|scarlet|ruby",
    "orange": "orange|amber|tangerine",
    "yellow": "yellow|golden|gold|lemon",
    "green": "green|emerald|lime",
    "blue": "blue|azure|navy|sapphire",
    "purple": "purple|violet|lilac",
}

SHADES = "bright|dark|light|deep|pale"

PLACES: dict[str, str] = {
    "left": "on the left|on the left side|at the left|to the left|on the left hand side|in the left half|on left side",
    "right": "on the right|on the right side|at the right|to the right|on the right hand side|in the right half|on right side",
    "centre": "in the middle|in the centre|in the center|in the middle of the [picture|screen|image|video]",
}

SETTINGS: dict[str, str] = {
    "day": "by day|in daylight|during the day|on a sunny day|in the sun|outside|outdoors|in the morning|at noon|in sunlight|in the afternoon|on a bright day|at daytime",
    "studio": "in a studio|in a bright studio|in a room|indoors|inside a room|in a lab|in a classroom|in a bright room"
    "|in studio light|at home|in a laboratory|in an empty room|in a kitchen|in a physics lab|at school",
    "dusk": "at dusk|in the evening|at sunset|at twilight|in the evening light|in the late evening|at nightfall|at sundown",
    "night": "at night|in the dark|by night|in darkness|at midnight|in a dark room|during the night|in the night|late at night|in complete darkness",
}

#: how a caption opens that names its setting at once
SETTING_OPENINGS: dict[str, str] = {
    "day": "day scene,|daylight scene,|sunny scene,",
    "studio": "studio shot,|studio scene,|studio lighting,",
    "dusk": "dusk scene,|evening scene,|sunset scene,",
    "night": "night scene,|a night scene,|night shot,",
}

#: what may come before events told as whole sentences ("a ball bounces"): in training, held out
SENTENCE_OPENINGS = (
    "a video where|a video in which|a video that shows how|a scene where|a scene in which|show how|show me how"
    "|show what happens when|see how|watch how|look how|we see how|you can see how|i want to see how|in this video"
    "|in the video|slow motion,|in slow motion|close up,|wide shot,|cinematic shot,|camera shot,|experiment,"
    "|physics experiment,|demonstration,|animation,|time lapse,|a clip where|imagine|imagine how|first scene,|a nice video where|a science video that shows how",
    "a clip in which|a clip that shows how|i want to see what happens when|look at how|in this clip",
)

#: before events told as things ("a bouncing ball"): in training, held out
PHRASE_OPENINGS = (
    "a video of|a clip of|a movie of|a film of|an animation of|video of|footage of|a shot of|a close up of|close up of"
    "|a slow motion video of|a slow motion shot of|a wide shot of|a macro shot of|a time lapse of|a scene with|a scene of"
    "|a video with|show|show me|show us|please show|please show me|can you show me|could you show me|can you make"
    "|i want|i want to see|i want a video of|i would like to see|i'd like to see|i like to see|make|make a video of"
    "|make me a video of|please make a video of|create|create a video of|generate|generate a clip of|draw|film"
    "|there is|there's|here is|here's|look at|watch|see|we see|you can see|i see|imagine|give me"
    "|an experiment with|a physics experiment with|a demonstration of|demonstrate|an example of|a simulation of|simulate"
    "|a realistic video of|a short video of|a beautiful shot of|cinematic footage of|the camera shows|the camera follows"
    "|it is|this is|there was|i wish to see|render|animate|record|display|a nice video of|a cool video of|a funny video of"
    "|a cute video of|a strange video of|a great shot of|a perfect shot of|a simple animation of|a 3d animation of"
    "|the physics of|the phenomenon of|the effect of|the process of|the principle of|a timelapse of|a closeup of|explain"
    "|a dramatic shot of|an epic shot of|an aerial view of|a cartoon of|a test of|a model of|a realistic animation of|a science video about|a lesson about|visualize|tracking shot of|high speed footage of",
    "a short film of|please create a clip of|i want to see footage of|a beautiful video of|can you make a movie of",
)

#: before events told with bare verbs ("a ball bounce"): in training, held out
CAUSING_OPENINGS = (
    "make|let|watch|see|please make|i want to see|let us see|let me see|we see",
    "please let|watch and see",
)

#: before deeds told as orders ("pour water into a glass"): in training, held out
ORDER_OPENINGS = (
    "||please|now|let's|let us|can you|could you|can you please|i want to|we|try to|first",
    "could you please",
)

#: who does the deeds: one, many
AGENTS = ("someone|somebody", "we|you|i|they|people")

#: how two sentences are joined; the first of them may lie anywhere
SENTENCE_JOINTS = ", | and |, and | while | as | and at the same time |, at the same time |. | and also |, also "
#: how two things are joined
PHRASE_JOINTS = ", | and |, and | with | plus | together with | and also "
#: how the second, on the right, is joined to the first, on the left
BESIDE_SENTENCE = ", next to it | and next to it | and beside it |, beside it |, next to that "
BESIDE_PHRASE = " next to | beside | alongside | near | close to | by the side of "
#: where two like things are, if it is said
BOTH_PLACES = (
    "|||||side by side|next to each other|beside each other|one on the left and one on the right|left and right"
)
#: how an event that comes later is joined
LATER_JOINTS = ", then | and then |, and then | before |, later | and later |, afterwards | and after that "

#: where the first of two things is, seen from the second
LEFT_OF = "to the left of|left of|on the left of"
RIGHT_OF = "to the right of|right of|on the right of"

DETERMINERS: dict[str, str] = {
    "one": "a|a|a|a|a|a|a|a|a|a|the|the|one|one|this|my",
    "mass": "||||||the|the|some|a lot of",
    "many": "|||the|some|many|several|lots of|a lot of",
    "two": "two|two|two|two|2|a pair of|both|the two|a couple of",
}

NUMBERS = frozenset({"two", "2", "pair", "both", "couple"})  #: words that say "two"

ADVERBS = "slowly|quickly|fast|gently|really fast|very slowly|again|now"
CLOSINGS = (
    "in slow motion|please|up close|for a physics class|in a video|in real time|like in real life|, cinematic lighting"
    "|, moody atmosphere|, high quality|, realistic|, photorealistic|, close up|, top view|, side view|, wide angle"
    "|, static camera|, soft light|, warm light|, beautiful colors|, detailed|, 4k|, hd|, dramatic lighting|from above"
    "|from the side|for kids|for children|for my students|for a science lesson|with a blurry background|, epic|, cartoon style"
    "|, 3d animation|, vivid colors|, vibrant|, sharp focus|, smooth|, overhead view|, front view|, aerial view|, handheld"
    "|, zoom in|, dark mood|, strong contrast|, soft shadows|, nice and slow|, very realistic|, macro|, shallow depth of field"
)
