"""Generates with llama.cpp (PyPI's xllamacpp), in 32-bit floats; says tokens a second and peak memory as JSON.

    python llama_generate.py FOLDER THREADS SECONDS
"""

import json
import pathlib
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import xllamacpp

ANSWERS, LENGTH = 32, 64
params = xllamacpp.CommonParams()
params.model.path = str(pathlib.Path(sys.argv[1]) / "model.gguf")
params.n_ctx = ANSWERS * 256
params.n_parallel = ANSWERS
params.cpuparams.n_threads = int(sys.argv[2])
params.cpuparams_batch.n_threads = int(sys.argv[2])
params.warmup = False
params.fit_params = False
params.verbosity = 0
params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(params)


def one(number, most):
    prompt = "".join(chr(97 + (number * 7 + at * at) % 26) for at in range(LENGTH))
    request = dict(prompt=prompt, n_predict=most, temperature=0, ignore_eos=True, cache_prompt=False)
    return server.handle_completions(request)["usage"]["completion_tokens"]


def answers(most):
    begun = time.perf_counter()
    with ThreadPoolExecutor(ANSWERS) as pool:
        tokens = sum(pool.map(lambda number: one(number, most), range(ANSWERS)))
    return tokens, time.perf_counter() - begun


answers(2)
few, reading = answers(1)
many, whole = answers(LENGTH + 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(rate=(many - few) / (whole - reading), prompt_rate=ANSWERS * LENGTH / reading, peak_bytes=peak)))
