//! Tools, forms of answers and the other fields that are handed on to a teacher behind HTTP.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use anbiq_domain::{Draws, Finish, Prompt, TextPolicy};
use common::teacher::{TEACHER, Teacher};
use common::{House, Setup, ask, blank, coin, hello, money, with};
use insta::assert_snapshot;
use serde_json::{Value, json};

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "weather", "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])
}

async fn house(twin_share: f64) -> (House, Teacher) {
    let (teacher, model) = Teacher::start().await;
    let mut setup = Setup { more: vec![model], ..Setup::default() };
    setup.plan.twin.share = twin_share;
    setup.plan.text_policy = TextPolicy::Plain;
    (House::furnished(setup).await, teacher)
}

#[tokio::test]
async fn tools_are_called() {
    let (house, teacher) = house(0.0).await;
    let body = with(
        ask(TEACHER, "how hot?"),
        json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": false}),
    );
    let reply = house.chat(&body).await;
    assert_snapshot!(blank(&reply.body), @r#"{"id":"chatcmpl-ID","object":"chat.completion","created":1770000000,"model":"tools","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"call_1_0","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Basra\"}"}},{"id":"call_1_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Kufa\"}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":20,"completion_tokens":7,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":16}}}"#);
    let asked = &teacher.asked()[0];
    assert_eq!(
        (&asked["tools"], &asked["tool_choice"], &asked["parallel_tool_calls"]),
        (&tools(), &json!("required"), &json!(false))
    );

    // The journal has the calls, and its commitment covers them.
    let exchange = house.exchange(1).await;
    assert_eq!(exchange.request.tools, 1);
    let texts = exchange.texts.unwrap();
    assert_eq!((texts.answers[0].finish, texts.answers[0].tool_calls.len()), (Finish::ToolCalls, 2));
    assert_eq!(Draws::commit(&coin(), exchange.id, &texts.prompt, &texts.answers), exchange.draws);
    let mut silent = texts.answers.clone();
    silent[0].tool_calls.clear();
    assert_ne!(Draws::commit(&coin(), exchange.id, &texts.prompt, &silent).texts, exchange.draws.texts);
    // What the server had cached is told and kept.
    assert_eq!(
        (exchange.usage.prompt_tokens, exchange.usage.cached_tokens, exchange.usage.completion_tokens),
        (20, 16, 7)
    );
    assert!(exchange.cost > money("0"));
}

#[tokio::test]
async fn calls_of_tools_are_streamed() {
    let (house, _) = house(0.0).await;
    let changes = json!({"tools": tools(), "stream": true, "stream_options": {"include_usage": true}});
    let reply = house.chat(&with(ask(TEACHER, "how hot?"), changes)).await;
    assert_snapshot!(reply.events().join("\n"), @r#"
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"role":"assistant"},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1_0","type":"function","function":{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"Basra\"}"}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_1_1","type":"function","function":{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{\"city\":"}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"\"Kufa\"}"}}]},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"tools","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":7,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":16}}}
    [DONE]
    "#);
}

#[tokio::test]
async fn what_tools_say_reaches_the_teacher() {
    let (house, teacher) = house(0.0).await;
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Basra\"}"}});
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}});
    let messages = json!([
        {"role": "user", "name": "ali", "content": [{"type": "text", "text": "see"}, image]},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "41 degrees"},
    ]);
    let reply = house.chat(&json!({"model": TEACHER, "messages": messages, "tools": tools()})).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "draw 1 of 41 degrees", "{}", reply.body);
    assert_eq!(teacher.asked()[0]["messages"], messages);
    let exchange = house.exchange(1).await;
    let Prompt::Chat(said) = exchange.texts.unwrap().prompt else { panic!("a conversation") };
    assert_eq!(said[0].content, "see");
    assert_eq!((said[1].tool_calls[0].name.as_str(), said[2].tool_call_id.as_deref()), ("weather", Some("c1")));
}

#[tokio::test]
async fn other_fields_reach_a_teacher_behind_http() {
    let (house, teacher) = house(0.0).await;
    let schema =
        json!({"type": "json_schema", "json_schema": {"name": "w", "strict": true, "schema": {"type": "object"}}});
    let handed_on = json!({"response_format": schema, "seed": 5, "stop": ["x"], "presence_penalty": 0.5, "frequency_penalty": -1,
        "logit_bias": {"50256": -100}, "reasoning_effort": "low"});
    let kept = json!({"user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "unknown": 1,
        "response_format": schema});
    let reply = house.chat(&with(with(ask(TEACHER, "x"), kept), handed_on.clone())).await;
    let answer: Value =
        serde_json::from_str(reply.json()["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(answer, json!({"city": "Basra", "degrees": 41}));
    let asked = &teacher.asked()[0];
    for (name, value) in handed_on.as_object().unwrap() {
        if name == "presence_penalty" || name == "frequency_penalty" {
            assert_eq!(asked[name].as_f64(), value.as_f64());
        } else {
            assert_eq!(&asked[name], value, "{name}");
        }
    }
    for name in ["user", "metadata", "store", "service_tier", "unknown"] {
        assert_eq!(asked[name], Value::Null, "{name}");
    }
    let facts = house.exchange(1).await.request;
    assert!(facts.structured && facts.tools == 0);
}

#[tokio::test]
async fn a_model_without_tools_says_so() {
    let house = House::new().await;
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    for (changes, field) in [
        (json!({"tools": tools()}), "tools"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"messages": [{"role": "assistant", "tool_calls": [call]}]}), "messages.[0].tool_calls"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}),
            "messages.[0].content",
        ),
        (json!({"top_k": 3}), "top_k"),
    ] {
        let reply = house.chat(&with(hello(), changes)).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(field)), "{}", reply.body);
        assert_eq!(reply.json()["error"]["code"], "unsupported_parameter");
    }
    let neutral =
        json!({"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "reasoning_effort": "high"});
    assert_eq!(house.chat(&with(hello(), neutral)).await.status, 200);
}

#[tokio::test]
async fn tools_that_make_no_sense_are_refused() {
    let (house, teacher) = house(0.0).await;
    let many: Vec<Value> = (0..129).map(|_| tools()[0].clone()).collect();
    for (changes, field) in [
        (json!({"tools": [{"type": "web_search"}]}), "tools.[0].type"),
        (json!({"tools": [{"type": "function", "function": {}}]}), "tools.[0].function.name"),
        (json!({"tools": "all"}), "tools"),
        (json!({"tools": many}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"logit_bias": [1]}), "logit_bias"),
        (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages.[0].content"),
    ] {
        let reply = house.chat(&with(ask(TEACHER, "x"), changes)).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(field)), "{}", reply.body);
    }
    assert!(teacher.asked().is_empty());
    // What only the teacher can know it says itself, and nothing is charged.
    teacher
        .refuse(400, json!({"message": "bad schema", "type": "invalid_request_error", "code": "x", "param": "tools"}));
    let reply = house.chat(&with(ask(TEACHER, "x"), json!({"tools": tools()}))).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["message"]), (400, &json!("bad schema")));
    assert_eq!(house.settled().await.spent, money("0"));
}

#[tokio::test]
async fn exchanges_with_tools_are_twinned() {
    let (house, teacher) = house(1.0).await;
    let mut served = [0, 0];
    for number in 0..12 {
        let body = with(ask(TEACHER, "how hot?"), json!({"tools": tools(), "stream": number % 2 == 0}));
        let reply = house.chat(&body).await;
        let exchange = house.with_twins(number + 1).await;
        let index = usize::from(exchange.draws.twinning.unwrap().served);
        let texts = exchange.texts.unwrap();
        assert_eq!(
            Draws { twinning: None, ..exchange.draws },
            Draws::commit(&coin(), exchange.id, &texts.prompt, &texts.answers)
        );
        let ids: Vec<&str> = texts.answers.iter().map(|answer| answer.tool_calls[0].id.as_str()).collect();
        assert_ne!(ids[0], ids[1], "two draws of the teacher");
        assert!(reply.body.contains(ids[index]) && !reply.body.contains(ids[1 - index]), "only one is shown");
        assert_eq!((exchange.usage.completion_tokens, exchange.usage.twin_tokens), (7, 7));
        served[index] += 1;
    }
    assert!(served[0] > 0 && served[1] > 0, "{served:?}");
    assert_eq!(teacher.asked().len(), 24);
}

#[tokio::test]
async fn a_named_request_is_given_its_calls_again() {
    let (house, teacher) = house(0.0).await;
    let body = with(ask(TEACHER, "how hot?"), json!({"tools": tools(), "stream": true}));
    let send = || house.send(house.post("/v1/chat/completions", &body, &[("idempotency-key", "k")]));
    let (first, second) = (send().await, send().await);
    assert_eq!(first.body, second.body);
    assert!(first.body.contains("call_1_0"));
    assert_eq!(teacher.asked().len(), 1);
}

#[tokio::test]
async fn calls_that_do_not_follow_on_are_a_failure_of_the_model() {
    let script = |_: &anbiq_model::Request| {
        let delta = anbiq_model::ToolCallDelta { call: 7, ..Default::default() };
        vec![common::Step::Do(anbiq_model::Event::ToolCall { index: 0, delta })]
    };
    let house = House::furnished(Setup { mock: common::Mock::new(script), ..Setup::default() }).await;
    let reply = house.chat(&hello()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (502, &json!("answer_malformed")));
}
