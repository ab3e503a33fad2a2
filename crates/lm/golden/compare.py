"""Loads folders with transformers and says how far their logits are from those of a golden.json each.

    python compare.py FOLDER golden.json [FOLDER golden.json ...]
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

for folder, golden in zip(sys.argv[1::2], sys.argv[2::2]):
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {name: list(keys) for name, keys in loading.items() if keys}
    if wrong:
        sys.exit(f"{folder}: not all of it was used: {wrong}")
    worst = 0.0
    for sequence in json.load(open(golden))["sequences"]:
        with torch.no_grad():
            logits = model(torch.tensor([sequence["tokens"]])).logits[0, sequence["places"]]
        worst = max(worst, (logits - torch.tensor(sequence["logits"])).abs().max().item())
    print(f"{model.config.model_type} {worst:.2e}")
