"""Pictures of faces: their mood."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from pictures.canvas import Points, apart_from, ground, ink, placed, somewhere
from pictures.figures import arc

FACES = ("happy", "sad", "surprised", "angry", "asleep", "calm", "winking", "doubtful")


def draw_face(label: int, rng: np.random.Generator) -> Image.Image:
    """A round face of one of the moods FACES, as eyes, brows and mouth show it."""
    image, paper = ground(rng)
    pen, skin = ImageDraw.Draw(image), ink([paper], rng)
    pigment = apart_from([skin], rng, 190.0)
    radius = rng.uniform(18, 29)
    centre, turn = somewhere(rng, radius), math.radians(rng.uniform(-20, 20))
    wide = rng.uniform(0.85, 1.0)

    def at(points: Points) -> Points:
        return placed([(x * wide, y) for x, y in points], centre, radius, turn)

    pen.polygon(at(arc(0, 2 * math.pi)), fill=skin)
    mood = FACES[label]
    for side in (-1, 1):
        shut = mood == "asleep" or (mood == "winking" and side == 1)
        if shut:
            pen.line(at([(side * 0.4 - 0.18, -0.2), (side * 0.4 + 0.18, -0.2)]), fill=pigment, width=3)
        else:
            size = 0.2 if mood == "surprised" else 0.13
            pen.polygon(at([(side * 0.4 + size * x, -0.2 + size * y) for x, y in arc(0, 2 * math.pi)]), fill=pigment)
        tilt = {"angry": 0.16, "sad": -0.14, "doubtful": 0.15 * side}.get(mood)
        if tilt is not None:
            pen.line(at([(side * 0.62, -0.5 - tilt), (side * 0.2, -0.5 + tilt)]), fill=pigment, width=3)
    pen.line(at(_mouth(mood)), fill=pigment, width=3)
    return image


def _mouth(mood: str) -> Points:
    match mood:
        case "happy" | "winking":
            return [(0.5 * x, 0.15 + 0.4 * y) for x, y in arc(0.15, math.pi - 0.15)]
        case "sad":
            return [(0.45 * x, 0.7 + 0.35 * y) for x, y in arc(math.pi + 0.15, 2 * math.pi - 0.15)]
        case "surprised":
            return [(0.2 * x, 0.48 + 0.25 * y) for x, y in arc(0, 2 * math.pi)]
        case "doubtful":
            return [(-0.4, 0.55), (-0.1, 0.4), (0.15, 0.55), (0.4, 0.38)]
        case _:
            return [(-0.35, 0.48), (0.35, 0.48)]
