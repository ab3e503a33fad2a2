"""Writes what PyTorch computes as the loss between hidden states of two networks, with its gradients.

    pip install torch==2.15.0 transformers==5.23.0
    python make_hidden.py

The student is the network in `untied-theta`, its teacher the one in `qwen3`, which is wider, or that in `tied`, which is as wide.
`hidden/golden.json` holds the sequences and for each case its settings, the cross-entropy and the mean distance of the states;
`hidden/numbers.safetensors` the projections, and the gradients of these and of some of the student's weights. States are the residual
stream that comes out of a layer, before the last norm. All is computed in 32-bit floats by PyTorch's own functions and automatic
differentiation.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent

# A sequence, and the place from which on the loss counts its tokens. States are compared at all tokens but the last.
SEQUENCES = [([1, 7, 7, 39, 3, 12, 12, 30], 1), ([5, 9, 2, 33, 18, 18, 4, 21, 0, 6], 4), ([8, 38], 1)]

# Teacher, measure, weight, pairs of layers.
CASES = [
    ("qwen3", "cosine", 2.0, [(1, 2), (2, 3)]),
    ("qwen3", "mean-square", 0.7, [(1, 1), (2, 3)]),
    ("tied", "cosine", 1.0, [(2, 2)]),
    ("tied", "mean-square", 3.0, [(1, 1), (1, 2)]),
]


def load(name):
    return AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32).eval()


def states(model, tokens):
    """The residual stream that comes out of each layer: hooks, since what transformers gives of the last one is normed."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
        for layer in model.model.layers
    ]
    logits = model(torch.tensor([tokens])).logits[0]
    for hook in hooks:
        hook.remove()
    return [state.reshape(len(tokens), -1) for state in seen], logits


def distance(measure, own, target):
    """For each row."""
    if measure == "cosine":
        return F.cosine_embedding_loss(own, target, torch.ones(len(own)), reduction="none")
    return F.mse_loss(own, target, reduction="none").mean(dim=1)


def main():
    cases, numbers = [], {}
    generator = torch.Generator().manual_seed(23)
    for teacher_name, measure, weight, pairs in CASES:
        model, teacher = load("untied-theta"), load(teacher_name)
        narrow, wide = model.config.hidden_size, teacher.config.hidden_size
        projections = None
        if narrow != wide:
            projections = torch.randn(len(pairs), wide, narrow, generator=generator) * narrow**-0.5
            projections.requires_grad_()
        hard, apart = [], []
        for tokens, first in SEQUENCES:
            inputs = tokens[:-1]
            own, logits = states(model, inputs)
            with torch.no_grad():
                theirs, _ = states(teacher, inputs)
            hard.append(F.cross_entropy(logits[first - 1 :], torch.tensor(tokens[first:]), reduction="none"))
            for index, (student_layer, teacher_layer) in enumerate(pairs):
                state = own[student_layer - 1]
                if projections is not None:
                    state = state @ projections[index].T
                apart.append(distance(measure, state, theirs[teacher_layer - 1]))
        cross_entropy, states_apart = torch.cat(hard).mean(), torch.cat(apart).mean()
        (cross_entropy + weight * states_apart).backward()
        name = f"{teacher_name} {measure}"
        if projections is not None:
            numbers[f"{name} projection"] = projections.detach().clone()
            numbers[f"{name} d_projection"] = projections.grad.clone()
        numbers[f"{name} embed"] = model.model.embed_tokens.weight.grad.clone()
        numbers[f"{name} head"] = model.lm_head.weight.grad.clone()
        numbers[f"{name} down"] = model.model.layers[0].mlp.down_proj.weight.grad.clone()
        cases.append(
            dict(
                name=name,
                teacher=teacher_name,
                measure=measure,
                weight=weight,
                layers=pairs,
                cross_entropy=cross_entropy.item(),
                states=states_apart.item(),
            )
        )
    folder = HERE / "hidden"
    folder.mkdir(exist_ok=True)
    save_file(numbers, folder / "numbers.safetensors")
    golden = dict(
        made_with=dict(torch=torch.__version__),
        sequences=[dict(tokens=tokens, first_target=first) for tokens, first in SEQUENCES],
        cases=cases,
    )
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


main()
