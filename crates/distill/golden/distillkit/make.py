"""Writes what DistillKit would write, by the description of its form and not with its code: places.json, with places compressed
under several configurations and what they decode to, and capture.parquet with compression_config.yaml, a capture of two
conversations and a text as its sampler lays it out. Run: python make.py (numpy, pyarrow, tokenizers).
"""

import json
import math
import pathlib
import struct

import numpy
import pyarrow
import pyarrow.parquet
import tokenizers

HERE = pathlib.Path(__file__).parent
RANDOM = numpy.random.default_rng(5)


def bf16(number):
    bits = numpy.float32(number).view(numpy.uint32)
    return numpy.uint16((int(bits) + 0x7FFF + ((int(bits) >> 16) & 1)) >> 16)


KINDS = {
    "float16": (lambda n: numpy.float16(n).tobytes(), lambda n: float(numpy.float16(n))),
    "bfloat16": (
        lambda n: bf16(n).tobytes(),
        lambda n: float(numpy.uint32(int(bf16(n)) << 16).view(numpy.float32)),
    ),
    "float32": (lambda n: numpy.float32(n).tobytes(), lambda n: float(numpy.float32(n))),
    "float64": (lambda n: struct.pack("<d", n), float),
}


def pack(numbers, bits):
    stream = "".join(format(int(number), f"0{bits}b") for number in numbers)
    stream += "0" * (-len(stream) % 8)
    return bytes(int(stream[at : at + 8], 2) for at in range(0, len(stream), 8))


def term(name, ranks):
    return {"sqrt": numpy.sqrt, "exp": numpy.exp}[name](ranks) if isinstance(name, str) else ranks**name


def compress(values, config):
    """The bytes of a place, and what somebody who reads them finds."""
    k, exact = config["k"], config["exact_k"]
    kept = numpy.array(values[:k], dtype=numpy.float64)
    if config["delta_encoding"]:
        kept = numpy.concatenate([kept[:1], numpy.diff(kept)])
    write, rounded = KINDS[config["exact_dtype"]]
    out = b"".join(write(value) for value in kept[:exact])
    decoded = [rounded(value) for value in kept[:exact]]
    rest, count = kept[exact:], k - exact
    fit = numpy.zeros(count)
    if config["polynomial_terms"]:
        ranks = numpy.linspace(0, 1, count) if config["normalize_t"] else numpy.arange(count, dtype=numpy.float64)
        matrix = numpy.stack([term(name, ranks) for name in config["polynomial_terms"]], axis=-1)
        write, as_kept = KINDS[config["term_dtype"]]
        coefficients = numpy.linalg.lstsq(matrix, rest, rcond=None)[0]
        out += b"".join(write(value) for value in coefficients)
        fit = matrix @ numpy.array([as_kept(value) for value in coefficients])
    left, found, at = rest - fit, numpy.zeros(count), 0
    for bin in config["residual_bins"]:
        part, bits = left[at : at + bin["num_elements"]], bin["element_bits"]
        write, as_kept = KINDS[bin["scale_dtype"]]
        scale = as_kept(numpy.abs(part).max() / (1.0 if bits == 1 else 2 ** (bits - 1)))
        if bits == 1:
            whole = (part > 0).astype(int)
            found[at : at + len(part)] = (2 * whole - 1) * scale
        else:
            half = 2 ** (bits - 1)
            whole = numpy.clip(numpy.round(part / scale), -half, half - 1).astype(int) + half
            found[at : at + len(part)] = (whole - half) * scale
        out += write(scale) + pack(whole, bits)
        at += len(part)
    decoded += list(fit + found)
    if config["delta_encoding"]:
        decoded = [rounded(value) for value in numpy.cumsum(decoded)] if exact else list(numpy.cumsum(decoded))
    return out, [min(float(value), 0.0) for value in decoded]


def configuration(**more):
    base = {
        "d": 300,
        "k": 16,
        "exact_k": 16,
        "exact_dtype": "float32",
        "polynomial_terms": None,
        "term_dtype": "float32",
        "residual_bins": [],
        "delta_encoding": False,
        "error_diffusion": False,
        "normalize_t": False,
    }
    return base | more


def yaml(config):
    """As PyYAML's safe_dump writes it."""
    lines = []
    for name, value in sorted(config.items()):
        if isinstance(value, list) and value:
            lines.append(f"{name}:")
            for item in value:
                if isinstance(item, dict):
                    pairs = [f"{own}: {word}" for own, word in sorted(item.items())]
                    lines += [f"- {pairs[0]}"] + [f"  {pair}" for pair in pairs[1:]]
                else:
                    lines.append(f"- {item}")
        else:
            word = {None: "null", True: "true", False: "false"}.get(value if isinstance(value, (bool, type(None))) else 0.5)
            lines.append(f"{name}: {word if word is not None else value}")
    return "\n".join(lines) + "\n"


def distribution(size, likely=None):
    logits = RANDOM.normal(size=size) * 3.0
    if likely is not None:
        logits[likely] += 20.0
    return logits - math.log(numpy.exp(logits).sum())


def places():
    bins = [
        {"scale_dtype": "float16", "element_bits": 4, "num_elements": 4},
        {"scale_dtype": "float32", "element_bits": 1, "num_elements": 3},
    ]
    cases = [
        ("exact", configuration(), 1e-6),
        ("bfloat16", configuration(exact_dtype="bfloat16"), 1e-6),
        ("powers", configuration(exact_k=4, polynomial_terms=[0, 1, 2, "sqrt"]), 1e-4),
        ("unit ranks", configuration(exact_k=4, polynomial_terms=[0, 1, 2, "exp"], normalize_t=True), 1e-4),
        ("bins", configuration(exact_k=2, exact_dtype="float16", polynomial_terms=[0, 1], residual_bins=bins), 1e-3),
        ("differences", configuration(exact_k=5, polynomial_terms=[0, 1], residual_bins=bins, delta_encoding=True), 1e-4),
        ("all exact differences", configuration(d=70000, k=7, exact_k=7, delta_encoding=True), 1e-6),
    ]
    written = []
    for name, config, near in cases:
        rows = []
        for _ in range(3):
            logprobs = distribution(config["d"])
            ids = numpy.argsort(-logprobs)[: config["k"]]
            packed, decoded = compress(logprobs[ids], config)
            bits = math.ceil(math.log2(config["d"]))
            rows.append(
                {
                    "logprobs": list(packed),
                    "indices": list(pack(ids, bits)),
                    "ids": [int(one) for one in ids],
                    "decoded": decoded,
                }
            )
        written.append({"name": name, "config": yaml(config), "near": near, "places": rows})
    (HERE / "places.json").write_text(json.dumps(written))


TEXTS = [
    "<|user|>Which colour has the boat?<|end|><|assistant|>The boat is red.<|end|>",
    "<|user|>And the lamp?<|end|><|assistant|>Grey.<|end|><|user|>And the bird?<|end|><|assistant|>It is\n\u00e9blouissant!<|end|>",
    "No one speaks here; the text goes on",
]


def capture():
    tokenizer = tokenizers.Tokenizer.from_file(str(HERE / "tokenizer.json"))
    config = configuration(d=tokenizer.get_vocab_size() + 1, k=20, exact_k=20)
    (HERE / "compression_config.yaml").write_text(yaml(config))
    columns = {"input_ids": [], "compressed_logprobs": [], "bytepacked_indices": []}
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        # One token more, so that the last one is scored too.
        if ids[-1] != 0:
            ids.append(0)
        bits, logprob_rows, index_rows = math.ceil(math.log2(config["d"])), [], []
        for target in ids[1:]:
            logprobs = distribution(config["d"] - 1, likely=target)
            named = numpy.argsort(-logprobs)[: config["k"]]
            logprob_rows.append(list(compress(logprobs[named], config)[0]))
            index_rows.append(list(pack(named, bits)))
        for name, value in zip(columns, (ids, logprob_rows, index_rows)):
            columns[name].append(value)
    byte_lists = pyarrow.list_(pyarrow.list_(pyarrow.uint8()))
    schema = pyarrow.schema(
        [
            ("input_ids", pyarrow.list_(pyarrow.uint64())),
            ("compressed_logprobs", byte_lists),
            ("bytepacked_indices", byte_lists),
        ]
    )
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), HERE / "capture.parquet")


places()
capture()
