"""Kitchen fixtures in the kitchen's frame: x towards the wall, y to the left, z up.

x = 0 is the front edge of the counter and z = 0 is the floor. Each function adds one unit around
its centre line ``y``. Tasks find sites and joints by their names.
"""

import math

from z1_ros.sim.kitchen.mjcf import Body, Contact, Pair, Triple

COUNTER_Z = 0.92
"""Height of the counter [m]."""
DEPTH = 0.65
"""Depth of the counter, which is the x of the wall [m]."""
_SLAB = 0.04
_FACE = 0.02  # x of the cabinet fronts, behind the counter's edge
_TOE = 0.10  # height of the toe kick
_GAP = 0.004  # gap between neighbouring fronts
DRAWER_TRAVEL = 0.26
"""Travel of a drawer [m]."""


def counter_slab(world: Body, x: Pair, y: Pair) -> None:
    """Add a counter top that covers the ranges x and y [m]."""
    world.block(x, y, (COUNTER_Z - _SLAB, COUNTER_Z), "counter", "surface")


def _carcass(world: Body, y: Pair, top: float = COUNTER_Z - _SLAB) -> None:
    """Add a base cabinet's body behind the fronts up to ``top``, and its toe kick."""
    world.block((_FACE + 0.02, DEPTH), y, (_TOE, top), "cabinet_trim", "fixture")
    world.block((0.08, DEPTH), y, (0, _TOE), "toe_kick")


def _front(body: Body, y: Pair, z: Pair, contact: Contact = None) -> None:
    """Add a cabinet front: a panel with a shaker groove."""
    cy, cz = (y[0] + y[1]) / 2, (z[0] + z[1]) / 2
    hy, hz = (y[1] - y[0]) / 2 - _GAP / 2, (z[1] - z[0]) / 2 - _GAP / 2
    body.panel((_FACE + 0.010, cy, cz), (0.010, hy, hz), "cabinet", contact)
    rim = min(0.045, hz * 0.35)
    # The layers are thin, because larger steps cause aliasing in small images.
    body.panel((_FACE - 0.0002, cy, cz), (0.0005, hy - rim, hz - rim), "cabinet_trim")
    body.panel((_FACE - 0.0007, cy, cz), (0.0005, hy - rim - 0.008, hz - rim - 0.008), "cabinet")


def bar_handle(body: Body, pos: Triple, length: float) -> None:
    """Add a vertical bar handle in front of a cabinet front; ``pos`` is the bar's centre."""
    x, y, z = pos
    half = length / 2
    body.box(pos, (0.008, 0.009, half), "handle", "fixture", friction=(1.5, 0.02, 0.0001),
             solref=(0.012, 1))  # fmt: skip
    for end in (z - half + 0.016, z + half - 0.016):
        body.rod((x, y, end), (_FACE, y, end), 0.007, "handle")


def drawers(world: Body, y: float, width: float, handle: float) -> None:
    """Add a counter over two drawers with handles of length ``handle`` [m], and two doors below.

    The joints are ``drawer_left`` and ``drawer_right``.
    """
    split, top, inside = 0.66, COUNTER_Z - _SLAB - 0.006, (_FACE + 0.02, DEPTH)
    whole = (y - width / 2, y + width / 2)
    counter_slab(world, (0, DEPTH), whole)
    _carcass(world, whole, split)
    for edge in (y - width / 2 + 0.009, y, y + width / 2 - 0.009):
        world.block(inside, (edge - 0.009, edge + 0.009), (split, top + 0.006), "cabinet_trim")
    world.block((DEPTH - 0.03, DEPTH - 0.01), whole, (split, top), "toe_kick")
    for side, sign in (("left", 1), ("right", -1)):
        span = _half(y, width, sign)
        _drawer(world, f"drawer_{side}", span, (split, top), handle)
        _front(world, span, (_TOE + 0.01, split))
        bar_handle(world, (_FACE - 0.04, y + sign * 0.05, split - 0.12), 0.14)


def _half(y: float, width: float, sign: int) -> Pair:
    """Return the left (1) or right (-1) half of a unit as a y range [m]."""
    return (y, y + width / 2) if sign > 0 else (y - width / 2, y)


def _drawer(world: Body, name: str, y: Pair, z: Pair, handle: float) -> None:
    cy, cz = (y[0] + y[1]) / 2, (z[0] + z[1]) / 2
    body = world.body(name)
    body.joint(name, "slide", (-1, 0, 0), range=(0, DRAWER_TRAVEL), damping=12, frictionloss=2)
    body.add("inertial", pos=(0.2, cy, cz), mass=2.5, diaginertia=(0.1, 0.1, 0.1))
    _front(body, y, z, "fixture")
    near, far, low, high = _FACE + 0.02, _FACE + 0.41, z[0] + 0.015, z[0] + 0.12
    left, right = y[1] - 0.024, y[0] + 0.024
    body.block((near, far), (right, left), (low, low + 0.01), "inside")
    for edge in (left, right):
        body.block((near, far), (edge - 0.006, edge + 0.006), (low, high), "inside")
    body.block((far - 0.012, far), (right, left), (low, high), "inside")
    grip = (_FACE - 0.048, cy, cz)
    bar_handle(body, grip, handle)
    body.site(f"{name}_handle", grip)


def sink(
    world: Body, y: float, width: float, basin: Triple, lever_side: int, lever_length: float
) -> None:
    """Add a sink with spout and lever; the joints are ``faucet_handle`` and ``spout``.

    Args:
        world: World body.
        y: Centre line of the basin [m].
        width: Width of the unit [m]; the counter covers the area around the basin.
        basin: x of the basin's front edge, x of its back edge, and its half-width [m].
        lever_side: 1: the lever is to the left of the spout; -1: to the right.
        lever_length: Length of the lever [m].
    """
    x0, x1, hy = basin
    counter_slab(world, (0, x0), (y - hy, y + hy))
    counter_slab(world, (x1, DEPTH), (y - hy, y + hy))
    counter_slab(world, (0, DEPTH), (y + hy, y + width / 2))
    counter_slab(world, (0, DEPTH), (y - width / 2, y - hy))
    _carcass(world, (y - width / 2, y + width / 2), COUNTER_Z - 0.20)
    for edge in (y - width / 2 + 0.009, y + width / 2 - 0.009):
        side = (edge - 0.009, edge + 0.009)
        world.block((_FACE + 0.02, DEPTH), side, (0.70, COUNTER_Z - _SLAB), "cabinet_trim")
    depth, thick = 0.17, 0.008
    cx, hx, rim = (x0 + x1) / 2, (x1 - x0) / 2, COUNTER_Z + 0.004
    floor = COUNTER_Z - depth
    world.box((cx, y, floor - thick), (hx, hy, thick), "basin_dark", "surface")
    middle, half = (floor - thick + rim) / 2, (rim - floor + thick) / 2
    for sign in (-1, 1):
        world.box((cx, y + sign * (hy - thick), middle), (hx, thick, half), "basin", "surface")
        world.box((cx + sign * (hx - thick), y, middle), (thick, hy - 2 * thick, half), "basin",
                  "surface")  # fmt: skip
    world.rod((cx, y, floor), (cx, y, floor + 0.003), 0.035, "steel")
    world.rod((cx, y, floor + 0.003), (cx, y, floor + 0.004), 0.022, "black")
    world.site("sink_inside", (cx, y, COUNTER_Z - depth / 2), (hx, hy, depth / 2))
    _spout(world, (x1 + 0.045, y))
    _lever(world, (x1 + 0.045, y + lever_side * 0.085), lever_side, lever_length)
    _doors(world, y, width)


def _spout(world: Body, foot: Pair) -> None:
    x, y = foot
    world.rod((x, y, COUNTER_Z), (x, y, COUNTER_Z + 0.02), 0.028, "steel")
    body = world.body("spout", (x, y, COUNTER_Z))
    body.joint("spout", "hinge", (0, 0, 1), range=(-1.57, 1.57), damping=2)
    body.add("inertial", pos=(-0.05, 0, 0.15), mass=0.5, diaginertia=(0.002, 0.002, 0.002))
    body.rod((0, 0, 0.02), (0, 0, 0.24), 0.012, "steel", "fixture", kind="capsule")
    body.rod((0, 0, 0.24), (-0.10, 0, 0.255), 0.011, "steel", "fixture", kind="capsule")
    body.rod((-0.10, 0, 0.255), (-0.125, 0, 0.215), 0.011, "steel", kind="capsule")
    body.rod((-0.125, 0, 0.205), (-0.125, 0, 0.05), 0.008, "water", name="water")


def _lever(world: Body, pivot: Pair, side: int, length: float) -> None:
    """Add the lever: it points away from the spout; pushing it towards the wall opens it."""
    x, y = pivot
    height = 0.085
    world.rod((x, y, COUNTER_Z), (x, y, COUNTER_Z + height - 0.012), 0.020, "steel", "fixture")
    body = world.body("faucet_handle", (x, y, COUNTER_Z + height))
    # Pushing the tip towards +x turns a left lever clockwise and a right one anticlockwise.
    body.joint("faucet_handle", "hinge", (0, 0, -side), range=(0, 1.2), damping=0.4,
               frictionloss=0.12, armature=0.005)  # fmt: skip
    body.add("inertial", pos=(0, side * length / 2, 0), mass=0.25, diaginertia=(1e-3,) * 3)
    body.rod((0, 0, -0.012), (0, 0, 0.014), 0.023, "lever")
    middle = (0, side * (length / 2 + 0.008), 0.002)
    body.box(middle, (0.010, length / 2, 0.013), "lever", "fixture", solref=(0.012, 1))
    body.rod((0, side * length, -0.014), (0, side * length, 0.019), 0.016, "lever")
    body.site("faucet_lever", (0, side * length * 0.8, 0))


def microwave(world: Body, pos: Pair, width: float, height: float) -> None:
    """Add a microwave on the counter; ``pos`` is x of its front and y of its centre [m].

    The joints are ``microwave_door``, ``microwave_start`` and ``microwave_stop``.
    """
    x, y = pos
    back, panel, z = 0.34 / 2, 0.15, COUNTER_Z + 0.015
    hz = height / 2
    body = world.frame((x, y, z + hz))
    body.box((back + 0.012, 0, 0), (back, width / 2, hz), "charcoal", "surface")
    for sign in (-1, 1):
        foot = (back, sign * (width / 2 - 0.04), -hz - 0.007)
        body.box(foot, (back - 0.02, 0.02, 0.008), "black")
    wide = width - panel  # the door is the left part
    middle, grip_y = -wide / 2, -wide + 0.025
    door = body.body("microwave_door", (0, width / 2, 0))
    door.joint("microwave_door", "hinge", (0, 0, 1), range=(0, 1.57), damping=2)
    door.add("inertial", pos=(0, middle, 0), mass=1, diaginertia=(0.02, 0.01, 0.02))
    door.box((0, middle, 0), (0.010, wide / 2 - 0.002, hz), "steel", "fixture")
    door.box((-0.009, middle + 0.01, 0), (0.003, wide / 2 - 0.05, hz - 0.045), "glass",
             name="microwave_window")  # fmt: skip
    door.rod((-0.035, grip_y, -hz * 0.7), (-0.035, grip_y, hz * 0.7), 0.009, "handle", "fixture",
             kind="capsule")  # fmt: skip
    for sign in (-1, 1):
        end = (grip_y, sign * hz * 0.6)
        door.rod((-0.035, *end), (0, *end), 0.006, "handle")
    side = -width / 2 + panel / 2
    body.box((0, side, 0), (0.010, panel / 2, hz), "black", "fixture")
    body.box((-0.010, side, hz - 0.045), (0.002, panel / 2 - 0.025, 0.022), "screen",
             name="microwave_screen")  # fmt: skip
    _button(body, "microwave_start", (-0.012, side, 0.015), 0.024, "green")
    _button(body, "microwave_stop", (-0.012, side, -hz + 0.045), 0.020, "red")


def _button(parent: Body, name: str, pos: Triple, r: float, paint: str) -> None:
    """Add a round spring button that faces -x, with a travel of 10 mm."""
    body = parent.body(name, pos)
    body.joint(name, "slide", (1, 0, 0), range=(0, 0.010), stiffness=250, damping=6, armature=0.05)
    body.add("inertial", pos=(0, 0, 0), mass=0.03, diaginertia=(1e-5,) * 3)
    body.rod((-0.012, 0, 0), (0.008, 0, 0), r, paint)
    body.box((-0.002, 0, 0), (0.010, r * 0.9, r * 0.9), paint, "fixture", rgba=(0, 0, 0, 0),
             group=3, solref=(0.012, 1))  # fmt: skip
    body.site(name, (-0.012, 0, 0))


def base_cabinet(world: Body, y: float, width: float) -> None:
    """Add a counter piece over a cabinet with two doors."""
    whole = (y - width / 2, y + width / 2)
    counter_slab(world, (0, DEPTH), whole)
    _carcass(world, whole)
    _doors(world, y, width)


def _doors(world: Body, y: float, width: float) -> None:
    """Add two closed doors below the counter."""
    for sign in (-1, 1):
        _front(world, _half(y, width, sign), (_TOE + 0.01, COUNTER_Z - _SLAB - 0.006), "fixture")
        bar_handle(world, (_FACE - 0.04, y + sign * 0.05, 0.72), 0.16)


BURNERS = {
    "front_left": (0.19, 1),
    "front_right": (0.19, -1),
    "rear_left": (0.47, 1),
    "rear_right": (0.47, -1),
}
"""Burner name -> x [m] and side."""


def stove(world: Body, y: float, width: float) -> None:
    """Add a stove with four burners, oven and knobs; the joints are ``knob_front_left`` etc."""
    top = COUNTER_Z + 0.002
    world.box((DEPTH / 2, y, top / 2 + 0.03), (DEPTH / 2, width / 2, top / 2 - 0.03), "steel",
              "surface")  # fmt: skip
    half = (DEPTH / 2 - 0.03, width / 2 - 0.02, 0.004)
    world.box((DEPTH / 2 + 0.01, y, top + 0.002), half, "black")
    world.box((-0.004, y, 0.45), (0.004, width / 2 - 0.05, 0.22), "glass")
    world.rod((-0.045, y - width / 2 + 0.07, 0.71), (-0.045, y + width / 2 - 0.07, 0.71), 0.010,
              "handle", kind="capsule")  # fmt: skip
    for i, (name, (x, side)) in enumerate(BURNERS.items()):
        at = (x, y + side * width * 0.24)
        world.rod((*at, top + 0.004), (*at, top + 0.014), 0.075, "charcoal")
        world.rod((*at, top + 0.014), (*at, top + 0.018), 0.045, "black")
        knob = world.body(f"knob_{name}", (-0.014, y + (1.5 - i) * width / 5, 0.82))
        knob.joint(f"knob_{name}", "hinge", (-1, 0, 0), damping=0.3, armature=0.01)
        knob.add("inertial", pos=(0, 0, 0), mass=0.05, diaginertia=(2e-5,) * 3)
        knob.rod((-0.014, 0, 0), (0.014, 0, 0), 0.024, "charcoal")
        knob.box((-0.020, 0, 0), (0.012, 0.006, 0.022), "accent", "fixture")


def hood(world: Body, y: float, width: float) -> None:
    """Add an extractor hood above the stove."""
    world.box((DEPTH - 0.22, y, 1.58), (0.22, width / 2, 0.04), "steel")
    world.box((DEPTH - 0.15, y, 1.86), (0.14, 0.15, 0.24), "steel")


def wall_cabinet(world: Body, y: float, width: float) -> None:
    """Add a wall cabinet with two doors."""
    bottom, top, front = 1.45, 2.10, DEPTH - 0.32
    span = (y - width / 2, y + width / 2)
    world.block((front - 0.002, DEPTH), span, (bottom, top), "cabinet_trim", "fixture")
    unit = world.frame((front - _FACE - 0.02, 0, 0))
    for sign in (-1, 1):
        _front(unit, _half(y, width, sign), (bottom, top))
        bar_handle(unit, (_FACE - 0.03, y + sign * 0.045, bottom + 0.14), 0.14)


def window(world: Body, y: float, width: float) -> None:
    """Add a window above the sink, with a landscape and a potted herb."""
    bottom, top = 1.22, 1.95
    x, cz, hz = DEPTH - 0.012, (bottom + top) / 2, (top - bottom) / 2
    hy = width / 2
    world.box((x, y, cz + hz * 0.18), (0.004, hy, hz * 0.82), "sky")
    world.box((x - 0.001, y, bottom + hz * 0.2), (0.004, hy, hz * 0.2), "hill")
    for sign in (-1, 1):
        world.box((x - 0.008, y + sign * hy, cz), (0.018, 0.025, hz + 0.05), "ceramic")
        world.box((x - 0.008, y, cz + sign * (hz + 0.02)), (0.0185, hy, 0.03), "ceramic")
    world.box((x - 0.006, y, cz), (0.010, 0.012, hz), "ceramic")
    world.box((x - 0.05, y, bottom - 0.06), (0.06, hy + 0.04, 0.012), "wood")
    plant(world, (x - 0.05, y + hy * 0.6, bottom - 0.048), 0.8)


def coffee_machine(world: Body, y: float) -> None:
    """Add a coffee machine on the counter; its joint is ``coffee_button``."""
    x, z = 0.26, COUNTER_Z
    body = world.frame((x, y, z))
    body.box((0.15, 0, 0.02), (0.15, 0.10, 0.02), "black", "surface")
    body.box((0.21, 0, 0.20), (0.09, 0.10, 0.16), "accent", "fixture")
    body.box((0.10, 0, 0.32), (0.10, 0.10, 0.055), "accent", "fixture")
    body.box((0.10, 0, 0.378), (0.19, 0.095, 0.006), "steel")
    body.rod((0.06, 0, 0.235), (0.06, 0, 0.27), 0.022, "steel")
    body.box((0.075, 0, 0.042), (0.06, 0.07, 0.003), "steel")
    body.site("coffee_dispenser", (0.06, 0, 0.06))
    _button(body, "coffee_button", (-0.006, 0.05, 0.32), 0.018, "ceramic")


def plant(world: Body, pos: Triple, size: float) -> None:
    """Add a potted herb; ``pos`` is the centre of its bottom [m]."""
    x, y, z = pos
    pot = 0.10 * size
    world.rod((x, y, z), (x, y, z + pot), 0.05 * size, "clay")
    for i in range(4):
        a = 1.3 + i * math.pi / 2
        dx, dy = 0.028 * size * math.cos(a), 0.045 * size * math.sin(a)
        tip = (x + dx, y + dy, z + pot + 0.06 * size)
        world.ball(tip, (0.03 * size, 0.035 * size, 0.07 * size), "leaf")


def jars(world: Body, pos: Pair) -> None:
    """Add three jars at the back of the counter."""
    x, y = pos
    for i, height in enumerate((0.17, 0.13, 0.10)):
        at = (x, y - 0.11 * i)
        world.rod((*at, COUNTER_Z), (*at, COUNTER_Z + height), 0.042, "ceramic")
        world.rod((*at, COUNTER_Z + height), (*at, COUNTER_Z + height + 0.015), 0.044, "wood")


def utensils(world: Body, pos: Pair) -> None:
    """Add a crock with wooden spoons."""
    x, y = pos
    world.rod((x, y, COUNTER_Z), (x, y, COUNTER_Z + 0.14), 0.052, "clay")
    for dx, dy in ((0.03, 0.02), (-0.02, 0.03), (0.0, -0.035)):
        end = (x + dx * 1.6, y + dy * 1.6, COUNTER_Z + 0.28)
        world.rod((x + dx * 0.5, y + dy * 0.5, COUNTER_Z + 0.13), end, 0.007, "wood")
        world.ball(end, (0.015, 0.02, 0.03), "wood")


def cutting_board(world: Body, pos: Pair) -> None:
    """Add a cutting board that leans against the backsplash."""
    x, y = pos
    world.box((x, y, COUNTER_Z + 0.155), (0.010, 0.13, 0.16), "wood", euler=(0, 0.16, 0))
