"""Trains the Llama of a folder with PyTorch, eagerly, in 32-bit floats; says tokens a second and peak memory as JSON.

    python torch_train.py FOLDER THREADS SECONDS LENGTH
"""

import json
import pathlib
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

folder, threads, seconds, LENGTH = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
config = json.loads((folder / "config.json").read_text())
D, HEADS, VOCAB = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
FFN, EPS, HEAD = config["intermediate_size"], config["rms_norm_eps"], config["hidden_size"] // config["num_attention_heads"]
ROWS = max(1, (2048 if D == 256 else 512) // LENGTH)


def turned(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.v_proj, self.o_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.gate_proj, self.up_proj = nn.Linear(D, FFN, bias=False), nn.Linear(D, FFN, bias=False)
        self.down_proj = nn.Linear(FFN, D, bias=False)
        self.input_layernorm = nn.RMSNorm(D, eps=EPS)
        self.post_attention_layernorm = nn.RMSNorm(D, eps=EPS)

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape
        y = self.input_layernorm(x)
        heads = lambda z: z.view(rows, length, HEADS, HEAD).transpose(1, 2)
        q, k = turned(heads(self.q_proj(y)), cos, sin), turned(heads(self.k_proj(y)), cos, sin)
        y = F.scaled_dot_product_attention(q, k, heads(self.v_proj(y)), is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(rows, length, D))
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList(Layer() for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(D, eps=EPS)

    def forward(self, tokens, cos, sin):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)


model = Llama()
names = {name.replace("self_attn.", "").replace("mlp.", "").removeprefix("model."): value
         for name, value in load_file(folder / "model.safetensors").items()}
model.load_state_dict(names)
angles = torch.outer(torch.arange(float(LENGTH)), 1e4 ** (-torch.arange(0, HEAD, 2) / HEAD))
cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
at = torch.arange(LENGTH + 1)
tokens = torch.stack([(row * 7919 + at * at * 31 + at * 17) % VOCAB for row in range(ROWS)])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0)


def step():
    optimizer.zero_grad(set_to_none=True)
    logits = model(tokens[:, :-1], cos, sin)
    loss = F.cross_entropy(logits.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


losses = [step() for _ in range(3)]
begun, steps = time.perf_counter(), 0
while time.perf_counter() - begun < seconds or steps == 0:
    step()
    steps += 1
rate = steps * ROWS * LENGTH / (time.perf_counter() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(rate=rate, prompt_rate=None, losses=losses, peak_bytes=peak)))
