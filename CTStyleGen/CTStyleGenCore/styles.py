"""What ``--style`` asks for: whose look each organ gets, in which proportion. Understood without torch.

    CASE                  all organs look as in that case
    CASE:0.3              the same, with a weight among the other styles asked for (1 where none is given)
    lungs=CASE:0.3        this organ alone; what is asked for an organ by name replaces what is asked for all

A case is a style in the model, by its id, or a case folder on disk (a CT with its segmentation), by its path.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from .anatomy import Anatomy
from .errors import InputError

# Quantiles of an organ's HU that its style code begins with, and those of them that networks are told, which were all
# that codes once had; denser at the ends, where vessels, fat and marrow are.
LEVELS = (0.002, *(percent / 100 for percent in range(1, 100)), 0.998)
TOLD_LEVELS = (0.002, 0.01, 0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92, 0.97, 0.99, 0.998)
SCORES, _TOLD_SCORES = ([NormalDist().inv_cdf(level) for level in levels] for levels in (LEVELS, TOLD_LEVELS))
# [TOLD_LEVELS, LEVELS]: quantiles times this are those at all LEVELS, straight between normal scores
BETWEEN = np.stack([np.interp(SCORES, _TOLD_SCORES, one) for one in np.eye(len(TOLD_LEVELS))])
Mix = dict[str, dict[str, float]]  # organ name -> case id or path -> share; the shares of an organ add up to 1


def quantiles_of(code: Sequence[float]) -> np.ndarray:
    """The HU at LEVELS of a card's code; those of before had TOLD_LEVELS alone."""
    if len(code) > len(LEVELS):
        return np.array(code[: len(LEVELS)])
    return np.array(code[: len(TOLD_LEVELS)]) @ BETWEEN


def has_style_bank(card: dict[str, Any]) -> bool:
    """Whether the model of that card takes each organ's style when it is used; others have one look."""
    return "style_codes" in card


def style_mix(card: dict[str, Any], styles: Sequence[str]) -> Mix:
    """The shares of the styles asked for, for every organ of the model; without any, of all the model's styles alike.

    Raises InputError for an unknown organ or case, a weight that is none, and for any but its own look of a model that
    has one look.
    """
    own = card["styles"]
    if not has_style_bank(card):
        _check_one_look(own, styles)
        return {}
    anatomy = Anatomy.from_json(card["anatomy"])
    for_all: dict[str, float] = {}
    by_organ: dict[str, dict[str, float]] = {}
    for style in styles:
        organ, case, weight = _parsed(style, anatomy, own)
        shares = for_all if organ is None else by_organ.setdefault(organ, {})
        shares[case] = shares.get(case, 0.0) + weight
    for_all = for_all or dict.fromkeys(own, 1.0)
    return {organ.name: _normalized(by_organ.get(organ.name, for_all)) for organ in anatomy.organs}


def without_path(style: str, card: dict[str, Any]) -> str:
    """A style asked for, as `style_mix` takes it, with a case folder's own name in place of its path."""
    if not has_style_bank(card):
        return style
    organ, case, weight = _parsed(style, Anatomy.from_json(card["anatomy"]), card["styles"])
    if case in card["styles"]:
        return style
    return (f"{organ}=" if organ else "") + Path(case).name + (f":{weight:g}" if weight != 1 else "")


def _check_one_look(own: Sequence[str], styles: Sequence[str]) -> None:
    for style in styles:
        if style not in own:
            raise InputError(
                f"The model has no style {style!r}: it was trained for {', '.join(own)}; leave --style out, "
                "or train a model for that style."
            )


def _parsed(style: str, anatomy: Anatomy, own: Sequence[str]) -> tuple[str | None, str, float]:
    """Organ (None: all), case and weight of one style asked for."""
    if style in own:  # an id may itself have "=" or ":" in it
        return None, style, 1.0
    organ, equals, rest = style.partition("=")
    name = anatomy.organ(organ).name if equals else None
    rest = rest if equals else style
    case, colon, number = rest.rpartition(":")
    if rest in own or not colon or _is_case(rest):
        return name, _known(rest, own), 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"The weight {number!r} of the style {style!r} is not possible: give a number above 0.")
    return name, _known(case, own), weight


def _is_case(path: str) -> bool:
    return bool(path) and Path(path).is_dir()


def _known(case: str, own: Sequence[str]) -> str:
    if case not in own and not _is_case(case):
        raise InputError(
            f"There is no style {case!r}: the model has {', '.join(own)}; give one of them, or a folder with a CT and "
            "its segmentation."
        )
    return case


def _normalized(shares: dict[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {case: weight / total for case, weight in shares.items()}


def told(mix: Mix) -> str:
    """The mix in words, for a file's header: "A", "A 0.3 + B 0.7", or by organ; folders by their last name alone."""
    looks = {organ: " + ".join(_share(case, share) for case, share in shares.items()) for organ, shares in mix.items()}
    if len(set(looks.values())) == 1:
        return next(iter(looks.values()))
    return "; ".join(f"{organ}: {look}" for organ, look in looks.items())


def _share(case: str, share: float) -> str:
    name = Path(case).name
    return name if share == 1 else f"{name} {share:.3g}"
