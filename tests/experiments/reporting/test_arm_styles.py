"""How arms are told apart in figures, whatever a study compares."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.reporting.arm_styles import COLOURS, LINES, MOST, PLAIN, arm_styles, norm_style
from lightning_modules.gates.panels import FREE_COLOURS, norm_colour
from normshift import NORMS, NormSpec, register_norm


def test_every_norm_has_its_own_dash_and_marker():
    assert len({norm_style(norm)[1:] for norm in NORMS}) == len(NORMS)


def test_where_each_norm_has_one_arm_it_wears_its_norms_colour():
    shown = arm_styles({"r50-sn": {"backbone": "r50", "norm": "sn"}, "r50-bn": {"backbone": "r50", "norm": "bn"}})
    assert [style.colour for style in shown.styles.values()] == [norm_colour("sn"), norm_colour("bn")]
    assert list(shown.key) == ["r50-sn", "r50-bn"] and shown.groups == {"": ["r50-sn", "r50-bn"]}


def test_elsewhere_arms_take_colours_in_turn_and_no_two_of_a_panel_look_alike():
    shown = arm_styles({f"step{i}": {"norm": "bn", "setting": i} for i in range(MOST)})
    assert [style.colour for style in shown.styles.values()][: len(COLOURS)] == list(COLOURS)
    assert len(set(shown.styles.values())) == MOST and len(set(LINES)) == len(LINES)
    assert shown.of_row("step3") == shown.styles["step3"] and shown.of_row("bn") == PLAIN
    assert len(set(arm_styles({str(i): {} for i in range(MOST)}).styles.values())) == MOST  # nothing known of them


def test_arms_of_one_norm_share_its_colour_and_nothing_else():
    shown = arm_styles(
        {f"{norm}-b{batch}": {"norm": norm, "batch": batch} for norm in ("bn", "sn") for batch in (32, 8, 2)}
    )
    for norm in ("bn", "sn"):
        styles = [style for arm, style in shown.styles.items() if arm.startswith(norm)]
        assert {style.colour for style in styles} == {norm_colour(norm)} and len(set(styles)) == 3
        assert len({style.dash for style in styles}) == 3


def test_many_arms_are_split_where_each_panel_has_each_norm_once():
    arms = {f"{norm}-b{batch}": {"norm": norm, "batch": batch} for batch in (32, 2, 1) for norm in NORMS}
    shown = arm_styles(arms)
    assert list(shown.groups) == ["batch 32", "batch 2", "batch 1"] and not shown.left_out
    assert shown.groups["batch 2"] == [f"{norm}-b2" for norm in NORMS]
    assert list(shown.key) == list(NORMS) and shown.styles["bin-b1"] == shown.key["bin"] == shown.of_row("bin")


def test_the_backbone_is_asked_first():
    every = [(b, n, a) for b in ("r18", "r50") for n in ("bn", "sn") for a in (None, 2, 3, 4)]
    arms = {f"{b}-{n}-{a}": {"norm": n, "antialias": a, "backbone": b} for b, n, a in every}
    shown = arm_styles(arms)
    assert list(shown.groups) == ["backbone r18", "backbone r50"]  # by antialias, norms would come twice, too
    assert len({shown.styles[arm] for arm in shown.groups["backbone r50"]}) == 8


@pytest.mark.parametrize("columns", [{}, {"norm": "bn", "backbone": "r50"}])
def test_what_no_column_splits_is_cut_off(columns):
    shown = arm_styles({f"arm{i}": columns for i in range(MOST + 3)})
    assert [len(group) for group in shown.groups.values()] == [MOST] and len(shown.key) == MOST
    assert shown.left_out == [f"arm{i}" for i in range(MOST, MOST + 3)]


def lab(colour: str) -> np.ndarray:
    """A colour in CIELAB (D65), in which a distance of 2.3 is just seen (Mahy et al. 1994)."""
    gamma = np.array(to_rgb(colour))
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (
        np.cbrt(part) for part in matrix @ linear / (0.9505, 1, 1.089)
    )  # none of ours is as dark as its linear part
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def least_distance(colours) -> float:
    return min(np.linalg.norm(lab(a) - lab(b)) for i, a in enumerate(colours) for b in colours[:i])


def test_free_colours_differ_from_those_of_norms_and_from_each_other():
    assert least_distance([NORMS[norm].colour for norm in NORMS if NORMS[norm].colour] + [*FREE_COLOURS]) > 20
    assert least_distance(COLOURS) > 20 and len(COLOURS) >= MOST
    assert all(lab(colour)[0] < 80 for colour in FREE_COLOURS)  # on white


@pytest.fixture
def mynorm():
    """A norm of a user's own that names no colour."""
    register_norm(NormSpec("mynorm", "a norm", layer="torch.nn:BatchNorm2d"))
    yield "mynorm"
    NORMS._known.pop("mynorm", None)


def test_norms_without_a_colour_leave_the_others_theirs(mynorm):
    """One is registered here, two are of a plug-in that is not loaded."""
    shown = arm_styles({norm: {"norm": norm} for norm in ("bn", "mynorm", "far", "sn", "farther")}).styles
    assert [shown[norm] for norm in ("bn", "sn")] == [norm_style("bn"), norm_style("sn")]
    assert [shown[norm].colour for norm in ("mynorm", "far", "farther")] == list(FREE_COLOURS[:3])
    assert shown["mynorm"].colour == norm_colour("mynorm")  # as in figures of its gates
    arms = {f"{norm}-b{batch}": {"norm": norm, "batch": batch} for norm in ("bn", "far") for batch in (32, 8)}
    styles = arm_styles(arms).styles
    assert [styles[arm].colour for arm in arms] == [norm_colour("bn")] * 2 + [FREE_COLOURS[1]] * 2


def test_norms_of_which_none_is_known_take_colours_in_turn():
    shown = arm_styles({norm: {"norm": norm} for norm in ("far", "farther")}).styles
    assert [style.colour for style in shown.values()] == list(COLOURS[:2])
