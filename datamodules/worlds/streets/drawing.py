"""The order of things: draws a scene into a canvas, from the sky to what is nearest (the painter's algorithm)."""

from datamodules.worlds.streets.canvas import NEAR, Canvas, Drawing
from datamodules.worlds.streets.scenes import Scene
from datamodules.worlds.streets.surroundings import (
    draw_backdrop,
    draw_closing_row,
    draw_ground,
    draw_island,
    draw_lot,
    draw_tree,
)
from datamodules.worlds.streets.things import (
    draw_car,
    draw_coach,
    draw_cycle,
    draw_lamp,
    draw_light,
    draw_mast,
    draw_person,
    draw_post,
    draw_rider,
    draw_sign,
    draw_truck,
)

DRAW = {
    "car": draw_car, "van": draw_car, "truck": draw_truck, "bus": draw_coach, "tram": draw_coach,
    "person": draw_person, "cyclist": draw_rider, "biker": draw_rider, "bicycle": draw_cycle, "motorcycle": draw_cycle,
    "lamp": draw_lamp, "sign": draw_sign, "light": draw_light, "post": draw_post, "mast": draw_mast, "tree": draw_tree,
}  # fmt: skip
"""How each kind of `Thing` is drawn."""

LONG = ("car", "van", "truck", "bus", "tram")
"""Things whose far end may be in view where the near one is not."""


def draw(scene: Scene, size: tuple[int, int]) -> Drawing:
    """Draw `scene` at `size` (height, width) in pixels."""
    canvas = Canvas(scene, size)
    draw_backdrop(canvas)
    draw_ground(canvas)
    if scene.end:
        draw_closing_row(canvas)
    # A plot is entered at its far end: whatever stands before that is nearer to the camera, and drawn later.
    jobs = [
        (lot.z1 + 0.5 * lot.setback, draw_lot, lot) for lot in scene.lots if canvas.in_view(lot.side * lot.edge, lot.z1)
    ]
    for thing in scene.things:
        if thing.z > NEAR + 0.7 and (thing.kind in LONG or canvas.in_view(thing.x, thing.z)):
            jobs.append((thing.z, DRAW[thing.kind], thing))
    if scene.island:
        jobs.append((sum(scene.junction) / 2, draw_island, scene))
    for _, paint, subject in sorted(jobs, key=lambda job: -job[0]):
        paint(canvas, subject)
    return canvas.finish()
