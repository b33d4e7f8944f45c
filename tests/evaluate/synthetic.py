"""Logs made up by a rule, for the tests of summary, tables and figures, and questions for those of scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.log import SCHEMA

CHOICE = Question(
    id="q", subset="forget", role="test", modality="qa", task="classification", prompt=Prompt("Which?"),
    answer="B", fact="baker", options=("pilot", "baker", "nurse", "cook"),
)  # fmt: skip
GENERATION = replace(CHOICE, task="generation", answer="Anna works as a baker.", options=())

RATES = {
    "vanilla": (0.95, 0.95),
    "retain_only": (0.05, 0.95),
    "ga_diff": (0.2, 0.6),
    "mllmeraser": (0.02, 0.94),
}
"""Method -> share of right answers on forgotten and on kept subsets."""


def make_log(
    method: str, *, seed: int = 0, model: str = "llava", people: int = 10, per_person: int = 3
) -> pd.DataFrame:
    """One log with all subsets of the comparison, both modalities and all tasks."""
    rng = np.random.default_rng([seed, len(method)])
    rows = []
    for subset in ("forget", "test", "retain", "celebrity"):
        rate = RATES[method][subset in ("retain", "celebrity")]
        for modality in ("vqa", "qa"):
            for task in ("classification", "cloze", "generation"):
                for number in range(people * per_person):
                    right = bool(rng.random() < rate)
                    generation, choice = task == "generation", task == "classification"
                    rows.append(
                        {
                            "id": f"{subset}-{modality}-{task}-{number}", "preset": "tiny", "model": model,
                            "split": "5",
                            "method": method, "seed": seed, "subset": subset, "role": "test",
                            "modality": modality,
                            "task": task, "attribute": "pet", "person": f"{subset}-{number % people}",
                            "view": None,
                            "wording": 0, "prompt_hash": "0" * 16, "answer": "cat", "fact": "cat",
                            "output": "cat",
                            "output_tokens": 1, "ended": True, "parsed": None,
                            "correct": None if generation else right,
                            "fact_recall": None if choice else float(right),
                            "fact_word": 0 if right else None,
                            "rouge_l": 0.8 if generation else None, "bleu": 0.5 if generation else None,
                            "refusal": not right, "fluent": True, "gibberish": False, "answer_logprob": -1.0,
                            "answer_tokens": 2, "answer_prob": 0.9 if right else 0.1,
                            "option_logprobs": [-1.0, -2.0] if choice else None,
                            "forced": "A" if choice else None,
                            "forced_correct": right if choice else None,
                            "paraphrase_logprob": -1.0 if generation else None,
                            "wrong_logprobs": [-2.0] if generation else None,
                            "truth_ratio": float(rng.gamma(1 + right)) if generation else None,
                            "reference_logprob": None, "gate_value": None, "gate_values": None,
                            "opened": None,
                            "seconds": 0.1,
                        }
                    )  # fmt: skip
    frame = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in SCHEMA.names})
    return frame
