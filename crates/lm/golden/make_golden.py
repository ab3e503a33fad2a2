"""Writes small random Llama models and the logits that transformers gives for them.

    pip install torch transformers
    python make_golden.py

Each folder holds config.json and model.safetensors as `save_pretrained` writes them (one in shards, some in half precision),
and golden.json: token sequences with the logits after every token, computed in 32-bit floats.
"""

import json
import pathlib
import shutil

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

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

STORED = {"grouped": torch.bfloat16, "linear": torch.bfloat16, "untied-theta": torch.float16}


def main():
    for number, (name, changes) in enumerate(CASES.items()):
        torch.manual_seed(number)
        model = LlamaForCausalLM(LlamaConfig(**{**BASE, **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Larger than the usual start, so that every part of the computation shows in the logits.
                parameter.add_(torch.randn_like(parameter) * 0.2)
        stored = STORED.get(name, torch.float32)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        shards = dict(max_shard_size="16KB") if name == "head-dim" else {}
        model.to(stored).save_pretrained(folder, **shards)
        (folder / "generation_config.json").unlink(missing_ok=True)
        # Loaded afresh: a model that was in half precision keeps rotary frequencies rounded to it.
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        sequences = [[5], [1, 7, 7, 39, 3], [(i * i + number) % 40 for i in range(70)]]
        golden = []
        for tokens in sequences:
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0]
            # Of the long sequence only every seventh place is kept, to save room.
            places = [at for at in range(len(tokens)) if len(tokens) < 10 or at % 7 == 6]
            rows = [[round(x, 6) for x in logits[at].tolist()] for at in places]
            golden.append(dict(tokens=tokens, places=places, logits=rows))
        versions = dict(torch=torch.__version__, transformers=transformers.__version__)
        (folder / "golden.json").write_text(json.dumps(dict(made_with=versions, sequences=golden)) + "\n")


main()
