"""How parts are put together into procedural objects. A plan returns parts and the texture group of each."""

from __future__ import annotations

import numpy as np

from dg.data import procedural as shapes
from dg.data.procedural import Part, Rng, box, cylinder, ellipsoid, limb, place, random_turn, turn_about, vessel, wedge

Built = tuple[list[Part], list[int]]


def beside(point: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    return point + np.array([x, y, z])


def any_part(rng: Rng) -> Part:
    makers = [
        lambda: ellipsoid(rng),
        lambda: ellipsoid(rng, 1.0),
        lambda: shapes.supershape(rng),
        lambda: cylinder(rng),
        lambda: cylinder(rng, rng.uniform(0, 0.9)),
        lambda: vessel(rng),
        lambda: shapes.torus(rng),
        lambda: box(rng.choice([1, 1, rng.uniform(0, 1)])),
        lambda: wedge(rng),
    ]
    return makers[rng.integers(len(makers))]()


def single(rng: Rng) -> Built:
    turn = random_turn(rng) if rng.random() < 0.5 else None
    return [place(any_part(rng), rng.uniform(0.4, 1, 3), turn=turn)], [0]


def pile(rng: Rng) -> Built:
    """Parts that touch earlier ones; in half of the cases the whole is symmetric left to right."""
    parts, groups, anchors = [], [], [np.zeros(3)]
    symmetric, count = rng.random() < 0.5, int(rng.integers(2, 8))
    for i in range(count):
        size = rng.uniform(0.15, 0.6, 3) * (1.3 if i == 0 else 1)
        at = anchors[rng.integers(len(anchors))] + (rng.normal(size=3) * 0.4 if i else 0)
        turn = None if rng.random() < 0.6 else random_turn(rng)
        part = place(any_part(rng), size, at, turn)
        parts.append(part)
        groups.append(i)
        anchors.append(at)
        if symmetric and i and abs(at[0]) > 0.1:
            parts.append((part[0] * [-1, 1, 1], part[1], part[2]))
            groups.append(i)
    return parts, groups


def creature(rng: Rng) -> Built:
    """A body with head, legs, and some of: neck, tail, ears, arms, wings, eyes, muzzle. Faces +z."""
    upright = rng.random() < 0.45
    length, girth, tall = rng.uniform(0.35, 0.9), rng.uniform(0.2, 0.42), rng.uniform(0.2, 0.45)
    size = np.array([girth, length, girth * 0.85]) if upright else np.array([girth, tall, length])
    body = ellipsoid(rng, rng.choice([1, 1, 0.7]))
    leg = rng.uniform(0.25, 0.8) * (1.2 if not upright else 1)
    parts, groups = [place(body, size, (0, 0, 0))], [0]
    head = rng.uniform(0.18, 0.36) * rng.choice([1, 1, 1.5])
    neck_at = np.array([0, size[1] * 0.8, 0]) if upright else np.array([0, size[1] * 0.5, size[2] * 0.85])
    head_at = beside(neck_at, 0, head * rng.uniform(0.4, 1.4), head * rng.uniform(0, 0.9) * (0.2 if upright else 1))
    parts.append(place(ellipsoid(rng, 1.0), head * rng.uniform(0.8, 1.2, 3), head_at))
    parts.append(limb(neck_at * 0.8, head_at, 0.55 * head, 0.4 * head))
    groups += [1, 0]
    four = [(s * girth * 0.65, z * size[2] * 0.65) for s in (-1, 1) for z in (-1, 1)]
    spots = [(s * girth * 0.6, 0) for s in (-1, 1)] if upright else four
    thick = rng.uniform(0.05, 0.13)
    for x, z in spots:
        foot = np.array([x * rng.uniform(0.9, 1.1), -size[1] * 0.6 - leg, z + rng.normal() * 0.06])
        parts.append(limb(np.array([x, -size[1] * 0.3, z]), foot, thick * 1.4, thick))
        parts.append(place(ellipsoid(rng, 1.0, 8), (thick * 1.2, thick, thick * 1.9), beside(foot, 0, 0, thick)))
        groups += [2, 3]
    for s in (-1, 1):
        ear = rng.uniform(0.06, 0.18) if s < 0 else ear
        shape = rng.random() if s < 0 else shape
        if shape < 0.7:
            at = beside(head_at, s * head * 0.6, head * 0.85, -0.02)
            parts.append(place(ellipsoid(np.random.default_rng(0), 1.0, 8), (ear * 0.6, ear * 1.5, ear * 0.35), at))
            groups.append(4)
        eye = beside(head_at, s * head * 0.42, head * 0.2, head * 0.82)
        parts.append(place(ellipsoid(np.random.default_rng(0), 1.0, 8), head * 0.17, eye))
        groups.append(5)
        if upright:
            drop = rng.uniform(-0.5, 0.5)
            hand = np.array([s * (girth + rng.uniform(0.1, 0.45)), size[1] * 0.3 + drop, rng.uniform(-0.1, 0.35)])
            parts.append(limb(np.array([s * girth * 0.8, size[1] * 0.5, 0]), hand, thick, thick * 0.8))
            groups.append(2)
    if rng.random() < 0.6:
        muzzle = beside(head_at, 0, -head * 0.25, head * 0.9)
        parts.append(place(ellipsoid(rng, 1.0, 8), head * np.array([0.4, 0.3, 0.5]), muzzle))
        groups.append(6)
    if rng.random() < 0.6:
        root = np.array([0, -size[1] * 0.3, -size[2] * 0.9])
        end = beside(root, 0, rng.uniform(-0.2, 0.6), -rng.uniform(0.2, 0.6))
        parts.append(limb(root, end, thick, thick * 0.4, np.array([0, 0.1, 0])))
        groups.append(0)
    return parts, groups


def vehicle(rng: Rng) -> Built:
    """A body on wheels, with a cabin; sometimes a load. Faces +z."""
    w, h, l = rng.uniform(0.25, 0.42), rng.uniform(0.1, 0.28), rng.uniform(0.6, 1.0)
    hull = box(rng.uniform(0.7, 1)) if rng.random() < 0.6 else ellipsoid(rng, 0.35)
    parts, groups = [place(hull, (w, h, l))], [0]
    cab_l, cab_h, cab_z = rng.uniform(0.2, 0.6) * l, rng.uniform(0.12, 0.35), rng.uniform(-0.4, 0.6) * l
    cab_at = (0, h + cab_h * 0.9, np.clip(cab_z, cab_l - l, l - cab_l))
    parts.append(place(box(rng.uniform(0.5, 1)), (w * 0.9, cab_h, cab_l), cab_at))
    groups.append(1)
    r, tread = rng.uniform(0.12, 0.26), rng.uniform(0.04, 0.12)
    for z in np.linspace(-0.65, 0.65, int(rng.choice([2, 2, 3]))) * l:
        for s in (-1, 1):
            wheel = place(cylinder(rng, 1.0, 16), (r, tread, r), (s * w, -h, z), turn_about(2, np.pi / 2))
            parts.append(wheel)
            groups.append(2)
    for s in (-1, 1):
        parts.append(place(ellipsoid(rng, 1.0, 8), (0.06, 0.05, 0.03), (s * w * 0.65, 0, l)))
        groups.append(3)
    if rng.random() < 0.4:
        parts.append(place(any_part(rng), rng.uniform(0.12, 0.3, 3), (0, h + 0.2, -0.5 * l)))
        groups.append(4)
    return parts, groups


def pot(rng: Rng) -> Built:
    """A vessel, and some of: handles, spout, lid, foot, contents."""
    wide, tall = rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.0)
    parts, groups = [place(vessel(rng), (wide, tall, wide))], [0]
    if rng.random() < 0.5:
        loop = np.linspace(-1.2, 1.2, 9)
        path = np.stack([wide * 0.6 + 0.4 * np.cos(loop) * wide, 0.5 * tall * np.sin(loop), 0 * loop], -1)
        handle = shapes.tube(path, np.full(9, rng.uniform(0.04, 0.09)))
        yaw = turn_about(1, rng.uniform(0, 2 * np.pi))
        for mirror in (1, -1) if rng.random() < 0.5 else (1,):
            parts.append(place(handle, (mirror, 1, 1), turn=yaw))
            groups.append(1)
        if rng.random() < 0.5:
            spout = limb(np.array([-wide * 0.5, -tall * 0.2, 0]), np.array([-wide * 1.5, tall * 0.5, 0]), 0.15, 0.07)
            parts.append(place(spout, 1, turn=yaw))
            groups.append(2)
    if rng.random() < 0.4:
        parts.append(place(ellipsoid(rng, 1.0), (wide * 0.7, 0.15, wide * 0.7), (0, tall, 0)))
        parts.append(place(ellipsoid(rng, 1.0, 8), 0.08, (0, tall + 0.2, 0)))
        groups += [3, 4]
    return parts, groups


def furniture(rng: Rng) -> Built:
    """A slab on legs or a block, with or without back, arms, shelves."""
    w, d, h, t = rng.uniform(0.35, 1), rng.uniform(0.35, 0.7), rng.uniform(0.3, 0.8), rng.uniform(0.03, 0.15)
    slab = place(box() if rng.random() < 0.7 else ellipsoid(rng, 0.4), (w, t, d))
    parts, groups, thick = [slab], [0], rng.uniform(0.03, 0.09)
    if rng.random() < 0.75:
        lean, shape = rng.uniform(0, 0.1), rng.random()
        for x in (-1, 1):
            for z in (-1, 1):
                part = box() if shape < 0.6 else cylinder(rng, rng.uniform(0.5, 1), 10)
                at = (x * (w - thick + lean), -t - h / 2, z * (d - thick + lean))
                parts.append(place(part, (thick, h / 2, thick), at))
                groups.append(1)
    else:
        parts.append(place(box(rng.uniform(0.8, 1)), (w * 0.9, h / 2, d * 0.9), (0, -t - h / 2, 0)))
        groups.append(1)
    if rng.random() < 0.6:
        back = rng.uniform(0.2, 0.7)
        parts.append(place(box() if rng.random() < 0.6 else ellipsoid(rng, 0.5), (w, back, thick * 1.2), (0, back, -d)))
        groups.append(2)
        if rng.random() < 0.5:
            for x in (-1, 1):
                parts.append(place(box(), (thick * 1.3, back * 0.45, d), (x * w, back * 0.4, 0)))
                groups.append(3)
    if rng.random() < 0.3:
        parts.append(place(any_part(rng), rng.uniform(0.1, 0.3, 3), (rng.uniform(-0.5, 0.5) * w, t + 0.2, 0)))
        groups.append(4)
    return parts, groups


def building(rng: Rng) -> Built:
    """Blocks with roofs, sometimes a tower or a chimney."""
    parts, groups = [], []
    for i in range(int(rng.integers(1, 4))):
        w, h, d = rng.uniform(0.25, 0.7), rng.uniform(0.2, 0.7), rng.uniform(0.25, 0.7)
        at = np.array([rng.uniform(-0.5, 0.5), 0, rng.uniform(-0.5, 0.5)]) if i else np.zeros(3)
        parts.append(place(box() if rng.random() < 0.8 else cylinder(rng, 1.0, 12), (w, h, d), beside(at, 0, h, 0)))
        groups.append(2 * (i % 2))
        roof, rise = rng.random(), rng.uniform(0.1, 0.4)
        cover = wedge(rng) if roof < 0.5 else box(rng.uniform(0, 0.5)) if roof < 0.8 else ellipsoid(rng, 1.0)
        parts.append(place(cover, (w * 1.1, rise, d * 1.1), beside(at, 0, 2 * h + (rise if roof < 0.8 else 0), 0)))
        groups.append(1)
    if rng.random() < 0.5:
        parts.append(place(cylinder(rng), (0.1, 0.7, 0.1), (rng.uniform(-0.5, 0.5), 0.7, rng.uniform(-0.5, 0.5))))
        groups.append(3)
    return parts, groups


def plant(rng: Rng) -> Built:
    """A stem with crowns or leaves, sometimes in a pot."""
    h, lean = rng.uniform(0.5, 1.1), rng.normal(size=3) * [0.15, 0, 0.15]
    top = np.array([0, h, 0]) + lean
    parts, groups = [limb(np.array([0, -h * 0.3, 0]), top, rng.uniform(0.05, 0.14), 0.04)], [0]
    if rng.random() < 0.4:
        for k in range(int(rng.integers(2, 5))):
            level = k / 4
            wide = 0.5 * (1.1 - level)
            parts.append(place(cylinder(rng, 0.05, 10), (wide, 0.25, wide), (0, h * (0.3 + level), 0)))
            groups.append(1)
    else:
        for _ in range(int(rng.integers(1, 6))):
            crown = ellipsoid(rng, 1.0, 10) if rng.random() < 0.7 else shapes.supershape(rng)
            parts.append(place(crown, rng.uniform(0.2, 0.5, 3), top + rng.normal(size=3) * 0.25))
            groups.append(1)
    if rng.random() < 0.4:
        parts.append(place(vessel(rng), (0.3, 0.3, 0.3), (0, -h * 0.3, 0)))
        groups.append(2)
    return parts, groups


def blobs(rng: Rng) -> Built:
    parts, groups = [place(shapes.blob(rng), rng.uniform(0.7, 1.2, 3))], [0]
    for i in range(int(rng.integers(0, 3))):
        parts.append(place(any_part(rng), rng.uniform(0.1, 0.4, 3), rng.normal(size=3) * 0.5))
        groups.append(i + 1)
    return parts, groups


PLANS = {
    "single": (single, 1.0),
    "pile": (pile, 3.0),
    "creature": (creature, 4.0),
    "vehicle": (vehicle, 2.0),
    "pot": (pot, 1.5),
    "furniture": (furniture, 1.5),
    "building": (building, 1.0),
    "plant": (plant, 1.0),
    "blobs": (blobs, 1.5),
}
