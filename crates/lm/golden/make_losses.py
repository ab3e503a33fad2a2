"""Writes what PyTorch computes as losses of the network in `untied-theta`, with their gradients.

    pip install torch==2.15.0 transformers==5.23.0
    python make_losses.py

`losses/golden.json` holds the sequences, what the teacher says at each place, and for each case its settings and the mean loss;
`losses/gradients.safetensors` the gradients of the output head (which shows that of every logit) and of the last norm. All is
computed in 32-bit floats by PyTorch's own functions and automatic differentiation.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
VOCABULARY = 40

# A sequence, and the place from which on its tokens count: what comes before is masked.
SEQUENCES = [([1, 7, 7, 39, 3, 12, 12, 30], 1), ([5, 9, 2, 33, 18, 18, 4, 21, 0, 6], 4), ([8, 38], 1)]


def kl(log_p, log_q):
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def mixture(log_p, log_q, share):
    parts = torch.stack([log_p + torch.log(torch.tensor(share)), log_q + torch.log(torch.tensor(1 - share))])
    return torch.logsumexp(parts, dim=0)


def divergence(settings, log_p, log_q):
    kind, number = settings
    if kind == "forward-kl":
        return kl(log_p, log_q)
    if kind == "reverse-kl":
        return kl(log_q, log_p)
    if kind == "jensen-shannon":
        log_m = mixture(log_p, log_q, number)
        return number * kl(log_p, log_m) + (1 - number) * kl(log_q, log_m)
    if kind == "skew-kl":
        return kl(log_p, mixture(log_p, log_q, number))
    if kind == "skew-reverse-kl":
        return kl(log_q, mixture(log_p, log_q, 1 - number))
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum()


def classes(log_q, tokens):
    """The log-probabilities of some tokens, and of all others together unless there are none."""
    named = log_q[tokens]
    others = torch.ones(VOCABULARY, dtype=torch.bool)
    others[tokens] = False
    if not others.any():
        return named
    return torch.cat([named, torch.logsumexp(log_q[others], dim=0, keepdim=True)])


def told(kind):
    """What the teacher says at each target: token and log-probability."""
    generator = torch.Generator().manual_seed(17)
    all_places = []
    for tokens, first in SEQUENCES:
        places = []
        for place in range(len(tokens) - first):
            logprobs = F.log_softmax(torch.randn(VOCABULARY, generator=generator) * 1.7, dim=0)
            if kind == "all":
                order = torch.randperm(VOCABULARY, generator=generator)
            else:
                # Places without a teacher, and one that names a single token.
                count = 0 if (place + len(tokens)) % 5 == 3 else 1 if place == 1 else 8
                order = torch.argsort(logprobs, descending=True)[:count]
            places.append([[int(token), float(logprobs[token])] for token in order])
        all_places.append(places)
    return all_places


DIVERGENCES = [
    ("forward-kl", None),
    ("reverse-kl", None),
    ("jensen-shannon", 0.3),
    ("skew-kl", 0.1),
    ("skew-reverse-kl", 0.1),
    ("total-variation", None),
]

# Which teacher, temperature, and share of the divergence.
SETTINGS = [("top", 1.0, 0.6), ("top", 2.0, 1.0), ("all", 1.0, 1.0), ("all", 1.5, 0.5)]


def main():
    teachers = {kind: told(kind) for kind in ["top", "all"]}
    cases, gradients = [], {}
    hard = [(("forward-kl", None), ("top", 1.0, 0.0))]
    for settings, (teacher, temperature, share) in hard + [(d, s) for d in DIVERGENCES for s in SETTINGS]:
        model = AutoModelForCausalLM.from_pretrained(HERE / "untied-theta", dtype=torch.float32).eval()
        losses, apart = [], []
        for (tokens, first), places in zip(SEQUENCES, teachers[teacher]):
            logits = model(torch.tensor([tokens])).logits[0]
            for place, known in enumerate(places):
                at = first + place
                hard_loss = F.cross_entropy(logits[at - 1 : at], torch.tensor([tokens[at]]))
                if not known:
                    losses.append(hard_loss)
                    continue
                names = torch.tensor([token for token, _ in known])
                log_p = torch.tensor([logprob for _, logprob in known])
                if len(known) < VOCABULARY:
                    log_p = torch.cat([log_p, torch.log1p(-log_p.exp().sum()).reshape(1)])
                log_q = classes(F.log_softmax(logits[at - 1], dim=0), names)
                log_p, log_q = (F.log_softmax(logs / temperature, dim=0) for logs in (log_p, log_q))
                apart.append(divergence(settings, log_p, log_q))
                losses.append((1 - share) * hard_loss + share * temperature**2 * apart[-1])
        loss = torch.stack([loss.reshape(()) for loss in losses]).mean()
        loss.backward()
        name = f"{settings[0]} {teacher} {temperature} {share}"
        gradients[f"{name} head"] = model.lm_head.weight.grad.clone()
        gradients[f"{name} norm"] = model.model.norm.weight.grad.clone()
        cases.append(
            dict(
                name=name,
                divergence=settings[0],
                number=settings[1],
                teacher=teacher,
                temperature=temperature,
                share=share,
                loss=loss.item(),
                apart=torch.stack(apart).mean().item(),
            )
        )
    folder = HERE / "losses"
    folder.mkdir(exist_ok=True)
    save_file(gradients, folder / "gradients.safetensors")
    golden = dict(
        made_with=dict(torch=torch.__version__),
        sequences=[dict(tokens=tokens, first_target=first) for tokens, first in SEQUENCES],
        teachers=teachers,
        cases=cases,
    )
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


main()
