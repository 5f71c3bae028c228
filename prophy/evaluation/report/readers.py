"""Each kind of result: what is made of its JSON, and the command that measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prophy.evaluation.report.format import (
    Body,
    Headline,
    Table,
    bare,
    headline,
    name_of,
    number,
    share,
    signed,
    verdict,
)
from prophy.evaluation.report.plots import bars, heatmap, lines


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        asks: what it answers, in a few words.
        command: that measures it, in the default work folder.
        read: its JSON and its path to what is shown. A JSON that is damaged raises a KeyError, TypeError, ValueError,
            AttributeError, IndexError, ArithmeticError or StopIteration.
    """

    asks: str
    command: str
    read: Callable[[dict, Path], Body]


def _recogniser(d: dict, path: Path) -> Body:
    del path
    rows = [(name_of(p), share(v), share(d["false_alarms"][p])) for p, v in d["recall"].items()]
    rows += [
        ("an empty stage", "–", share(d["empty_false_alarms"])),
        ("a first frame that never moves", "–", share(d["frozen_false_alarms"])),
    ]
    decoded = () if d["exact_decoded"] is None else (f"after the autoencoder: {share(d['exact_decoded'])}",)
    return Body(
        "The classifier's own error, on held-out real renders",
        (Table("", ("phenomenon", "recall", "false alarms"), tuple(rows)),),
        (
            bars(
                "On real renders",
                "%",
                {name_of(p): {"recall": v, "false alarms": d["false_alarms"][p]} for p, v in d["recall"].items()},
                100,
            ),
        ),
        notes=(f"exact: {share(d['exact'])}", *decoded),
    )


def _recognition(d: dict, path: Path) -> Body:
    del path
    score = d["score"]
    rows = [(name_of(p), share(v), share(score["unasked"][p])) for p, v in score["recall"].items()]
    rows += [
        ("one phenomenon asked for", share(score["single"]), "–"),
        ("two, both found", share(score["both"]), "–"),
        ("exactly what was asked for", share(score["exact"]), "–"),
    ]
    rows += [(f"{kind}: everything asked for", share(v), "–") for kind, v in score["by_wording"].items()]
    branch = "with the branch" if d["branch"] else "backbone alone"
    exact = f"the classifier is exact on {share(d['classifier_exact'])} of held-out real renders"
    return Body(
        f"Recognition of held-out prompts, {branch}",
        (Table("", ("recognised", "share (95 %)", "where not asked for"), tuple(rows)),),
        (
            bars(
                "Recognised, by phenomenon",
                "%",
                {
                    name_of(p): {"where asked for": v, "where not asked for": score["unasked"][p]}
                    for p, v in score["recall"].items()
                },
                100,
            ),
        ),
        (
            headline(f"one phenomenon recognised, {branch}", share(score["single"]), exact),
            headline(f"two recognised, {branch}", share(score["both"]), exact),
        ),
        notes=(
            f"{len(d['verdicts'])} prompts, {d['steps']} steps, guidance {d['guidance']}",
            exact,
        ),
        weights={"model": d["model_sha256"]},
    )


def _localisation(d: dict, path: Path) -> Body:
    del path
    levels = d["levels"]
    head = ("token AP (95 %)", *(f"noise {level['noise']}" for level in levels))
    over = [(name, *(number(level["scores"][name]["ap"]) for level in levels)) for name in levels[0]["scores"]]
    tables = [Table("", head, tuple(over))]
    for level in levels:
        rows = [
            (
                name,
                number(s["ap"]),
                number(s["energy"]),
                number(s["pointing"]),
                number(s["apart"]),
                number(s["ap_pooled"]),
            )
            for name, s in level["scores"].items()
        ]
        head = ("map", "token AP (95 %)", "energy / area", "pointing", "two told apart", "AP pooled")
        tables.append(Table(f"noise {level['noise']}", head, tuple(rows)))
    by_noise = {
        name: ([level["noise"] for level in levels], [level["scores"][name]["ap"] for level in levels])
        for name in levels[0]["scores"]
    }
    pooled = {
        name: (by_noise[name][0], [level["scores"][name]["ap_pooled"] for level in levels])
        for name in levels[0]["scores"]
    }
    first = next(iter(levels[0]["scores"]))
    own = levels[0]["scores"][first]["ap_by_phenomenon"]
    middle, last = min(levels, key=lambda level: abs(level["noise"] - 0.5)), levels[-1]
    controls = [name for name in ("image-free control", "uniform") if name in middle["scores"]]
    beside = ", ".join(f"{name} {bare(number(middle['scores'][name]['ap']))}" for name in controls)
    per = tuple(
        (name_of(p), *(number(level["scores"][first]["ap_by_phenomenon"].get(p)) for level in levels)) for p in own
    )
    tables.append(Table(f"{first}, token AP by phenomenon", ("phenomenon", *(str(x["noise"]) for x in levels)), per))
    use = tuple(
        (str(e), share(a), share(b)) for e, (a, b) in enumerate(zip(d["use"]["topk"], d["use"]["top1"], strict=True))
    )
    tables.append(Table("use of the experts", ("expert", "of all assignments", "of first choices"), use))
    semantic = tuple((name_of(p), number(v), number(d["semantic_auc_head"][p])) for p, v in d["semantic_auc"].items())
    tables.append(Table("semantic router, AUC", ("phenomenon", "linear reading", "coarse head as it is"), semantic))
    gain = last["map_minus_image_free"]
    against = (
        ()
        if gain is None
        else (
            headline(f"map minus image-free control, token AP at noise {last['noise']}", signed(gain), verdict(gain)),
        )
    )
    return Body(
        "Localisation: does the routing find the physics",
        tuple(tables),
        (
            lines("Token average precision", "AP", "noise", by_noise),
            lines("The same, pooled over clips", "AP, pooled", "noise", pooled),
            bars(
                f"{first}, by phenomenon",
                "token AP",
                {
                    name_of(p): {
                        f"noise {level['noise']}": level["scores"][first]["ap_by_phenomenon"].get(p) for level in levels
                    }
                    for p in own
                },
            ),
            bars(
                "Use of the experts",
                "%",
                {
                    str(e): {"of all assignments": a, "of first choices": b}
                    for e, (a, b) in enumerate(zip(d["use"]["topk"], d["use"]["top1"], strict=True))
                },
                100,
            ),
        ),
        (
            headline(
                f"localisation, token AP at noise {middle['noise']}", number(middle["scores"][first]["ap"]), beside
            ),
            *against,
        ),
        notes=(f"{d['clips']} clips of the {d['split']} split; experts matched on {d['matched_on']}",),
        weights={"model": d["model_sha256"]},
    )


def _flow(d: dict, path: Path) -> Body:
    del path
    tables, plots = [], []
    for title, which in (("whole latent", "everywhere"), ("where the phenomena are", "acting")):
        names = list(d["levels"][0][which])
        rows = [(name, *(number(level[which][name]["loss"]["value"], 5) for level in d["levels"])) for name in names]
        rows += [
            (f"{name} minus backbone", *(signed(level[which][name]["difference"], 5) for level in d["levels"]))
            for name in names[1:]
        ]
        if which in d["levels"][0]["branch_minus_control"]:
            rows.append(
                ("branch minus control", *(signed(level["branch_minus_control"][which], 5) for level in d["levels"]))
            )
        tables.append(Table(title, ("flow loss", *(f"noise {x['noise']}" for x in d["levels"])), tuple(rows)))
        gains = {f"noise {level['noise']}": _gains(level, which) for level in d["levels"]}
        plots.append(bars(f"Flow loss, {title}: negative is better", "difference", gains))
    middle = min(d["levels"], key=lambda level: abs(level["noise"] - 0.5))
    headlines = tuple(
        headline(
            f"flow loss, {compared}, noise {middle['noise']}", signed(gain, 5), verdict(gain, lower_is_better=True)
        )
        for compared, gain in list(_gains(middle, "everywhere").items())[-1:]
    )
    return Body(
        "Flow loss on held-out clips",
        tuple(tables),
        tuple(plots),
        headlines,
        notes=(f"{d['clips']} clips of the {d['split']} split", f"control: {d['control']}"),
        weights={"model": d["model_sha256"]},
    )


def _gains(level: dict, which: str) -> dict[str, dict]:
    """Differences of the flow loss at one noise level."""
    gains = {f"{name} minus backbone": part["difference"] for name, part in level[which].items() if part["difference"]}
    if which in level["branch_minus_control"]:
        gains["branch minus control"] = level["branch_minus_control"][which]
    return gains


def _laws(d: dict, path: Path) -> Body:
    del path
    tables, plots, over = [], [], []
    obeyed = {split: {name: c["obeyed"] for name, c in columns.items()} for split, columns in d["scores"].items()}
    plots.append(bars("Laws obeyed, mean over laws", "%", obeyed, 100))
    for split, columns in d["scores"].items():
        laws = next(iter(columns.values()))["by_law"]
        rows = [(law, *(share(c["by_law"][law]["obeyed"]) for c in columns.values())) for law in laws]
        over += [
            (f"{split}: laws obeyed", *(share(c["obeyed"]) for c in columns.values())),
            (f"{split}: law error", *(number(c["error"]) for c in columns.values())),
            (f"{split}: scenes without a track", *(share(c["lost"]) for c in columns.values())),
            (f"{split}: error minus backbone", *(signed(c["minus_backbone"]) for c in columns.values())),
            (f"{split}: laws mended", *(share(c["mended"]) for c in columns.values())),
            (f"{split}: laws broken", *(share(c["broken"]) for c in columns.values())),
        ]
        tables.append(Table(f"{split}: laws obeyed", ("law", *columns), tuple(rows)))
        by_law = {law: {name: c["by_law"][law]["error"] for name, c in columns.items()} for law in laws}
        plots.append(bars(f"{split}: law error, a lost track is 1", "error", by_law))
    split, columns = next(iter(d["scores"].items()))
    *others, ours = columns
    beside = ", ".join(f"{name} {bare(share(columns[name]['obeyed']))}" for name in others)
    heads = [headline(f"laws obeyed, {ours}", share(columns[ours]["obeyed"]), beside)]
    if (gain := columns[ours]["minus_backbone"]) is not None:
        heads.append(headline(f"law error, {ours} minus backbone", signed(gain), verdict(gain, lower_is_better=True)))
    return Body(
        "Laws: do the clips obey the physics they show",
        (Table("", ("mean over laws", *columns), tuple(over)), *tables),
        tuple(plots),
        tuple(heads),
        notes=(
            f"{d['clips']} clips of each split; a lost track counts as a failure; mended: the backbone's clip from the "
            "same noise breaks the law, this one obeys it; broken: the reverse",
        ),
        weights=dict(d["model_sha256"]),
    )


def _vbench(d: dict, path: Path) -> Body:
    del path
    rows = tuple((name, share(v), share(d["normalised"][name])) for name, v in d["raw"].items())
    return Body(
        "VBench quality",
        (Table("", ("dimension", "raw", "normalised"), (*rows, ("quality", "–", share(d["quality"])))),),
        (
            bars(
                "VBench",
                "%",
                {name: {"raw": v, "normalised": d["normalised"][name]} for name, v in d["raw"].items()},
                100,
            ),
        ),
        (headline("VBench quality", share(d["quality"]), f"{d['videos']} videos"),),
        notes=(f"{d['videos']} videos",),
    )


def _videophy2(d: dict, path: Path) -> Body:
    name = path.stem.removeprefix("videophy2-")
    parts = {"ALL": d["everything"], "HARD": d["hard"]}
    if "protocol" not in d:
        rows = tuple((kind, *(signed(part[m], 4) for m in ("pc", "sa", "joint"))) for kind, part in parts.items())
        return Body(
            f"VideoPhy2, paired: {name}",
            (Table("", ("prompts", "PC", "SA", "Joint"), rows),),
            (bars(f"VideoPhy2, {name}", "difference, %", _subsets(parts), 100),),
            (
                headline(
                    f"VideoPhy2 Joint, {name}",
                    signed(d["everything"]["joint"], 4),
                    verdict(d["everything"]["joint"]),
                ),
            ),
            weights={"first": d["model_sha256"][0], "second": d["model_sha256"][1]},
        )
    rows = tuple(
        (kind, share(p["pc"]), share(p["sa"]), share(p["joint"]), f"{p['unscored_pc']}, {p['unscored_sa']}")
        for kind, p in parts.items()
    )
    protocol = d["protocol"]
    return Body(
        f"VideoPhy2: {name}",
        (Table("", ("prompts", "PC (95 %)", "SA (95 %)", "Joint (95 %)", "unscored PC, SA"), rows),),
        (bars(f"VideoPhy2, {name}", "% of videos", _subsets(parts), 100),),
        (headline(f"VideoPhy2 Joint, {name}", share(d["everything"]["joint"]), f"judge {d['judge']}"),),
        notes=(
            f"judge {d['judge']}; prompt set {protocol['prompts_sha256']}; text {protocol['text_field']}; "
            f"n={protocol['prompts']}; seed {protocol['seed']}; branch {'on' if protocol['branch'] else 'off'}",
            "numbers of other papers do not compare: other judges, captions and prompt files",
        ),
        weights={"model": protocol["model_sha256"]},
    )


def _subsets(parts: dict[str, dict]) -> dict[str, dict[str, dict]]:
    return {measure: {kind: p[measure.lower()] for kind, p in parts.items()} for measure in ("PC", "SA", "Joint")}


def _segmenter(d: dict, path: Path) -> Body:
    del path
    rows = tuple((name_of(p), share(v)) for p, v in d["overlap"].items())
    return Body(
        "The segmenter's own error, on held-out real renders",
        (Table("", ("phenomenon", "overlap of tokens (95 %)"), rows),),
        (bars("Overlap on real renders", "%", {name_of(p): {"overlap": v} for p, v in d["overlap"].items()}, 100),),
        notes=(
            f"token AP {number(d['ap'])}; missed altogether {share(d['missed'])}; "
            f"tokens marked of what is not there {share(d['alarms'])}",
        ),
    )


def _generated_localisation(d: dict, path: Path) -> Body:
    del path
    names = list(d["steps"][0]["scores"])
    rows = [(f"step {s['step']}", *(number(s["scores"][name]["ap"]) for name in names)) for s in d["steps"]]
    head = ("token AP (95 %)", *names)
    last = d["steps"][-1]["scores"] | d["baselines"]
    at_end = tuple(
        (name, number(s["ap"]), number(s["energy"]), number(s["pointing"]), number(s["apart"]))
        for name, s in last.items()
    )
    by_step = {name: ([s["step"] for s in d["steps"]], [s["scores"][name]["ap"] for s in d["steps"]]) for name in names}
    return Body(
        "Localisation while a video is being made, masks by the segmenter",
        (
            Table("last step", ("map", "token AP (95 %)", "energy / area", "pointing", "two told apart"), at_end),
            Table("", head, tuple(rows)),
        ),
        (lines("Token average precision by denoising step", "AP", "step", by_step),),
        (
            headline(
                f"localisation in generated clips, token AP at step {d['steps'][-1]['step']}",
                number(last[names[0]]["ap"]),
                ", ".join(f"{name} {bare(number(score['ap']))}" for name, score in d["baselines"].items()),
            ),
        ),
        notes=(
            f"{d['clips']} clips; the segmenter's token AP on held-out renders is {number(d['segmenter_ap'])}; "
            f"it sees nothing of {d['without_tokens']} of {d['asked']} phenomena asked for",
        ),
        weights={"model": d["model_sha256"]},
    )


def _correlation(d: dict, path: Path) -> Body:
    del path
    names = [name_of(p) for p in d["phenomena"]]
    rows = tuple(
        (f"{names[i]} – {names[j]}", signed(d["logits"][i][j], 2), signed(d["labels"][i][j], 2))
        for i in range(len(names))
        for j in range(i)
    )
    values = [[cell["value"] for cell in row] for row in d["logits"]]
    return Body(
        "Figure 6: correlation of semantic logits between phenomena",
        (Table("", ("phenomena", "semantic logits (95 %)", "label vectors"), rows),),
        (heatmap("semantic logits", names, values), heatmap("label vectors", names, d["labels"])),
        (
            Headline(
                "figure 6: do the semantic logits follow the labels",
                signed(d["agreement"], 2),
                f"{d['prompts']} prompts",
                "near 1, they only repeat the labels",
            ),
        ),
        notes=(
            f"{d['prompts']} prompts; Pearson correlation of the two tables {number(d['agreement'], 2)}: "
            "near 1, the router only repeats what the labels say already",
        ),
        weights={"model": d["model_sha256"]},
    )


def _expert_maps(d: dict, path: Path) -> Body:
    del path
    tables = []
    for prompt, frames in zip(d["prompts"], d["shares"], strict=True):
        rows = tuple((f"expert {e}", *(share(frame[e]) for frame in frames)) for e in range(len(frames[0])))
        header = ("share of tokens", *(f"latent frame {t}" for t in range(len(frames))))
        tables.append(Table(prompt, header, rows))
    return Body(
        "Figure 7: where each refinement expert acts",
        tuple(tables),
        weights={"model": d["model_sha256"]},
        pictures=tuple(d["pictures"]),
        headline=0,
    )


def _inversion(d: dict, path: Path) -> Body:
    del path
    pixels, minus = _levels(d["pixels"]), _levels(d["inverted_minus"])
    rows = [(name, number(v), number(d["routing"][name])) for name, v in pixels.items()]
    rows += [(f"inverted minus {name}", signed(v), "–") for name, v in minus.items()]
    inverted, *controls = pixels
    beside = ", ".join(f"{name} {bare(number(pixels[name]))}" for name in controls)
    unseen = "; less than one level: nothing to see" if pixels[inverted]["value"] < 1 else ""
    return Body(
        "Figure 8: expert inversion",
        (Table("", ("change", "pixels, levels of 255 (95 %)", "routing, bits (95 %)"), tuple(rows)),),
        (
            bars("Change of the clip", "levels of 255", {name: {"change": v} for name, v in pixels.items()}),
            bars("Change of the routing", "bits", {name: {"change": v} for name, v in d["routing"].items()}),
        ),
        (headline("figure 8: inversion changes a pixel by, of 255 levels", number(pixels[inverted]), beside + unseen),),
        notes=(f"{len(d['prompts'])} prompts; the controls change every token's logits as much, at random",),
        weights={"model": d["model_sha256"]},
        pictures=tuple(d["pictures"]),
    )


def _levels(intervals: dict[str, dict]) -> dict[str, dict]:
    """Differences of pixels from 0 to 1, in levels of 255."""
    return {
        name: {"n": v["n"], **{part: 255 * v[part] for part in ("value", "low", "high")}}
        for name, v in intervals.items()
    }


def _ablation(d: dict, path: Path) -> Body:
    del path
    tables = [
        Table(
            evaluation,
            ("recipe", *measures),
            tuple(
                (
                    f"{name} ({d['runs'][name]} {'run' if d['runs'][name] == 1 else 'runs'})",
                    *(_measured(measure, row[measure]) for measure in measures),
                )
                for name, row in d["rows"].items()
            ),
        )
        for evaluation, measures in d["measures"].items()
    ]
    notes = ["one run: its interval over clips; several: the mean, its interval over seeds (n of them)"]
    if d["training"]:
        rows = tuple(
            (name, str(t["steps"]), str(t["batch"]), f"{t['parameters']:,}", number(t["seconds_per_step"], 2))
            for name, t in d["training"].items()
        )
        tables.append(Table("training", ("recipe", "steps", "clips a step", "parameters", "seconds a step"), rows))
        notes.append(
            "equal compute here means as many steps of as many clips, from the same start; a step without a branch is "
            "cheaper, see seconds a step (median)"
            if d["equal"]
            else "the rows were not trained alike: see steps and clips a step, and each run's run.json"
        )
    notes += [
        f"{name}: {measure} missing in {n} of {d['runs'][name]} runs"
        for name, m in d["unmeasured"].items()
        for measure, n in m.items()
        if n < d["runs"][name]
    ]
    return Body(
        "Ablation",
        tuple(tables),
        tuple(
            bars(m, "", {name: {m: row[m]} for name, row in d["rows"].items()})
            for measures in d["measures"].values()
            for m in measures
        ),
        notes=tuple(notes),
        headline=len(tables),
    )


def _measured(measure: str, interval: dict | None) -> str:
    digits = 5 if measure.startswith("flow") else 3  # a thousandth of the flow loss is much
    return (signed if "minus" in measure else number)(interval, digits)


def _annotation(d: dict, path: Path) -> Body:
    del path
    head = ("token AP (95 %)", "energy / area", "pointing", "two told apart")

    def rows(scores: dict[str, dict]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (name, number(s["ap"]), *(number(s[m]["value"]) for m in ("energy", "pointing", "apart")))
            for name, s in scores.items()
        )

    scores, by_phenomenon = d["scores"], {name_of(p): s for p, s in d["by_phenomenon"].items()}
    controls = [name for name in ("targets of a phenomenon not shown", "centre prior", "uniform") if name in scores]
    said = tuple((question, text) for answers in d["answers"] for question, text in answers.items())
    return Body(
        "Annotation: do a vision-language model's targets find the physics",
        (
            Table("", ("map", *head), rows(scores)),
            Table("targets, by phenomenon", ("phenomenon", *head), rows(by_phenomenon)),
            Table("what the model said", ("question", "answer"), said),
        ),
        (
            bars("Every map", "token AP", {name: {"AP": s["ap"]} for name, s in scores.items()}),
            bars("Targets, by phenomenon", "token AP", {name: {"AP": s["ap"]} for name, s in by_phenomenon.items()}),
        ),
        (
            headline(
                "annotation targets, token AP",
                number(scores["targets"]["ap"]),
                ", ".join(f"{name} {bare(number(scores[name]['ap']))}" for name in controls),
            ),
        ),
        notes=(
            f"{d['clips']} clips of the {d['split']} split; {d['model']}, decoder layers "
            f"{', '.join(map(str, d['layers']))}; something was said to {share(d['share_answered'])} of the questions",
        ),
    )


def _data(d: dict, path: Path) -> Body:
    del path
    rows = [(one["name"], one["split"], str(one["clips"]), one["sha256"]) for one in d["sets"]]
    rows += [(name, "trained judge", "–", digest) for name, digest in d["judges_sha256"].items()]
    return Body("Data and judges", (Table("", ("folder or file", "split", "clips", "SHA-256"), tuple(rows)),))


#: file name (or its beginning, before a dash) -> what it is, in the report's order
KINDS: dict[str, Kind] = {
    "laws": Kind("do the clips obey the physics they show", "prophy evaluate laws", _laws),
    "recognition": Kind("do the clips show what was asked for", "prophy evaluate recognition", _recognition),
    "recogniser": Kind("how wrong is the classifier itself", "prophy evaluate recogniser", _recogniser),
    "localisation": Kind("does the routing find the physics", "prophy evaluate localisation", _localisation),
    "generated-localisation": Kind(
        "does it while a video is being made", "prophy evaluate generated-localisation", _generated_localisation
    ),
    "segmenter": Kind("how wrong is the segmenter itself", "prophy evaluate segmenter", _segmenter),
    "flow": Kind("does the branch lower the flow loss", "prophy evaluate flow --control DIR", _flow),
    "correlation": Kind(
        "figure 6: do related phenomena get related logits", "prophy evaluate figures --figure 6", _correlation
    ),
    "expert-maps": Kind("figure 7: where does each expert act", "prophy evaluate figures --figure 7", _expert_maps),
    "inversion": Kind("figure 8: what does inversion change", "prophy evaluate figures --figure 8", _inversion),
    "annotation": Kind(
        "do annotated targets find the physics",
        "prophy evaluate annotation --vlm DIR",
        _annotation,
    ),
    "ablation": Kind("what does each part add", "prophy evaluate ablation-runs --work runs/ablation", _ablation),
    "videophy2": Kind("VideoPhy2", "prophy evaluate videophy2 score …", _videophy2),
    "vbench": Kind("VBench quality", "prophy evaluate vbench JSON …", _vbench),
    "data": Kind("which data and judges", "prophy evaluate report runs/tiny", _data),
}
