"""Annotation: a clip and its phenomena, read by a vision-language model, become token targets::

    clip ─► clips (sample, pack) ─► vlm (prompt, positions) ─► answering (one video prefix, many questions)
                                                                   │ capture: attention of answer tokens to video tokens
             TokenTargets ◄─ maps (subtract, resample) ◄───────────┘

:class:`prophy.annotation.annotator.Annotator` runs it; what comes out, :class:`prophy.annotation.record.Annotation`, is
saved and opened again without torch.
"""
