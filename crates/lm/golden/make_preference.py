"""Writes what PyTorch computes as the loss of pairs of answers under the network in `untied-theta`, with its gradients.

    pip install torch==2.15.0 transformers==5.23.0
    python make_preference.py

`preference/golden.json` holds the pairs and for each case its settings, the mean loss and the mean margin;
`preference/gradients.safetensors` the gradients of the output head, of the last norm and of one projection of the first layer.
The loss is that of direct preference optimisation, with the cross-entropy of the chosen answers beside it, in 32-bit floats.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent

# Prompt and answer each: the answer begins at the second number.
PAIRS = [
    (([1, 7, 7, 39, 3, 12, 12, 30], 3), ([1, 7, 7, 5, 5, 21], 3), 0.7),
    (([5, 9, 2, 33], 2), ([5, 9, 18, 18, 4, 21, 0, 6, 17], 2), -2.5),
    (([8, 38], 1), ([8, 11], 1), 0.0),
]

CASES = [(0.1, 0.0), (0.5, 0.0), (0.3, 0.2), (5.0, 1.0)]


def logprob(model, sequence):
    tokens, first = sequence
    logits = model(torch.tensor([tokens])).logits[0]
    return -F.cross_entropy(logits[first - 1 : -1], torch.tensor(tokens[first:]), reduction="sum")


def main():
    cases, gradients = [], {}
    for beta, likelihood in CASES:
        model = AutoModelForCausalLM.from_pretrained(HERE / "untied-theta", dtype=torch.float32).eval()
        chosen = torch.stack([logprob(model, pair[0]) for pair in PAIRS])
        rejected = torch.stack([logprob(model, pair[1]) for pair in PAIRS])
        margin = chosen - rejected - torch.tensor([pair[2] for pair in PAIRS])
        targets = sum(len(tokens) - first for (tokens, first), _, _ in PAIRS)
        loss = -F.logsigmoid(beta * margin).mean() - likelihood * chosen.sum() / targets
        loss.backward()
        name = f"{beta} {likelihood}"
        gradients[f"{name} head"] = model.lm_head.weight.grad.clone()
        gradients[f"{name} norm"] = model.model.norm.weight.grad.clone()
        gradients[f"{name} down"] = model.model.layers[0].mlp.down_proj.weight.grad.clone()
        cases.append(
            dict(name=name, beta=beta, likelihood=likelihood, loss=loss.item(), margin=margin.mean().item())
        )
    folder = HERE / "preference"
    folder.mkdir(exist_ok=True)
    save_file(gradients, folder / "gradients.safetensors")
    sequence = lambda pair: dict(tokens=pair[0], first_target=pair[1])
    golden = dict(
        made_with=dict(torch=torch.__version__),
        pairs=[
            dict(chosen=sequence(chosen), rejected=sequence(rejected), reference=reference)
            for chosen, rejected, reference in PAIRS
        ],
        cases=cases,
    )
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


main()
