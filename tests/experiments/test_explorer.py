"""The data of the explorer: what is shown, what it says, and that the page stays light."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pandas as pd
from PIL import Image

from eraser_lib.bench.records import Question
from eraser_lib.bench.world import World
from eraser_lib.experiments import rows
from eraser_lib.experiments import sets as roles
from eraser_lib.experiments.explorer import LIMIT, SHOWN, explorer_data
from eraser_lib.experiments.study import Study
from eraser_lib.study.paths import root


def test_it_says_what_the_logs_say(world: World, folder: Path, tmp_path: Path) -> None:
    sets: dict[str, list[Question]] = roles.test_sets(world, folder, 5, size=60)
    sets["stranger"] = roles.stranger_questions(folder, size=60)
    study = Study(preset="toy", model="qwen", split=5, out=tmp_path)
    study.note("frontier", {"rows": [{"alpha": 0.01, "threshold": 1.25, "test": 0.5}]})
    push = {"direction": "text", "layers": [4], "scope": "prompt", "strength": 4.0}
    tried = push | {"refused": 0.98765, "forget_prob": 0.1, "reentry": 0.0, "measure": 0.9}
    study.note("selection-5", {"choice": {"decision": {"layers": [4]}, "push": push}, "push": [tried]})
    study.note("gate_auc", {"numbers": [{"layer": 4, "solver": "ridge", "auc": 0.98765, "n": 3}]})
    questions = [q for name in SHOWN for q in sets[name]]
    logs = pd.DataFrame([
        {"model": "qwen", "method": method, "seed": 0, "id": q.id, "subset": q.subset, "gate_value": number / 7,
         "output": f"{method} says {number}"}
        for method in ("vanilla", "mllmeraser") for number, q in enumerate(questions)
    ])  # fmt: skip
    last = [q for q in sets["test"] if q.task == "generation" and q.modality == "vqa"][-1]
    dose = {"id": last.id, "set": "test", "task": "generation", "method": "constant", "refused": 0.0, "recalled": 1.0}
    none = dose | {"strength": 0.0, "times": 0.0}
    rows.keep(study, "dose_strength", pd.DataFrame([
        dose | {"strength": 0.5, "times": 1.0, "answer_prob": 0.25, "output": "half"},
        none | {"answer_prob": 0.75, "output": "none"},
        none | {"answer_prob": 0.5, "output": "kept", "id": "elsewhere", "set": "retain"},
    ]))  # fmt: skip
    data = explorer_data([study], logs, sets)
    text = json.dumps(data)
    assert len(text) < LIMIT
    shipped = root() / "results" / "tiny" / "figures" / "all" / "explorer.json"
    assert shipped.stat().st_size < LIMIT
    own = data["models"]["qwen"]
    weak, strong = own["doses"]["constant"]
    assert last.id in data["questions"], "what was asked at several strengths comes first"
    assert (weak["strength"], weak["said"], weak["gone"], weak["kept"]) == (0.0, {last.id: "none"}, 0.75, 0.5)
    assert (strong["strength"], strong["said"], strong["gone"], strong["facts"]) == (0.5, {last.id: "half"}, 0.25, 1.0)
    assert (weak["times"], strong["times"]) == (0, 1), "of what was chosen"
    assert set(own["answers"]) == set(data["questions"])
    by_id = {q.id: (number, q) for number, q in enumerate(questions)}
    for key, (value, vanilla, steered, retrained) in own["answers"].items():
        number, question = by_id[key]
        subset, modality, asked, right, place = data["questions"][key]
        assert (subset, modality, asked, right) == (
            question.subset, question.modality, question.prompt.text, question.answer
        )  # fmt: skip
        assert (value, vanilla, steered, retrained) == (
            round(number / 7, 3), f"vanilla says {number}", f"mllmeraser says {number}", None
        )  # fmt: skip
        assert (place is None) == (question.prompt.image is None)
        if place is not None and question.prompt.image is not None:
            picture = Image.open(io.BytesIO(base64.b64decode(data["images"][place])))
            assert picture.size == question.prompt.images[-1].size
    assert own["groups"]["retain"] == sorted(own["groups"]["retain"])
    assert len(own["groups"]["test"]) == len(sets["test"]), "curves are of all prompts, not of the sample"
    assert own["thresholds"] == [{"alpha": 0.01, "threshold": 1.25}]
    assert own["pushes"] == [push | {"refused": 0.988, "forget_prob": 0.1, "reentry": 0.0}]
    assert {data["questions"][key][0] for key in data["questions"]} == set(SHOWN)
