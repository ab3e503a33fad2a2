"""Writes small random models of every family and the logits that transformers gives for them.

    pip install torch==2.15.0 transformers==5.23.0
    python make_golden.py

Each folder holds config.json and model.safetensors as `save_pretrained` writes them (one in shards, some in half precision),
and golden.json: token sequences with the logits after every token, computed in 32-bit floats. Some configurations are
rewritten as transformers 4 wrote them; the logits are then those of the rewritten folder.
"""

import json
import pathlib
import shutil

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config

HERE = pathlib.Path(__file__).parent

BASE = dict(
    vocab_size=40,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)

# With three frequencies a head, these numbers leave one alone, stretch one in part and one in full.
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=0.5,
    high_freq_factor=4.0,
    original_max_position_embeddings=128,
)

CASES = {
    "tied": dict(tie_word_embeddings=True),
    "untied-theta": dict(tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=5e5)),
    "grouped": dict(num_key_value_heads=2, tie_word_embeddings=True),
    "head-dim": dict(head_dim=12, num_key_value_heads=1, tie_word_embeddings=False),
    "llama3": dict(rope_parameters=LLAMA3, tie_word_embeddings=True, eos_token_id=[2, 3]),
    "linear": dict(
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0), tie_word_embeddings=True
    ),
}

# The long sequence passes the windows, and tiles and blocks of 64 positions, and is longer than YaRN's original context.
FAMILIES = dict(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=True,
)

YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)

FAMILY_CASES = {
    "smollm2": (LlamaConfig, dict(rope_parameters=dict(rope_type="default", rope_theta=1e5))),
    "llama-bias": (LlamaConfig, dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=False)),
    "llama-yarn": (
        LlamaConfig,
        dict(head_dim=16, rope_parameters=dict(YARN, beta_fast=16.0, beta_slow=2.0, mscale=1.0, mscale_all_dim=0.5)),
    ),
    "mistral": (MistralConfig, dict(sliding_window=20, tie_word_embeddings=False)),
    "mistral-full": (MistralConfig, dict(sliding_window=None, head_dim=12)),
    "qwen2": (Qwen2Config, dict(bos_token_id=None, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen2-yarn": (Qwen2Config, dict(tie_word_embeddings=False, rope_parameters=YARN)),
    "qwen2-window": (
        Qwen2Config,
        dict(
            use_sliding_window=True,
            sliding_window=70,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "qwen3": (Qwen3Config, dict(head_dim=12, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen3-bias": (
        Qwen3Config,
        dict(
            head_dim=16,
            num_key_value_heads=1,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=9,
            max_window_layers=1,
            tie_word_embeddings=False,
            rope_parameters=dict(YARN, truncate=False, attention_factor=1.25),
        ),
    ),
    "smollm3": (SmolLM3Config, dict(num_hidden_layers=4)),
    "smollm3-window": (
        SmolLM3Config,
        dict(
            attention_bias=True,
            mlp_bias=True,
            no_rope_layers=[0, 1, 0],
            use_sliding_window=True,
            sliding_window=24,
            tie_word_embeddings=False,
            rope_parameters=dict(LLAMA3, original_max_position_embeddings=64),
        ),
    ),
}

STORED = {
    "grouped": torch.bfloat16,
    "linear": torch.bfloat16,
    "untied-theta": torch.float16,
    "smollm2": torch.bfloat16,
    "llama-bias": torch.bfloat16,
    "llama-yarn": torch.bfloat16,
    "mistral": torch.bfloat16,
    "mistral-full": torch.float16,
    "qwen2-yarn": torch.bfloat16,
    "qwen2-window": torch.bfloat16,
    "qwen3-bias": torch.float16,
    "smollm3": torch.bfloat16,
    "smollm3-window": torch.bfloat16,
}

SHARDS = {"head-dim": "16KB", "smollm3-window": "40KB"}

OLDER = ["llama-yarn", "mistral", "qwen2", "qwen2-yarn", "qwen3-bias", "smollm3"]


def older(path):
    """Rewrites a config.json as transformers 4 wrote it."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(type=kind, **rope)
    config["torch_dtype"] = config.pop("dtype")
    if "use_sliding_window" in config:
        # Which transformers 4 did not know at first: layers from `max_window_layers` on.
        config.pop("layer_types")
    if config.get("use_sliding_window") is False:
        config["sliding_window"] = 4096
    path.write_text(json.dumps(config, indent=2) + "\n")


def main():
    cases = {name: (LlamaConfig, {**BASE, **changes}) for name, changes in CASES.items()}
    cases.update({name: (kind, {**FAMILIES, **changes}) for name, (kind, changes) in FAMILY_CASES.items()})
    for number, (name, (kind, settings)) in enumerate(cases.items()):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(kind(**settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Larger than the usual start, so that every part of the computation shows in the logits.
                parameter.add_(torch.randn_like(parameter) * 0.2)
        stored = STORED.get(name, torch.float32)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        shards = dict(max_shard_size=SHARDS[name]) if name in SHARDS else {}
        model.to(stored).save_pretrained(folder, **shards)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if name in OLDER:
            older(folder / "config.json")
        # Loaded afresh: a model that was in half precision keeps rotary frequencies rounded to it.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        vocabulary = settings["vocab_size"]
        length, every = (70, 7) if name in CASES else (160, 16)
        sequences = [[5], [1, 7, 7, 39, 3], [(i * i + number) % vocabulary for i in range(length)]]
        golden = []
        for tokens in sequences:
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0]
            # Of the long sequence only some places are kept, to save room.
            places = [at for at in range(len(tokens)) if len(tokens) < 10 or at % every == every - 1]
            rows = [[round(x, 6) for x in logits[at].tolist()] for at in places]
            golden.append(dict(tokens=tokens, places=places, logits=rows))
        versions = dict(torch=torch.__version__, transformers=transformers.__version__)
        (folder / "golden.json").write_text(json.dumps(dict(made_with=versions, sequences=golden)) + "\n")


main()
