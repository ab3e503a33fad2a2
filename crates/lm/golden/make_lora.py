"""Writes an adapter of the network in `untied-theta` with PEFT, and what PyTorch computes with it.

    pip install torch==2.15.0 transformers==5.23.0 peft==0.21.2
    python make_lora.py

`lora/` holds the adapter as PEFT saves it; `golden.json` the sequences, the mean cross-entropy, and the logits after each token of
the first; `gradients.safetensors` the gradients of the adapter by automatic differentiation.

    python make_lora.py FOLDER

says instead what PEFT computes with the adapter in FOLDER: the logits after each token of the first sequence.
"""

import json
import os
import pathlib
import sys

import peft
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
SEQUENCES = [([1, 7, 7, 39, 3, 12, 12, 30], 1), ([5, 9, 2, 33, 18, 18, 4, 21, 0, 6], 4), ([8, 38], 1)]


def base():
    # By a path that means the same everywhere, since PEFT writes it down.
    os.chdir(HERE)
    return AutoModelForCausalLM.from_pretrained("untied-theta", dtype=torch.float32)


def logits(model):
    with torch.no_grad():
        return [[round(x, 6) for x in row] for row in model(torch.tensor([SEQUENCES[0][0]])).logits[0].tolist()]


def main():
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1]).resolve()
        print(json.dumps(logits(peft.PeftModel.from_pretrained(base(), folder).eval())))
        return
    torch.manual_seed(3)
    shape = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", lora_dropout=0.0
    )
    model = peft.get_peft_model(base(), shape).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = HERE / "lora"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    losses = []
    for tokens, first in SEQUENCES:
        out = model(torch.tensor([tokens])).logits[0]
        losses.append(F.cross_entropy(out[first - 1 : -1], torch.tensor(tokens[first:]), reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    gradients = {
        name.replace(".default", ""): parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    save_file(gradients, folder / "gradients.safetensors")
    golden = dict(
        made_with=dict(torch=torch.__version__, peft=peft.__version__),
        sequences=[dict(tokens=tokens, first_target=first) for tokens, first in SEQUENCES],
        loss=loss.item(),
        logits=logits(model),
    )
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


main()
