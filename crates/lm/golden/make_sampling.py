"""Writes what transformers makes of logits before a token is drawn.

    pip install torch==2.15.0 transformers==5.24.0
    python make_sampling.py

`sampling/golden.json` holds for each case the logits, the tokens of the prompt and of the completion so far, the settings, and
the probabilities after transformers' own processors, in the order in which its `generate` applies them. It has no penalties
for frequency and presence; these are computed here by the formula of OpenAI's documentation, logit - count * frequency -
(count > 0) * presence, and biases are added after them.
"""

import json
import pathlib

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

HERE = pathlib.Path(__file__).parent
VOCABULARY = 24
PROMPT = [3, 3, 7, 20]
SAID = [5, 7, 5, 5, 11]

CASES = [
    {},
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.2},
    {"min_p": 0.2, "temperature": 1.7},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"frequency_penalty": 0.9},
    {"presence_penalty": -1.1},
    {"frequency_penalty": 0.4, "presence_penalty": 0.7, "temperature": 0.8},
    {"logit_bias": {"2": 3.5, "5": -100.0, "19": 1.0}},
    {"top_k": 9, "top_p": 0.75, "min_p": 0.15, "temperature": 1.3},
    {
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.3,
        "logit_bias": {"4": 2.0, "7": -1.5},
        "temperature": 0.9,
        "top_k": 12,
        "top_p": 0.9,
        "min_p": 0.05,
    },
]


def processed(logits, case):
    ids = torch.tensor([PROMPT + SAID])
    scores = logits.clone()[None]
    if "repetition_penalty" in case:
        scores = RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(ids, scores)
    counts = torch.bincount(torch.tensor(SAID), minlength=VOCABULARY).float()
    scores = scores - counts * case.get("frequency_penalty", 0) - (counts > 0) * case.get("presence_penalty", 0)
    for token, bias in case.get("logit_bias", {}).items():
        scores[0, int(token)] += bias
    if "temperature" in case:
        scores = TemperatureLogitsWarper(case["temperature"])(ids, scores)
    if "top_k" in case:
        scores = TopKLogitsWarper(case["top_k"])(ids, scores)
    if "top_p" in case:
        scores = TopPLogitsWarper(case["top_p"])(ids, scores)
    if "min_p" in case:
        scores = MinPLogitsWarper(case["min_p"])(ids, scores)
    return torch.softmax(scores, -1)[0]


def main():
    generator = torch.Generator().manual_seed(7)
    written = []
    for case in CASES:
        logits = torch.randn(VOCABULARY, generator=generator) * 2
        probabilities = processed(logits, case)
        written.append({"settings": case, "logits": logits.tolist(), "probabilities": probabilities.tolist()})
    text = json.dumps({"prompt": PROMPT, "said": SAID, "cases": written})
    (HERE / "sampling" / "golden.json").write_text(text + "\n")


main()
