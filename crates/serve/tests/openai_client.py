"""Uses a gateway through the official `openai` client.

    python openai_client.py BASE_URL KEY MODEL MISSING_MODEL

BASE_URL ends with `/v1`. The account behind KEY must be allowed to use MODEL, with log-probabilities of two alternatives
and two answers a request. Nothing is assumed of what the model says. Prints `ok` and ends with 0 where everything is as
the client expects it.
"""

import asyncio
import sys

import openai

base_url, key, model, missing = sys.argv[1:5]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60)
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of the sea."}]


def check(condition, *about):
    if not condition:
        raise AssertionError(about)


def models():
    names = [one.id for one in client.models.list()]
    check(model in names, names)
    check(client.models.retrieve(model).id == model)


def chat():
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=12)
    answer = raw.parse()
    check(answer.object == "chat.completion" and answer.model == model, answer)
    check(answer.choices[0].message.role == "assistant", answer)
    check(answer.choices[0].finish_reason in ("stop", "length"), answer)
    check(answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer)
    check(raw.headers["x-request-id"] in answer.id, raw.headers)
    check(int(raw.headers["openai-processing-ms"]) >= 0, raw.headers)


def several():
    answer = client.chat.completions.create(
        model=model, messages=messages, n=2, temperature=0.7, top_p=0.9, seed=3, stop=["\n\n\n"],
        max_completion_tokens=8, logprobs=True, top_logprobs=2,
    )
    check([choice.index for choice in answer.choices] == [0, 1], answer)
    tokens = answer.choices[0].logprobs.content
    check(all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens), tokens)
    text = b"".join(bytes(token.bytes) for token in tokens).decode("utf-8", "replace")
    check(text.startswith(answer.choices[0].message.content), text)


def stream():
    chunks = list(client.chat.completions.create(
        model=model, messages=messages, max_tokens=12, stream=True, stream_options={"include_usage": True},
    ))
    check(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    check(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens >= 0, chunks[-1])
    check(chunks[-2].choices[0].finish_reason in ("stop", "length"), chunks[-2])
    check(len({chunk.id for chunk in chunks}) == 1, chunks)


def helper():
    with client.chat.completions.stream(model=model, messages=messages, max_tokens=12) as events:
        for _ in events:
            pass
        check(events.get_final_completion().choices[0].message.role == "assistant")


def completions():
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, logprobs=1)
    columns = answer.choices[0].logprobs
    check(len(columns.tokens) == len(columns.token_logprobs) == len(columns.text_offset), columns)
    parts = list(client.completions.create(model=model, prompt=["Once upon a time"], max_tokens=8, stream=True))
    check(parts[-1].choices[0].finish_reason in ("stop", "length"), parts[-1])


def errors():
    for wrong, kind, code in [
        (lambda: client.chat.completions.create(model=missing, messages=messages), openai.NotFoundError, "model_not_found"),
        (lambda: client.chat.completions.create(model=model, messages=[]), openai.BadRequestError, "invalid_value"),
        (lambda: client.completions.create(model=model, prompt="x", echo=True), openai.BadRequestError, "unsupported_parameter"),
        (lambda: client.with_options(api_key="wrong").models.list(), openai.AuthenticationError, "invalid_api_key"),
    ]:
        try:
            wrong()
        except kind as error:
            check(error.code == code and error.request_id, error)
        else:
            check(False, kind)


async def cancelled():
    """Leaves a stream in the middle, and asks again."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as concurrent:
        async with await concurrent.chat.completions.create(model=model, messages=messages, stream=True) as chunks:
            async for _ in chunks:
                break
        asking = (concurrent.chat.completions.create(model=model, messages=messages, max_tokens=4) for _ in range(8))
        check(len(await asyncio.gather(*asking)) == 8)


for step in (models, chat, several, stream, helper, completions, errors):
    step()
asyncio.run(cancelled())
print("ok")
