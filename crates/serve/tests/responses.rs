//! The endpoint `/v1/responses`, which goes the way of a chat.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use anbiq_domain::{Draws, Outcome, Prompt, Route};
use anbiq_model::{Event, Fault, ModelError, Request};
use common::teacher::{TEACHER, Teacher};
use common::{House, Mock, Reply, Setup, Step, blank, coin, said, text, with};
use insta::assert_snapshot;
use serde_json::{Value, json};

async fn house(twin_share: f64) -> (House, Teacher) {
    let (teacher, model) = Teacher::start().await;
    let mut setup = Setup { more: vec![model], ..Setup::default() };
    setup.plan.twin.share = twin_share;
    (House::furnished(setup).await, teacher)
}

async fn respond(house: &House, body: &Value) -> Reply {
    house.send(house.post("/v1/responses", body, &[])).await
}

/// The events, each with its type as its `event:` line says it.
fn events(reply: &Reply) -> Vec<Value> {
    let mut events = Vec::new();
    for event in reply.body.split_terminator("\n\n") {
        let (kind, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(kind.strip_prefix("event: "), data["type"].as_str());
        assert_eq!(data["sequence_number"], events.len());
        events.push(data);
    }
    events
}

fn weather() -> Value {
    json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": true}])
}

#[tokio::test]
async fn a_response_is_given_whole() {
    let (house, _) = house(0.0).await;
    let body = json!({"model": "open", "input": "one two", "instructions": "be brief", "max_output_tokens": 9, "metadata": {"a": "b"}});
    let reply = respond(&house, &body).await;
    assert_snapshot!(blank(&reply.body), @r#"{"id":"resp_ID","object":"response","created_at":1770000000,"status":"completed","error":null,"incomplete_details":null,"model":"open","output":[{"type":"message","id":"msg_ID_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"draw 0: one two","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":2,"input_tokens_details":{"cached_tokens":0},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":6},"instructions":"be brief","max_output_tokens":9,"metadata":{"a":"b"},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{},"store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled"}"#);
    let exchange = house.exchange(1).await;
    assert_eq!(
        (exchange.request.route, exchange.request.max_tokens, exchange.outcome),
        (Route::Responses, 9, Outcome::Completed)
    );
    assert_eq!(reply.header("x-request-id"), exchange.id.to_string());
    assert_snapshot!(exchange.texts.unwrap().prompt.canonical(), @r#"{"chat":[{"role":"system","content":"be brief"},{"role":"user","content":"one two"}]}"#);
    assert_eq!(house.settled().await.spent, exchange.cost);
}

#[tokio::test]
async fn a_response_is_streamed() {
    let (house, _) = house(0.0).await;
    let reply = respond(&house, &json!({"model": "open", "input": "one two", "stream": true})).await;
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    events(&reply);
    assert_snapshot!(blank(&reply.body), @r#"
    event: response.created
    data: {"type":"response.created","response":{"id":"resp_ID","object":"response","created_at":1770000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"open","output":[],"usage":null,"instructions":null,"max_output_tokens":null,"metadata":{},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{},"store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled"},"sequence_number":0}

    event: response.in_progress
    data: {"type":"response.in_progress","response":{"id":"resp_ID","object":"response","created_at":1770000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"open","output":[],"usage":null,"instructions":null,"max_output_tokens":null,"metadata":{},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{},"store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled"},"sequence_number":1}

    event: response.output_item.added
    data: {"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"msg_ID_0","status":"in_progress","role":"assistant","content":[]},"sequence_number":2}

    event: response.content_part.added
    data: {"type":"response.content_part.added","item_id":"msg_ID_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]},"sequence_number":3}

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","item_id":"msg_ID_0","output_index":0,"content_index":0,"delta":"draw ","logprobs":[],"sequence_number":4}

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","item_id":"msg_ID_0","output_index":0,"content_index":0,"delta":"0: ","logprobs":[],"sequence_number":5}

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","item_id":"msg_ID_0","output_index":0,"content_index":0,"delta":"one ","logprobs":[],"sequence_number":6}

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","item_id":"msg_ID_0","output_index":0,"content_index":0,"delta":"two","logprobs":[],"sequence_number":7}

    event: response.output_text.done
    data: {"type":"response.output_text.done","item_id":"msg_ID_0","output_index":0,"content_index":0,"text":"draw 0: one two","logprobs":[],"sequence_number":8}

    event: response.content_part.done
    data: {"type":"response.content_part.done","item_id":"msg_ID_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"draw 0: one two","annotations":[],"logprobs":[]},"sequence_number":9}

    event: response.output_item.done
    data: {"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"msg_ID_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"draw 0: one two","annotations":[],"logprobs":[]}]},"sequence_number":10}

    event: response.completed
    data: {"type":"response.completed","response":{"id":"resp_ID","object":"response","created_at":1770000000,"status":"completed","error":null,"incomplete_details":null,"model":"open","output":[{"type":"message","id":"msg_ID_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"draw 0: one two","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":2,"input_tokens_details":{"cached_tokens":0},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":6},"instructions":null,"max_output_tokens":null,"metadata":{},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{},"store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled"},"sequence_number":11}
    "#);
}

#[tokio::test]
async fn functions_are_called() {
    let (house, teacher) = house(1.0).await;
    let body = json!({"model": TEACHER, "input": "how hot?", "tools": weather(), "tool_choice": {"type": "function", "name": "weather"}});
    let whole = respond(&house, &body).await.json();
    let calls: Vec<&Value> = whole["output"].as_array().unwrap().iter().collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&calls[0]["type"], &calls[0]["name"], &calls[1]["arguments"]),
        (&json!("function_call"), &json!("weather"), &json!("{\"city\":\"Kufa\"}"))
    );
    let asked = &teacher.asked()[0];
    assert_eq!(
        asked["tools"],
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": true}}])
    );
    assert_eq!(asked["tool_choice"], json!({"type": "function", "function": {"name": "weather"}}));

    let reply = respond(&house, &with(body.clone(), json!({"stream": true}))).await;
    let events = events(&reply);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_snapshot!(kinds.join(" "), @r#"response.created response.in_progress response.output_item.added response.function_call_arguments.delta response.function_call_arguments.delta response.output_item.added response.function_call_arguments.delta response.function_call_arguments.delta response.function_call_arguments.done response.output_item.done response.function_call_arguments.done response.output_item.done response.completed"#);
    assert_eq!(events.last().unwrap()["response"]["output"][1]["arguments"], "{\"city\":\"Kufa\"}");

    // A conversation goes on with what the functions said.
    let mut input = vec![json!({"role": "user", "content": [{"type": "input_text", "text": "how hot?"}]})];
    input.extend(whole["output"].as_array().unwrap().iter().cloned());
    input.extend(
        calls.iter().map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "41"})),
    );
    let reply = respond(&house, &with(body, json!({"input": input, "tool_choice": "auto"}))).await;
    assert!(reply.json()["output"][0]["content"][0]["text"].as_str().unwrap().ends_with("of 41"), "{}", reply.body);
    let messages = teacher.asked().last().unwrap()["messages"].clone();
    let roles: Vec<&str> =
        messages.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool"]);
    assert_eq!(
        (messages[1]["tool_calls"].as_array().unwrap().len(), &messages[2]["tool_call_id"]),
        (2, &calls[0]["call_id"])
    );

    // All of them were twinned, as chats are.
    for number in 1..=house.exchanges().len() {
        let exchange = house.with_twins(number).await;
        let texts = exchange.texts.unwrap();
        assert!(exchange.draws.twinning.is_some());
        assert_eq!(
            Draws { twinning: None, ..exchange.draws },
            Draws::commit(&coin(), exchange.id, &texts.prompt, &texts.answers)
        );
    }
}

#[tokio::test]
async fn forms_images_and_log_probabilities_are_asked_for_in_other_words() {
    let (house, teacher) = house(0.0).await;
    let format = json!({"type": "json_schema", "name": "r", "schema": {"type": "object"}, "strict": true});
    let parts =
        json!([{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:x", "detail": "low"}]);
    let body = json!({"model": TEACHER, "input": [{"role": "user", "content": parts}], "reasoning": {"effort": "low"},
        "text": {"format": format, "verbosity": "low"}, "store": false, "truncation": "disabled"});
    let reply = respond(&house, &body).await;
    assert_eq!(
        reply.json()["output"][0]["content"][0]["text"],
        "{\"city\":\"Basra\",\"degrees\":41}",
        "{}",
        reply.body
    );
    assert_eq!(reply.json()["text"], json!({"format": format, "verbosity": "low"}));
    let asked = &teacher.asked()[0];
    assert_eq!(
        asked["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object"}, "strict": true}})
    );
    assert_eq!((&asked["reasoning_effort"], &asked["verbosity"]), (&json!("low"), &json!("low")));
    assert_eq!(
        asked["messages"][0]["content"],
        json!([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}])
    );

    let body = json!({"model": "open", "input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 1});
    let reply = respond(&house, &body).await;
    assert_eq!(reply.json()["output"][0]["content"][0]["logprobs"][0]["top_logprobs"][0]["token"], "t0");
    let reply = respond(&house, &with(body, json!({"stream": true}))).await;
    let delta = events(&reply).into_iter().find(|event| event["type"] == "response.output_text.delta").unwrap();
    assert_eq!(delta["logprobs"][0]["token"], "draw ");
}

#[tokio::test]
async fn what_is_cut_off_or_fails_says_so() {
    let script = |request: &Request| match request.prompt.last_text() {
        "long" => vec![
            Step::Do(text(0, "a", None)),
            Step::Do(Event::Finished { index: 0, finish: anbiq_domain::Finish::Length, tokens: 1 }),
            Step::Do(common::usage(1, 1)),
        ],
        "silent" => vec![Step::Do(common::finished(0, 0)), Step::Do(common::usage(1, 0))],
        _ => vec![Step::Do(text(0, "a", None)), Step::Fail(ModelError::new(Fault::Model, "broken", "it broke"))],
    };
    let house = House::furnished(Setup { mock: Mock::new(script), ..Setup::default() }).await;
    for stream in [false, true] {
        let ask = |input: &str| json!({"model": "open", "input": input, "stream": stream});
        let end = |reply: &Reply| if stream { events(reply).last().unwrap().clone() } else { reply.json() };
        let long = end(&respond(&house, &ask("long")).await);
        let response = if stream { &long["response"] } else { &long };
        assert_eq!(
            (&response["status"], &response["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("max_output_tokens"))
        );
        assert_eq!(response["output"][0]["status"], "incomplete");
        assert_eq!(long["type"], if stream { json!("response.incomplete") } else { Value::Null });
        let silent = end(&respond(&house, &ask("silent")).await);
        let response = if stream { &silent["response"] } else { &silent };
        assert_eq!(
            (&response["status"], &response["output"][0]["content"][0]["text"]),
            (&json!("completed"), &json!(""))
        );
        let broken = end(&respond(&house, &ask("break")).await);
        let code = if stream { &broken["code"] } else { &broken["error"]["code"] };
        assert_eq!(code, "broken", "{broken}");
    }
}

#[tokio::test]
async fn what_needs_memory_is_refused() {
    let (house, teacher) = house(0.0).await;
    let ask = |changes: Value| with(json!({"model": "open", "input": "x"}), changes);
    let mut lines = Vec::new();
    for changes in [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "c"}),
        json!({"store": true}),
        json!({"background": true}),
        json!({"truncation": "auto"}),
        json!({"include": ["file_search_call.results"]}),
        json!({"tools": [{"type": "web_search"}]}),
        json!({"tools": weather()}),
        json!({"tools": [{"type": "function"}], "model": TEACHER}),
        json!({"tool_choice": 1}),
        json!({"text": {"format": {"type": "json_object"}}}),
        json!({"text": {"format": {"type": "xml"}}}),
        json!({"input": []}),
        json!({"input": 5}),
        json!({"input": [{"type": "item_reference", "id": "x"}]}),
        json!({"input": [{"role": "nobody", "content": "x"}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]}),
        json!({"max_output_tokens": 0}),
        json!({"max_output_tokens": 101}),
        json!({"top_logprobs": 2}),
        json!({"include": ["message.output_text.logprobs"], "top_logprobs": 6}),
    ] {
        let reply = respond(&house, &ask(changes)).await;
        let error = &reply.json()["error"];
        lines.push(format!("{} {} {}: {}", reply.status.as_u16(), error["code"], error["param"], error["message"]));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    400 "unsupported_parameter" "previous_response_id": "`previous_response_id` is not supported: no conversation is kept: send the whole of it in `input`"
    400 "unsupported_parameter" "conversation": "`conversation` is not supported: no conversation is kept: send the whole of it in `input`"
    400 "unsupported_parameter" "store": "`store` is not supported: no answer is kept: leave `store` out, or set it to false"
    400 "unsupported_parameter" "background": "`background` is not supported: no answer is kept, so none can be fetched later"
    400 "unsupported_parameter" "truncation": "`truncation` is not supported: what is asked goes to the model as it is"
    400 "unsupported_parameter" "include": "`file_search_call.results` cannot be included"
    400 "unsupported_parameter" "tools.[0].type": "a tool is of the type `function`: this gateway runs none of its own"
    400 "unsupported_parameter" "tools": "`tools` is not supported by this model"
    400 "invalid_value" "tools.[0].name": "a function has a name"
    400 "unsupported_parameter" "tool_choice": "`tool_choice` is `auto`, `none`, `required` or one function"
    400 "unsupported_parameter" "text.format": "`text.format` is not supported by this model"
    400 "invalid_value" "text.format.type": "the type of `text.format` is `text`, `json_object` or `json_schema`"
    400 "invalid_value" "input": "`input` is empty: something is asked"
    400 "invalid_value" "input": "invalid value for `input`: expected a string or a list of items"
    400 "unsupported_parameter" "input.[0].type": "no items are kept: send the item itself"
    400 "unsupported_parameter" "input.[0].role": "a message has a role: `user`, `assistant`, `system`"
    400 "unsupported_parameter" "input.[0].content": "a part of the type `input_file` is not supported as it is"
    400 "unsupported_parameter" "input": "content of type `image_url` is not supported by this model: text only"
    400 "invalid_value" "max_output_tokens": "`max_output_tokens` is at least 1"
    400 "invalid_value" "max_output_tokens": "`max_output_tokens` is at most 100 on the plan `standard`, not 101"
    400 "invalid_value" "top_logprobs": "`top_logprobs` needs `message.output_text.logprobs` in `include`"
    403 "logprobs_not_allowed" "top_logprobs": "`top_logprobs` is at most 5 on the plan `standard`"
    "#);
    assert!(teacher.asked().is_empty() && house.exchanges().is_empty());
    let reply = respond(
        &house,
        &ask(json!({"input": [{"role": "user", "content": "a"}, {"type": "reasoning", "summary": []},
        {"role": "developer", "content": "b"}]})),
    )
    .await;
    assert_eq!(reply.json()["output"][0]["content"][0]["text"], said(0, "b"), "{}", reply.body);
    let Prompt::Chat(messages) = house.exchange(1).await.texts.unwrap().prompt else { panic!("a conversation") };
    assert_eq!(messages.len(), 2);
}
