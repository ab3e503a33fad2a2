"""Uses a gateway through the official `openai` client.

    python openai_client.py BASE_URL KEY MODEL MISSING_MODEL TEACHER BUSY_URL BUSY_KEY

BASE_URL ends with `/v1`. The account behind KEY must be allowed to use MODEL, with log-probabilities of two alternatives
and two answers a request; nothing is assumed of what it says. TEACHER calls tools, obeys forms and makes vectors, in the
manner of `common/teacher.rs`. At BUSY_URL one request may be under way, the prompt `hold` waits after a first word until
another was refused, and the budget holds 4 tokens but not 100. Prints `ok` and ends with 0 where everything is as the
client expects it.
"""

import asyncio
import json
import sys

import openai
import pydantic

base_url, key, model, missing, teacher, busy_url, busy_key = sys.argv[1:8]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60)
WEATHER = {"type": "function", "function": {"name": "weather", "description": "of a city", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}}
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
        refused(kind, code, wrong)


def tools():
    question = [{"role": "user", "content": "How hot is it?"}]
    answer = client.chat.completions.create(model=teacher, messages=question, tools=[WEATHER], parallel_tool_calls=True)
    message = answer.choices[0].message
    check(answer.choices[0].finish_reason == "tool_calls" and message.content is None, answer)
    check([call.function.name for call in message.tool_calls] == ["weather", "weather"], message)
    check(answer.usage.prompt_tokens_details.cached_tokens > 0, answer.usage)
    said = [{"role": "tool", "tool_call_id": call.id, "content": "41 degrees"} for call in message.tool_calls]
    after = client.chat.completions.create(model=teacher, messages=[*question, message, *said], tools=[WEATHER])
    check(after.choices[0].finish_reason == "stop" and "41" in after.choices[0].message.content, after)


def tools_streamed():
    question = [{"role": "user", "content": "How hot is it?"}]
    with client.chat.completions.stream(model=teacher, messages=question, tools=[WEATHER]) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    check("tool_calls.function.arguments.done" in kinds, kinds)
    calls = final.choices[0].message.tool_calls
    check([json.loads(call.function.arguments)["city"] for call in calls] == ["Basra", "Kufa"], calls)
    check(len({call.id for call in calls}) == 2 and final.choices[0].finish_reason == "tool_calls", final)


class Report(pydantic.BaseModel):
    city: str
    degrees: int


def structured():
    answer = client.chat.completions.parse(model=teacher, messages=messages, response_format=Report)
    check(answer.choices[0].message.parsed == Report(city="Basra", degrees=41), answer)
    refused(openai.BadRequestError, "unsupported_parameter", lambda: client.chat.completions.create(
        model=model, messages=messages, response_format={"type": "json_object"}), param="response_format")
    refused(openai.BadRequestError, "unsupported_parameter", lambda: client.chat.completions.create(
        model=model, messages=messages, tools=[WEATHER]), param="tools")


def embeddings():
    # The client asks for base64 of its own accord, and turns it into numbers.
    texts = client.embeddings.create(model=teacher, input=["one", "two"], dimensions=3)
    check([one.index for one in texts.data] == [0, 1] and texts.usage.prompt_tokens > 0, texts)
    check(all(len(one.embedding) == 3 for one in texts.data), texts)
    numbers = client.embeddings.create(model=teacher, input="one", dimensions=3, encoding_format="float")
    check(numbers.data[0].embedding == [round(x, 6) for x in texts.data[0].embedding], (numbers, texts))
    tokens = client.embeddings.create(model=teacher, input=[[1, 2], [3]], dimensions=2)
    check(len(tokens.data) == 2, tokens)
    refused(openai.BadRequestError, "unsupported_parameter", lambda: client.embeddings.create(model=model, input="x"))
    refused(openai.BadRequestError, "invalid_value", lambda: client.embeddings.create(model=teacher, input=""), param="input")


def responses():
    raw = client.responses.with_raw_response.create(model=model, input="Tell me of the sea.", max_output_tokens=12)
    answer = raw.parse()
    check(answer.object == "response" and answer.status in ("completed", "incomplete"), answer)
    check(answer.output_text and answer.usage.total_tokens > 0 and raw.headers["x-request-id"] in answer.id, answer)
    talk = client.responses.create(model=model, instructions="Be brief.", input=[
        {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "input_text", "text": "Go on."}]}])
    check(talk.output[0].role == "assistant" and talk.instructions == "Be brief.", talk)
    events = list(client.responses.create(model=model, input="Tell me of the sea.", stream=True))
    check([event.sequence_number for event in events] == list(range(len(events))), events)
    kinds = [event.type for event in events]
    check(kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                        "response.content_part.added"], kinds)
    check(kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                         "response.completed"], kinds)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    check(text == events[-1].response.output_text, events[-1])
    with client.responses.stream(model=model, input="Tell me of the sea.") as helper:
        for _ in helper:
            pass
        check(helper.get_final_response().output_text == text, text)
    for state in ({"previous_response_id": "resp_1"}, {"store": True}):
        refused(openai.BadRequestError, "unsupported_parameter",
                lambda: client.responses.create(model=model, input="x", **state), param=next(iter(state)))


def responses_with_tools():
    weather = {"type": "function", **WEATHER["function"]}
    asked = [{"role": "user", "content": "How hot is it?"}]
    with client.responses.stream(model=teacher, input=asked, tools=[weather]) as events:
        kinds = [event.type for event in events]
        answer = events.get_final_response()
    check(kinds.count("response.function_call_arguments.done") == 2, kinds)
    check([json.loads(call.arguments)["city"] for call in answer.output] == ["Basra", "Kufa"], answer)
    said = [{"type": "function_call_output", "call_id": call.call_id, "output": "41 degrees"} for call in answer.output]
    calls = [call.model_dump(exclude={"parsed_arguments"}) for call in answer.output]
    after = client.responses.create(model=teacher, input=[*asked, *calls, *said], tools=[weather])
    check("41" in after.output_text, after)
    parsed = client.responses.parse(model=teacher, input="x", text_format=Report)
    check(parsed.output_parsed == Report(city="Basra", degrees=41), parsed)


def busy():
    """One request may be under way there: a second is refused, and tried again when the first is over."""
    there = openai.OpenAI(base_url=busy_url, api_key=busy_key, max_retries=0, timeout=60)
    held = there.chat.completions.create(model=model, messages=[{"role": "user", "content": "hold"}], max_tokens=4, stream=True)
    next(held)
    refused(openai.RateLimitError, "concurrency_limit_exceeded", lambda: there.chat.completions.create(
        model=model, messages=messages, max_tokens=4))
    patient = there.with_options(max_retries=5)
    raw = patient.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=4)
    check(raw.retries_taken >= 1, raw)
    check(list(held)[-1].choices[0].finish_reason == "stop")
    # An empty purse does not fill by itself: the client is told not to try again.
    refused(openai.RateLimitError, "insufficient_quota", lambda: patient.chat.completions.create(
        model=model, messages=messages, max_tokens=100))


def refused(kind, code, wrong, param=None):
    try:
        wrong()
    except kind as error:
        check(error.code == code and error.request_id and param in (None, error.param), error)
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


for step in (models, chat, several, stream, helper, completions, errors, tools, tools_streamed, structured, embeddings,
             responses, responses_with_tools, busy):
    step()
asyncio.run(cancelled())
print("ok")
