"""The language of captions: clean English, true to its scene, held out where it says so, wide enough for strangers."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from prophy.worlds import COLOURS, EVENTS, SPLITS, sample_scenario
from prophy.worlds.language import FIRST, GRAMMARS, PLAIN, Telling
from prophy.worlds.language.clauses import STANCES, clause
from prophy.worlds.language.grammar import words_of
from prophy.worlds.language.morphology import FORMS, inflect, plural, with_articles
from prophy.worlds.language.plain import LONGEST
from prophy.worlds.language.scene import REFERENCE, VERB, kind_of
from prophy.worlds.language.scenes import SCENES
from prophy.worlds.language.visitors import FUNCTION_WORDS, HELD_OUT, WIDENING, PlainPrompt
from prophy.worlds.language.words import COLOUR_WORDS, SENTENCE_JOINTS, SETTING_OPENINGS, SETTINGS
from prophy.worlds.sample import Scenario, sample_telling

COUNT = 2000  #: captions looked at in each split
TWINS = 0.2
COLOUR_OF = {word: colour for colour, names in COLOUR_WORDS.items() for word in names.split("|")}

Tellings = Sequence[tuple[Scenario, Telling]]


@pytest.fixture(scope="module")
def tellings() -> dict[str, Tellings]:
    """Plain captions of every split; training has more, for its vocabulary."""
    counts = dict.fromkeys(SPLITS, COUNT) | {"train": 20 * COUNT}
    return {
        split: [sample_telling(seed, split, grammar=PLAIN, twins=TWINS) for seed in range(count)]
        for split, count in counts.items()
    }


@pytest.fixture(scope="module")
def vocabulary(tellings) -> frozenset[str]:
    return frozenset(word for _, telling in tellings["train"] for word in words_of(telling.text))


# --- the first generation stays ---------------------------------------------------------------------------------------

#: of 400 scenarios and two captions of each, as the first generation was trained on
FIRST_DIGESTS = {
    "train": "7e009e596c2fd5f8",
    "test": "3f8fe669a3edc57e",
    "wordings": "eb9856c8422260b7",
    "combinations": "77c9c7da163ece87",
    "parameters": "c7dbf25a96b3d3fb",
}


@pytest.mark.parametrize("split", list(SPLITS))
def test_the_first_grammar_tells_what_the_first_generation_was_trained_on(split: str):
    digest = hashlib.sha256()
    for seed in range(400):
        scenario, text = sample_scenario(seed, split)
        again = scenario.describe(np.random.default_rng([seed, 7]), split == "wordings")
        digest.update(repr(scenario).encode() + text.encode() + again.encode())
    assert digest.hexdigest()[:16] == FIRST_DIGESTS[split]


def test_the_first_grammar_says_every_colour_and_place():
    for seed in range(300):
        scenario, telling = sample_telling(seed)
        told = [(e.phenomenon, e.variant, e.place, e.colours) for e in telling.events]
        assert told == [(e.phenomenon, e.variant, e.place, e.colours) for e in scenario.events]
        assert telling.setting in (None, scenario.setting)


def test_grammars_are_found_by_their_names():
    assert {name: grammar.name for name, grammar in GRAMMARS.items()} == {"first": "first", "plain": "plain"}
    assert (GRAMMARS["first"], GRAMMARS["plain"]) == (FIRST, PLAIN)


def test_the_plain_grammar_knows_every_word_of_the_first(vocabulary):
    for split in SPLITS:
        for seed in range(1000):
            text = sample_scenario(seed, split)[1]
            assert not set(words_of(text)) - vocabulary, text


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("bounce", "bounce bounces bounce bounced bounced bouncing"),
        ("drip", "drip drips drip dripped dripped dripping"),
        ("pour", "pour pours pour poured poured pouring"),
        ("squash", "squash squashes squash squashed squashed squashing"),
        ("fly", "fly flies fly flew flew flying"),
        ("sway", "sway sways sway swayed swayed swaying"),
        ("liquefy", "liquefy liquefies liquefy liquefied liquefied liquefying"),
        ("go", "go goes go went went going"),
        ("be", "be is are was were being"),
        ("freeze", "freeze freezes freeze froze froze freezing"),
        ("overlap", "overlap overlaps overlap overlapped overlapped overlapping"),
    ],
)
def test_verbs_are_inflected(verb: str, forms: str):
    assert [inflect(verb, form) for form in FORMS] == forms.split()


def test_an_unknown_form_of_a_verb_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown form 'gerund': use one of base, third"):
        inflect("bounce", "gerund")


def test_nouns_are_put_into_the_plural():
    nouns = ("ball", "box", "glass", "block of ice", "ice lolly", "toy")
    assert [plural(noun) for noun in nouns] == ["balls", "boxes", "glasses", "blocks of ice", "ice lollies", "toys"]


def test_articles_follow_the_sound_of_the_next_word():
    assert (
        with_articles("a orange ball, an ball, a ice cube and a one") == "an orange ball, a ball, an ice cube and a one"
    )


# --- scenes -----------------------------------------------------------------------------------------------------------

KEYS = [pytest.param(key, id="-".join(key)) for key in SCENES]


def test_every_scene_of_the_worlds_has_words():
    assert set(SCENES) == {(kind.phenomenon, kind.variant) for kinds in EVENTS.values() for kind in kinds}


@pytest.mark.parametrize("key", KEYS)
def test_a_scene_can_be_told_as_act_deed_and_name_and_holds_out_acts(key: tuple[str, str]):
    scene = SCENES[key]
    assert {kind_of(saying) for saying in scene.sayings} == {"act", "deed", "name"}
    assert sum(kind_of(saying) == "act" for saying in scene.held_out) >= 2
    assert not set(scene.sayings) & set(scene.held_out)
    used = {match[3] for saying in (*scene.sayings, *scene.held_out) for match in REFERENCE.finditer(saying)}
    assert used == set(scene.things)


def test_wordings_that_are_held_out_use_only_words_that_training_uses():
    def lemmas(sayings: Sequence[str]) -> set[str]:
        plain = REFERENCE.sub(lambda m: m[1].replace("_", " "), " ".join(sayings))
        return set(re.findall("[a-z]+", VERB.sub(r"\2", plain)))

    training = lemmas([saying for scene in SCENES.values() for saying in scene.sayings] + [SENTENCE_JOINTS])
    for key, scene in SCENES.items():
        forms = {inflect(verb, form) for verb in training for form in FORMS}
        assert not lemmas(scene.held_out) - forms - {"s", "they"}, key


@pytest.mark.parametrize("key", KEYS)
def test_every_stance_can_tell_every_scene(key: tuple[str, str]):
    count = next(kind.colour_count for kind in EVENTS[key[0]] if kind.variant == key[1])
    for stance in STANCES:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            made = clause(*key, tuple(COLOURS)[:count], stance, rng, held_out=seed % 2 == 0 and stance != "order")
            assert not re.search(r"[\[\]|@$~=+_]", made.text), made.text
            assert made.colours <= set(range(count))


def test_an_unknown_scene_is_refused_by_name():
    with pytest.raises(KeyError, match="gravity"):
        clause("gravity", "apple", (), "sentence", np.random.default_rng(0))


# --- captions ---------------------------------------------------------------------------------------------------------


def test_plain_captions_are_clean_and_fit_the_model(tellings):
    for pairs in tellings.values():
        for _, telling in pairs:
            text = telling.text
            assert text == text.lower().strip(" ,")
            assert not re.search(r"\ba (?!one\b)[aeio]|\ban [^aeiou]|  | [,.]|,,|[\[\]{}|@$~=_]", f"{text} "), text
            assert 1 <= len(words_of(text)) <= LONGEST, text


def test_a_seed_gives_the_same_plain_caption_in_every_process():
    code = (
        "from prophy.worlds.sample import sample_telling; from prophy.worlds.language import PLAIN; import hashlib;"
        "texts = [repr(sample_telling(s, 'train', grammar=PLAIN, twins=0.2)) for s in range(50)];"
        "print(hashlib.sha256(' '.join(texts).encode()).hexdigest())"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]


def test_a_caption_says_the_colours_it_is_noted_to_say_and_no_others(tellings):
    left_open = 0
    for split, pairs in tellings.items():
        for scenario, telling in pairs[:COUNT]:
            said = {COLOUR_OF[word] for word in words_of(telling.text) if word in COLOUR_OF}
            assert said == {colour for event in telling.events for colour in event.colours if colour}, (split, telling)
            for event, told in zip(scenario.events, telling.events, strict=True):
                assert all(a in (None, b) for a, b in zip(told.colours, event.colours, strict=True))
            left_open += not said
    assert 0.15 < left_open / (COUNT * len(tellings)) < 0.5


def test_a_caption_names_the_setting_it_is_noted_to_say(tellings):
    named = 0
    for scenario, telling in tellings["test"]:
        if telling.setting is None:
            continue
        options = f"{SETTINGS[scenario.setting]}|{SETTING_OPENINGS[scenario.setting]}".split("|")
        text = re.sub(r"\b(a|an|the) ", "", telling.text)
        assert any(re.sub(r"\b(a|an|the) ", "", option).strip(",") in text for option in options), telling.text
        named += 1
    assert named > COUNT / 3


def test_two_events_without_a_place_are_told_from_left_to_right(tellings):
    seen = 0
    for scenario, telling in tellings["test"]:
        colours = [colour for event in telling.events for colour in event.colours]
        if len(telling.events) < 2 or len(set(colours)) < len(colours) or None in colours:
            continue
        words = words_of(telling.text)
        if "left" in words or "right" in words:
            continue
        in_order = sorted(telling.events, key=lambda event: event.place)
        said = [COLOUR_OF[word] for word in words if word in COLOUR_OF]
        assert said == [colour for event in in_order for colour in event.colours], telling.text
        assert {event.place for event in scenario.events} == {"left", "right"}
        seen += 1
    assert seen > 40


def test_two_events_with_both_places_stand_beside_their_own(tellings):
    seen = 0
    for _, telling in tellings["train"][: 4 * COUNT]:
        first = re.match(r"(?:on|at|to|in) (?:the )?(left|right)[^,]{0,10},", telling.text)
        if len(telling.events) < 2 or not first:
            continue
        other = {"left": "right", "right": "left"}[first[1]]
        if telling.text.count(f" {other}") != 1:
            continue
        before, after = telling.text.split(f" {other}")
        colours = {event.place: {c for c in event.colours if c} for event in telling.events}
        assert {COLOUR_OF[w] for w in words_of(before) if w in COLOUR_OF} == colours[first[1]], telling.text
        assert {COLOUR_OF[w] for w in words_of(after) if w in COLOUR_OF} == colours[other], telling.text
        seen += 1
    assert seen > 40


def test_every_word_is_about_the_events_that_it_helps_to_tell(tellings):
    for _, telling in tellings["train"][: 2 * COUNT]:
        words = words_of(telling.text)
        assert len(words) == len(telling.about)
        colours = {event.place: set(event.colours) for event in telling.events}
        assert {place for about in telling.about for place in about} == set(colours)
        for word, about in zip(words, telling.about, strict=True):
            if word in COLOUR_OF:
                assert any(COLOUR_OF[word] in colours[place] for place in about), telling
            if word in ("while", "beside", "alongside"):
                assert not about or len(about) == 2, telling


def test_one_scene_twice_can_be_told_as_two_of_a_kind(tellings):
    seen = 0
    for scenario, telling in tellings["train"][: 4 * COUNT]:
        kinds = [(event.phenomenon, event.variant) for event in scenario.events]
        if len(kinds) == 2 and kinds[0] == kinds[1] and all(event.number == 2 for event in telling.events):
            assert {"two", "2", "pair", "both", "couple"} & set(words_of(telling.text)), telling.text
            seen += 1
    assert seen > 100


def test_any_two_events_may_be_asked_for_one_after_the_other(tellings):
    later = re.compile(r", later | and later | and after that ")  # joints that no scene has inside
    told = [scenario.events for scenario, telling in tellings["train"] if later.search(telling.text)]
    assert all(len(events) == 2 for events in told)
    assert {event.phenomenon for events in told for event in events} == set(EVENTS)
    assert sum(all(event.phenomenon != "explosion" for event in events) for events in told) > 60


def test_twins_share_their_scene_and_half_of_them_their_colours():
    pairs = [sample_scenario(seed, twins=1.0, grammar=PLAIN)[0].events for seed in range(600)]
    pairs = [events for events in pairs if len(events) == 2]
    assert all((a.phenomenon, a.variant) == (b.phenomenon, b.variant) and a.place != b.place for a, b in pairs)
    assert 0.4 < np.mean([a.colours == b.colours for a, b in pairs]) < 0.7
    for seed in range(50):
        a, b = sample_scenario(seed, "combinations", twins=1.0)[0].events
        assert a.phenomenon != b.phenomenon


# --- held out means never seen ----------------------------------------------------------------------------------------


def test_wordings_are_new_captions(tellings):
    train = {telling.text for _, telling in tellings["train"]}
    assert not train & {telling.text for _, telling in tellings["wordings"]}


def joined(pairs_of_split: Tellings, key: tuple[str, str], thing: str) -> int:
    """How many captions of one event have one of its nouns and, right behind, a verb held out with that noun."""
    scene, nouns = SCENES[key], SCENES[key].things[thing].nouns
    pairs = [(n, v) for n in nouns.split("|") for v in scene.verbs if scene.is_held_out_pair(nouns, n, v)]
    assert len(pairs) >= 10
    found = 0
    for _, telling in pairs_of_split:
        if [(event.phenomenon, event.variant) for event in telling.events] != [key]:
            continue
        text = " ".join(words_of(telling.text))
        longest = max((n for n in nouns.split("|") if re.search(rf"\b{n}\b", text)), key=len, default=None)
        verbs = {inflect(v, "third") for n, v in pairs if n == longest and v != "start"}
        found += longest is not None and text.partition(longest)[2].split()[:1] in [[verb] for verb in verbs]
    return found


def test_training_never_joins_a_noun_and_a_verb_that_are_held_out_together(tellings):
    things = {
        ("rigid_body_motion", "wheel"): "wheel",
        ("rigid_body_motion", "crate"): "crate",
        ("elastic_motion", "ball"): "ball",
        ("explosion", "bomb"): "bomb",
    }
    assert not {key: count for key, name in things.items() if (count := joined(tellings["train"], key, name))}
    assert sum(joined(tellings["wordings"], key, name) for key, name in things.items()) > 0


# --- strangers --------------------------------------------------------------------------------------------------------


def test_prompts_of_visitors_ask_for_phenomena_and_colours_that_exist():
    assert len(WIDENING) + len(HELD_OUT) >= 120
    assert not {p.text for p in WIDENING} & {p.text for p in HELD_OUT}
    for prompt in WIDENING + HELD_OUT:
        assert all(colour in COLOURS for _, colours in prompt.events for colour in colours), prompt.text
        assert set(prompt.unshown.split()) <= set(words_of(prompt.text)), prompt.text
        assert not set(prompt.unshown.split()) & FUNCTION_WORDS, prompt.text


def test_a_prompt_for_an_unknown_phenomenon_is_refused_by_name():
    with pytest.raises(KeyError, match="unknown phenomenon 'gravity'"):
        PlainPrompt("an apple falls", "gravity").events  # noqa: B018


@pytest.mark.parametrize("prompts", [WIDENING, HELD_OUT], ids=["widening", "held out"])
def test_nineteen_of_twenty_plain_prompts_use_only_known_content_words(vocabulary, prompts: tuple[PlainPrompt, ...]):
    unknown = [p.text for p in prompts if set(p.content_words) - vocabulary]
    assert len(unknown) <= len(prompts) / 20


def test_things_that_no_world_can_show_stay_unknown(vocabulary):
    unshown = {word for prompt in WIDENING + HELD_OUT for word in prompt.unshown.split()}
    assert unshown
    assert not unshown & vocabulary
