"""Says how llama.cpp goes on greedily from a GGUF file, and what the reader of its makers finds in it.

    pip install gguf==0.19.0 xllamacpp==2026.10.11549
    python llama_cpp.py PROMPT FILE

PROMPT is a text. The answer is JSON: how many tokens the prompt has, the 64 tokens that follow, their log-probabilities,
and how many tensors and words `gguf` reads. Keys and values are kept as 32-bit floats, as in the engine.
"""

import json
import sys

import gguf
import xllamacpp

LENGTH = 64


def answer(path, prompt):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 160
    params.n_parallel = 1
    params.warmup = False
    params.fit_params = False
    params.verbosity = 0
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    said = server.handle_completions(
        dict(prompt=prompt, n_predict=LENGTH, temperature=0, logprobs=1, cache_prompt=False)
    )
    tokens = said["choices"][0]["logprobs"]["content"]
    return dict(
        prompt=said["usage"]["prompt_tokens"],
        tokens=[token["id"] for token in tokens],
        logprobs=[token["logprob"] for token in tokens],
    )


def main():
    prompt, path = sys.argv[1:]
    reader = gguf.GGUFReader(path)
    counts = dict(tensors=len(reader.tensors), words=len(reader.fields))
    print(json.dumps(answer(path, prompt) | counts))


main()
