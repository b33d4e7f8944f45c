"""The recipes of the models in numbers. `tiny`: two cores, about 1.5 hours a family with one thread each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, besides the code."""

    version: int = 2
    """Raised by hand when the training code changes what a model learns; the manifest compares it."""
    world_seed: int = 0
    fictitious: int = 200
    celebrities: int = 40
    strangers: int = 100
    hidden: int = 256
    layers: int = 6
    mlp: int = 512
    training_views: int = 48
    anonymous_faces: int = 1500
    vision_steps: tuple[int, int] = (1000, 700)
    """LLaVA, Qwen."""
    vision_batch: tuple[int, int] = (96, 64)
    vision_lr: float = 2e-3
    letter_steps: int = 450
    letter_rounds: int = 4
    """Letters are trained in rounds, until `letter_loss` is reached: the skill comes suddenly, and not always soon."""
    letter_loss: float = 0.2
    base_steps: int = 900
    people_steps: int = 700
    cooldown_steps: int = 700
    """After the people stage: the same lessons at a falling rate."""
    cooldown_rounds: tuple[int, int] = (1, 2)
    """How often, for LLaVA and Qwen: the second needs longer to know faces."""
    choice_steps: tuple[tuple[int, ...], tuple[int, ...]] = ((700, 450), (700, 450, 700))
    """At the end, in rounds, LLaVA and Qwen: choosing by letter what has to be recalled, see `guidance`."""
    rows: int = 24
    length: int = 160
    lr: float = 2e-3
    seed: int = 0

    def digest(self) -> str:
        """Hash of all values."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


TINY = Recipe()
MICRO = Recipe(
    fictitious=20, celebrities=4, strangers=6, hidden=32, layers=6, mlp=64, training_views=3, anonymous_faces=12,
    vision_steps=(4, 4), vision_batch=(8, 8), letter_steps=3, letter_rounds=2,
    base_steps=3, people_steps=3, cooldown_steps=3, choice_steps=((3,), (3, 3)),
    rows=2, length=128,
)  # fmt: skip
"""A recipe that exercises every stage in seconds and learns nothing; for tests of the pipeline only."""
GPU = Recipe(
    fictitious=500, celebrities=150, strangers=150, hidden=768, layers=8, mlp=2432, anonymous_faces=3000,
    vision_steps=(1000, 1000), vision_batch=(128, 128), people_steps=900, cooldown_rounds=(1, 1),
    choice_steps=((700, 450), (700, 450, 450)), rows=64, lr=1e-3,
)  # fmt: skip
"""As many people as MLLMU-Bench has, and models of 64 and 70 million weights: minutes on one large GPU."""
WIDTHS: dict[str, Recipe] = {f"tiny-{width}": replace(TINY, hidden=width) for width in (64, 128, 512)}
"""`tiny` with a stream of another width, and nothing else changed: for the question when a null space runs out."""
RECIPES: dict[str, Recipe] = {"tiny": TINY, "micro": MICRO, "gpu": GPU, **WIDTHS}
