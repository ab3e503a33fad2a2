//! The wire types: what is read and what is written.

use anbiq_domain::Role;
use anbiq_openai::{
    ApiError, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatRequest, ChatTokenLogprob, Completion, CompletionPrompt,
    CompletionRequest, Content, Delta, ErrorEnvelope, FinishReason, Stop, Usage,
};
use insta::assert_snapshot;

#[test]
fn a_chat_request_is_read_leniently() {
    let body = br#"{"model":"m","messages":[{"role":"developer","content":"be brief"},
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":null,"tool_calls":[]}],
        "n":null,"temperature":0.5,"stop":"x","logprobs":true,"top_logprobs":2,"seed":-1,
        "stream_options":{"include_usage":true,"future":1},"metadata":{"a":"b"},"store":null}"#;
    let request = ChatRequest::parse(body).unwrap();
    assert_eq!(request.messages[0].role, Role::System);
    assert_eq!(request.messages[1].content.clone().unwrap().into_text().unwrap(), "ab");
    assert_eq!((request.n, request.seed), (None, Some(-1)));
    assert_eq!(request.stop, Some(Stop::One("x".to_owned())));
    assert_eq!(request.other.keys().collect::<Vec<_>>(), ["metadata"]);
    let again = ChatRequest::parse(&serde_json::to_vec(&request).unwrap()).unwrap();
    assert_eq!(again, request);
}

#[test]
fn a_bad_request_says_what_is_wrong() {
    let wrong = |body: &str| {
        let error = ChatRequest::parse(body.as_bytes()).unwrap_err();
        format!("{}: {}", error.param.unwrap_or_default(), error.message)
    };
    let table = [
        "",
        "[]",
        "{\"model\":",
        r#"{"messages":[]}"#,
        r#"{"model":"m"}"#,
        r#"{"model":1,"messages":[]}"#,
        r#"{"model":"m","messages":[{"content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"king","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
        r#"{"model":"m","messages":[],"n":-1}"#,
        r#"{"model":"m","messages":[],"temperature":"hot"}"#,
        r#"{"model":"m","messages":[],"stop":[1]}"#,
    ];
    assert_snapshot!(table.map(wrong).join("\n"), @r#"
    : the request body is not valid JSON: EOF while parsing a value at line 1 column 0
    : the request body is not a JSON object
    : the request body is not valid JSON: EOF while parsing a value at line 1 column 9
    model: missing required field `model`
    messages: missing required field `messages`
    model: invalid value for `model`: invalid type: integer `1`, expected a string
    messages: invalid value for `messages`: missing field `role`
    messages: invalid value for `messages`: unknown variant `king`, expected one of `developer`, `system`, `user`, `assistant`, `tool`
    messages: invalid value for `messages`: expected a string or a list of content parts
    n: invalid value for `n`: invalid value: integer `-1`, expected u32
    temperature: invalid value for `temperature`: invalid type: string "hot", expected f32
    stop: invalid value for `stop`: expected a string or a list of strings
    "#);
}

#[test]
fn a_part_that_is_no_text_is_named() {
    let content: Content = serde_json::from_str(r#"[{"type":"image_url","image_url":{"url":"x"}}]"#).unwrap();
    assert_eq!(content.into_text(), Err("image_url".to_owned()));
}

#[test]
fn prompts_of_completions_are_told_apart() {
    for (prompt, expected) in [
        ("\"a\"", CompletionPrompt::Text("a".to_owned())),
        ("[\"a\"]", CompletionPrompt::Texts(vec!["a".to_owned()])),
        ("[1,2]", CompletionPrompt::Other(vec![1.into(), 2.into()])),
    ] {
        let body = format!(r#"{{"model":"m","prompt":{prompt},"best_of":2}}"#);
        let request = CompletionRequest::parse(body.as_bytes()).unwrap();
        assert_eq!(request.prompt, expected);
        assert_eq!(request.other["best_of"], 2);
    }
}

#[test]
fn chunks_are_written_as_clients_expect() {
    let logprob =
        ChatTokenLogprob { token: "Hi".into(), logprob: -0.5, bytes: Some(b"Hi".to_vec()), top_logprobs: vec![] };
    let mut chunk = ChatChunk {
        id: "chatcmpl-1".into(),
        object: "chat.completion.chunk".into(),
        created: 5,
        model: "m".into(),
        choices: vec![ChatChunkChoice {
            index: 0,
            delta: Delta { role: Some(Role::Assistant), content: Some("Hi".into()), tool_calls: None },
            logprobs: Some(ChatLogprobs { content: Some(vec![logprob]), refusal: None }),
            finish_reason: None,
        }],
        usage: None,
        system_fingerprint: None,
    };
    let first = serde_json::to_string(&chunk).unwrap();
    chunk.choices = vec![ChatChunkChoice {
        index: 0,
        delta: Delta::default(),
        logprobs: None,
        finish_reason: Some(FinishReason::Stop),
    }];
    let last = serde_json::to_string(&chunk).unwrap();
    chunk.choices = vec![];
    chunk.usage = Some(Usage::new(3, 4));
    let usage = serde_json::to_string(&chunk).unwrap();
    assert_snapshot!([first, last, usage].join("\n"), @r#"
    {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"logprobs":{"content":[{"token":"Hi","logprob":-0.5,"bytes":[72,105],"top_logprobs":[]}],"refusal":null},"finish_reason":null}]}
    {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
    {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}
    "#);
}

#[test]
fn other_servers_are_understood() {
    let vllm = br#"{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" b",
        "logprobs":{"text_offset":[0,1],"token_logprobs":[null,-0.25],"tokens":["a"," b"],"top_logprobs":[null,{" b":-0.25}]},
        "finish_reason":"stop","stop_reason":null,"prompt_logprobs":null}],
        "usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1,"prompt_tokens_details":null}}"#;
    let completion: Completion = serde_json::from_slice(vllm).unwrap();
    assert_eq!(completion.choices[0].logprobs.as_ref().unwrap().token_logprobs, [None, Some(-0.25)]);
    let reason: FinishReason = serde_json::from_str("\"repetition\"").unwrap();
    assert_eq!(reason, FinishReason::Other);
}

#[test]
fn errors_are_read_in_every_form() {
    for (body, message, code) in [
        (r#"{"error":{"message":"no","type":"t","param":null,"code":"c"}}"#, "no", Some("c")),
        (r#"{"error":{"message":"no","type":"t","code":404}}"#, "no", Some("404")),
        (r#"{"object":"error","message":"no","type":"t","param":null,"code":400}"#, "no", Some("400")),
        (r#"{"error":{"message":"no"}}"#, "no", None),
    ] {
        let error: ApiError = ErrorEnvelope::parse(body.as_bytes()).unwrap();
        assert_eq!((error.message.as_str(), error.code.as_deref()), (message, code));
    }
    assert_eq!(ErrorEnvelope::parse(b"<html>"), None);
}
