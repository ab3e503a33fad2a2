"""Generates with transformers, in 32-bit floats; says tokens a second and peak memory as JSON.

    python transformers_generate.py FOLDER THREADS SECONDS
"""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM

ANSWERS, LENGTH = 32, 64
torch.set_num_threads(int(sys.argv[2]))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
# No token ends an answer: all are as long.
model.generation_config.eos_token_id = None
model.generation_config.pad_token_id = 0
at = torch.arange(LENGTH)
prompts = torch.stack([102 + (number * 7 + at * at) % 26 for number in range(ANSWERS)])


def answers(most):
    begun = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=most, do_sample=False)
    return out.numel() - prompts.numel(), time.perf_counter() - begun


answers(2)
few, reading = answers(1)
many, whole = answers(LENGTH + 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(rate=(many - few) / (whole - reading), prompt_rate=ANSWERS * LENGTH / reading, peak_bytes=peak)))
