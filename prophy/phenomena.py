"""The 17 WISA-80K phenomena: the one list every label, mask and expert map in ProPhy is ordered by.

The order is part of every saved file. A file carries :data:`VERSION`; a reader refuses another one.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "wisa-17-v1"  #: of the list of phenomena; saved beside whatever has a row or a column for each
FAMILIES = ("dynamics", "thermodynamics", "optics")  #: of phenomena


@dataclass(frozen=True)
class Phenomenon:
    """One physical phenomenon.

    Attributes:
        index: position in :data:`PHENOMENA` and in every label vector.
        id: identifier used in files and code, ``snake_case``.
        name: name shown to people and to the vision-language model.
        family: one of :data:`FAMILIES`.
        colour: ``#rrggbb`` used in overlays and plots; seen on light, dark and grey pictures.
    """

    index: int
    id: str
    name: str
    family: str
    colour: str

    @property
    def question(self) -> str:
        """What the vision-language model is asked to localise this phenomenon (paper, section 3.3)."""
        return f"Describe the {self.name} phenomenon in the video."


_TABLE = (
    ("collision", "collision", "dynamics", "#0072b2"),
    ("rigid_body_motion", "rigid body motion", "dynamics", "#56b4e9"),
    ("elastic_motion", "elastic motion", "dynamics", "#009e73"),
    ("liquid_motion", "liquid motion", "dynamics", "#2f4b9f"),
    ("gas_motion", "gas motion", "dynamics", "#8e5fd0"),
    ("deformation", "deformation", "dynamics", "#8dd35f"),
    ("melting", "melting", "thermodynamics", "#cc79a7"),
    ("solidification", "solidification", "thermodynamics", "#6f83f0"),
    ("vaporization", "vaporization", "thermodynamics", "#59cdbf"),
    ("liquefaction", "liquefaction", "thermodynamics", "#117a8b"),
    ("combustion", "combustion", "thermodynamics", "#d55e00"),
    ("explosion", "explosion", "thermodynamics", "#e8290b"),
    ("reflection", "reflection", "optics", "#f0e442"),
    ("refraction", "refraction", "optics", "#e69f00"),
    ("scattering", "scattering", "optics", "#a8861f"),
    ("interference_and_diffraction", "interference and diffraction", "optics", "#7b3294"),
    ("unnatural_light_source", "unnatural light source", "optics", "#ff7ac8"),
)

#: all of them, in the order of their rows and columns
PHENOMENA: tuple[Phenomenon, ...] = tuple(Phenomenon(index, *row) for index, row in enumerate(_TABLE))
BY_ID: dict[str, Phenomenon] = {phenomenon.id: phenomenon for phenomenon in PHENOMENA}
IDS: tuple[str, ...] = tuple(BY_ID)


def by_id(phenomenon_id: str) -> Phenomenon:
    """Look a phenomenon up by its id.

    Raises:
        KeyError: no such id; the message lists the known ones.
    """
    try:
        return BY_ID[phenomenon_id]
    except KeyError:
        raise KeyError(f"unknown phenomenon {phenomenon_id!r}: use one of {', '.join(IDS)}") from None
