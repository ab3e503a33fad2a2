"""Trains a Llama of 6m or 110m parameters with PyTorch, eagerly, on a card; says tokens a second and peak memory.

    python torch_train.py SIZE ROWS MODE SECONDS

MODE is f32, tf32 or bf16 (autocast). The networks and tokens are those of `bench.rs`; the weights are random.
"""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

size, rows, mode, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
VOCAB, D, FFN, LAYERS, HEADS = (4096, 256, 704, 6, 8) if size == "6m" else (16384, 768, 2048, 14, 12)
HEAD = D // HEADS
torch.backends.cuda.matmul.allow_tf32 = mode != "f32"
torch.manual_seed(1)


def turned(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.gate_up, self.down = nn.Linear(D, 2 * FFN, bias=False), nn.Linear(FFN, D, bias=False)
        self.before, self.middle = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)

    def forward(self, x, cos, sin):
        count, length, _ = x.shape
        q, k, v = self.qkv(self.before(x)).view(count, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(turned(q, cos, sin), turned(k, cos, sin).to(v.dtype), v, is_causal=True) \
            if mode != "bf16" else F.scaled_dot_product_attention(
                turned(q, cos, sin).to(v.dtype), turned(k, cos, sin).to(v.dtype), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(count, length, D))
        gate, up = self.gate_up(self.middle(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(D, eps=1e-5)

    def forward(self, tokens, cos, sin):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed.weight)


model = Llama().cuda()
for parameter in model.parameters():
    if parameter.dim() > 1:
        nn.init.normal_(parameter, std=0.02)
angles = torch.outer(torch.arange(256.0), 1e4 ** (-torch.arange(0, HEAD, 2) / HEAD))
cos, sin = torch.cat((angles, angles), -1).cos().cuda(), torch.cat((angles, angles), -1).sin().cuda()
at = torch.arange(257)
tokens = torch.stack([(row * 7919 + at * at * 31 + at * 17) % VOCAB for row in range(rows)]).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0)


def step():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=mode == "bf16"):
        logits = model(tokens[:, :-1], cos, sin)
    loss = F.cross_entropy(logits.float().reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


losses = [step() for _ in range(3)]
torch.cuda.synchronize()
begun, steps = time.perf_counter(), 0
while time.perf_counter() - begun < seconds or steps == 0:
    step()
    steps += 1
torch.cuda.synchronize()
rate = steps * rows * 256 / (time.perf_counter() - begun)
peak = torch.cuda.max_memory_allocated() / 1e6
print(f"{size} {rows}x256 torch {torch.__version__} eager {mode}: {rate:.0f} tokens/s; "
      f"losses {losses}; {torch.cuda.get_device_name()}, {peak:.0f} MB of memory")
