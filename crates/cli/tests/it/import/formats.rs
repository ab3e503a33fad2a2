//! One log of each format, made by hand: every one asks the same, so every one gives the same sketch.

use anbiq_domain::{Imported, Prompt};
use anbiq_statistics::sketch::Sketcher;
use insta::assert_snapshot;
use serde_json::{Value, json};

use super::{CANARY, no_text, place, rows, told};
use crate::support::Place;

fn asked() -> String {
    format!("tell me of the {CANARY} on the lake")
}

fn messages() -> Value {
    json!([{"role": "user", "content": asked()}])
}

/// Imports `text` as one file; every exchange that has a sketch must have that of the one prompt.
fn import(text: &str, format: &str) -> (Place, String) {
    let place = place();
    place.write("log", text);
    (place, String::new()).also(format, "import log --key key --json -q")
}

trait Also {
    fn also(self, format: &str, words: &str) -> Self;
}

impl Also for (Place, String) {
    fn also(self, format: &str, words: &str) -> Self {
        let (place, _) = self;
        let done = place.run(words);
        assert_eq!(done.code, 0, "{}", done.err);
        let manifest: Value = serde_json::from_str(&done.out).unwrap();
        for source in manifest["sources"].as_array().unwrap() {
            assert_eq!(source["format"], format, "{source}");
            assert_eq!(source["bad"], json!({}), "{source}");
        }
        let expected = Sketcher::new(&[7; 32]).sketch(&Prompt::user(asked()));
        for row in rows(&place, "imported") {
            if let Imported::Exchange(exchange) = row
                && let Some(sketch) = exchange.sketch
            {
                assert_eq!(sketch, expected);
            }
        }
        no_text(&place, "imported", &done.out);
        let told = told(&place, "imported");
        (place, told)
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn opentelemetry_as_otlp() {
    let attribute = |key: &str, kind: &str, value: Value| json!({"key": key, "value": {kind: value}});
    let said = json!([{"role": "user", "parts": [{"type": "text", "content": asked()}]}]).to_string();
    let chat = json!({
        "traceId": "t", "spanId": "s", "name": "chat m-1", "startTimeUnixNano": "1772409600123456789", "status": {},
        "attributes": [
            attribute("gen_ai.operation.name", "stringValue", json!("chat")),
            attribute("gen_ai.provider.name", "stringValue", json!("openai")),
            attribute("gen_ai.request.model", "stringValue", json!("m-1")),
            attribute("gen_ai.request.temperature", "doubleValue", json!(0.5)),
            attribute("gen_ai.request.max_tokens", "intValue", json!("64")),
            attribute("gen_ai.request.stop_sequences", "arrayValue", json!({"values": [{"stringValue": "x"}]})),
            attribute("gen_ai.usage.input_tokens", "intValue", json!("12")),
            attribute("gen_ai.usage.output_tokens", "intValue", json!(30)),
            attribute("gen_ai.input.messages", "stringValue", json!(said)),
            attribute("user.id", "stringValue", json!("acme")),
            attribute("client.address", "stringValue", json!("203.0.113.7")),
            attribute("user_agent.original", "stringValue", json!("tool/1")),
        ]
    });
    let database = json!({"name": "SELECT", "startTimeUnixNano": "1772409600123456789", "attributes": []});
    let mut failed = chat.clone();
    failed["status"] = json!({"code": 2});
    let tool = json!({"startTimeUnixNano": "1772409600123456789", "attributes": [
        attribute("gen_ai.operation.name", "stringValue", json!("execute_tool")),
    ]});
    let spans = json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", "stringValue", json!("gateway"))]},
        "scopeSpans": [{"spans": [chat, database, tool, failed]}],
    }]});
    let (_, told) = import(&serde_json::to_string_pretty(&spans).unwrap(), "otel");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:00.123Z acme m-1 12(0)+30 ? Chat/0.5/64/false network agent 8 words
    2026-03-02T00:00:00.123Z acme m-1 12(0)+30 ? Chat/0.5/64/false network agent 8 words failed
    ");
    let (_, lines) = import(&format!("{spans}\n{spans}\n"), "otel");
    assert_eq!(lines, format!("{told}\n{told}"));
}

#[test]
fn opentelemetry_one_span_a_line_with_older_names() {
    let old = json!({
        "name": "openai.chat", "context": {"trace_id": "0x1"}, "start_time": "2026-03-02T00:00:01.500000Z",
        "attributes": {
            "gen_ai.system": "openai", "gen_ai.request.model": "m-1", "enduser.id": "acme",
            "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 30,
            "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": asked(),
        },
        "status": {"status_code": "OK"}
    });
    let events = json!({
        "name": "chat", "start_time": "2026-03-02T00:00:02Z", "status": {"status_code": "ERROR"},
        "attributes": {"gen_ai.request.model": "m-1", "enduser.id": "acme"},
        "events": [{"name": "gen_ai.user.message", "attributes": {"content": asked()}}, {"name": "gen_ai.choice"}],
    });
    let (_, told) = import(&lines(&[old, events]), "otel");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01.5Z acme m-1 12(0)+30 ? ? 8 words
    2026-03-02T00:00:02Z acme m-1 ? ? ? 8 words failed
    ");
}

#[test]
fn litellm() {
    let call = json!({
        "request_id": "r1", "call_type": "acompletion", "api_key": "88dc28d0", "spend": 0.00125, "total_tokens": 42,
        "prompt_tokens": 12, "completion_tokens": 30, "startTime": "2026-03-02T00:00:01.250Z",
        "endTime": "2026-03-02T00:00:02Z", "model": "openai/m-1", "model_group": "m-1", "user": "ann", "metadata": {},
        "cache_hit": "False", "request_tags": ["User-Agent: tool", "User-Agent: tool/1.2", "team:x"], "end_user": "",
        "requester_ip_address": "203.0.113.7", "messages": messages(), "response": {"answer": CANARY}, "status": "success",
        "proxy_server_request": {"model": "m-1", "temperature": 0.5, "max_tokens": 64, "stream": true},
    });
    let mut bare = call.clone();
    bare["messages"] = json!({});
    bare["proxy_server_request"] = json!({});
    bare["status"] = json!("failure");
    let mut image = call.clone();
    image["call_type"] = json!("aimage_generation");
    let (_, told) = import(&lines(&[call, bare, image]), "litellm");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01.25Z 88dc28d0 m-1 12(0)+30 0.00125 Chat/0.5/64/true network agent 8 words
    2026-03-02T00:00:01.25Z 88dc28d0 m-1 12(0)+30 0.00125 ? network agent failed
    ");
}

#[test]
fn litellm_as_a_table() {
    let quoted = messages().to_string().replace('"', "\"\"");
    let text = format!(
        "request_id,call_type,api_key,spend,prompt_tokens,completion_tokens,startTime,model,request_tags,messages\r\n\
         r1,acompletion,k1,0.5,12,30,2026-03-02 00:00:01.25,m-1,\"[\"\"User-Agent: tool/1\"\"]\",\"{quoted}\"\r\n\
         r2,aembedding,k1,0.5,12,0,2026-03-02 00:00:02,e-1,[],{{}}\r\n"
    );
    let (_, told) = import(&text, "litellm");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01.25Z k1 m-1 12(0)+30 0.50 ? agent 8 words
    2026-03-02T00:00:02Z k1 e-1 12(0)+0 0.50 ?
    ");
}

#[test]
fn langfuse_joins_observations_with_their_traces() {
    let generation = |trace: &str, at: &str| {
        json!({
            "id": format!("o-{trace}-{at}"), "traceId": trace, "type": "GENERATION", "startTime": at, "model": "m-1",
            "modelParameters": {"temperature": 0.5, "max_tokens": 64}, "usage": {"input": 12, "output": 30}, "level": "DEFAULT",
            "input": messages(), "output": CANARY,
        })
    };
    let trace = |id: &str, user: &str| json!({"id": id, "timestamp": "2026-03-02T00:00:00Z", "userId": user, "sessionId": null, "tags": [], "input": CANARY});
    let observations = [
        generation("t2", "2026-03-02T00:00:01Z"),
        generation("t1", "2026-03-02T00:00:02Z"),
        generation("t2", "2026-03-02T00:00:03Z"),
        json!({"id": "x", "traceId": "t1", "type": "SPAN", "startTime": "2026-03-02T00:00:04Z"}),
    ];
    let place = place();
    place.write("observations.jsonl", &lines(&observations));
    place.write("traces.jsonl", &lines(&[trace("t1", "ann"), trace("t2", "bob")]));
    let words = "import observations.jsonl traces.jsonl --key key --json -q";
    let (_, told) = (place, String::new()).also("langfuse", words);
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z bob m-1 12(0)+30 ? Chat/0.5/64/false 8 words
    2026-03-02T00:00:02Z ann m-1 12(0)+30 ? Chat/0.5/64/false 8 words
    2026-03-02T00:00:03Z bob m-1 12(0)+30 ? Chat/0.5/64/false 8 words
    ");
    // The files of the blob storage, and a trace with its observations inside.
    let enriched = json!({
        "id": "o", "trace_id": "t", "type": "GENERATION", "start_time": "2026-03-02 00:00:01.000000", "user_id": "ann",
        "provided_model_name": "m-1", "usage_details": {"input": 12, "output": 30, "input_cached_tokens": 4},
        "cost_details": {"total": 0.5}, "input": messages().to_string(), "output": CANARY,
    });
    let mut nested = trace("t3", "bob");
    nested["observations"] = json!([generation("t3", "2026-03-02T00:00:05Z")]);
    let (_, told) = import(&lines(&[enriched, nested]), "langfuse");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z ann m-1 12(4)+30 0.50 ? 8 words
    2026-03-02T00:00:05Z bob m-1 12(0)+30 ? Chat/0.5/64/false 8 words
    ");
}

#[test]
fn helicone() {
    let body = json!({"model": "m-1", "messages": messages(), "temperature": 0.5, "max_tokens": 64});
    let call = json!({
        "request_id": "r", "request_created_at": "2026-03-02 00:00:01.000", "latency": 100, "status": 200, "user_id": "ann",
        "prompt_tokens": 12, "completion_tokens": 30, "model": "m-1", "provider": "OPENAI", "proxy_key_id": "pk",
        "target_url": "https://api.openai.com/v1/chat/completions", "country_code": "FR",
        "request_body": body.to_string(), "response_body": CANARY,
    });
    let mut limited = call.clone();
    limited["status"] = json!(429);
    limited["user_id"] = json!("");
    let (_, told) = import(&lines(&[call, limited]), "helicone");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z ann m-1 12(0)+30 ? Chat/0.5/64/false 8 words
    2026-03-02T00:00:01Z pk refused
    ");
}

/// A request of two tables, the messages of one in two parts, in whatever order and file.
#[test]
fn azure_api_management_joins_its_tables() {
    let gateway = |id: &str, second: u32, code: u16| {
        json!({
            "TimeGenerated": format!("2026-03-02T00:00:{second:02}Z"), "CorrelationId": id, "Category": "GatewayLogs",
            "ApimSubscriptionId": "acme", "CallerIpAddress": "203.0.113.7", "ResponseCode": code, "ClientProtocol": "HTTP/1.1",
        })
    };
    let call = |id: &str, second: u32, sequence: u32, messages: &str| {
        json!({
            "TimeGenerated": format!("2026-03-02T00:00:{second:02}Z"), "CorrelationId": id, "ModelName": "m-1",
            "PromptTokens": if sequence == 0 { 12 } else { 0 }, "CompletionTokens": if sequence == 0 { 30 } else { 0 },
            "SequenceNumber": sequence, "IsStreamCompletion": true, "OperationName": "chat", "RequestMessages": messages,
            "ResponseMessages": CANARY,
        })
    };
    let whole = messages().to_string();
    let (head, tail) = whole.split_at(30);
    let calls = [call("b", 2, 1, tail), call("a", 1, 0, &whole), call("b", 2, 0, head), call("c", 3, 0, &whole)];
    let callers = [gateway("d", 1, 200), gateway("a", 2, 200), gateway("c", 3, 429), gateway("b", 4, 200)];
    let place = place();
    place.write("llm.jsonl", &lines(&calls));
    place.write("gateway.json", &json!(callers).to_string());
    let (_, told) = (place, String::new()).also("apim", "import llm.jsonl gateway.json --key key --json -q");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:04Z acme m-1 12(0)+30 ? Chat/1/0/true network 8 words
    2026-03-02T00:00:02Z acme m-1 12(0)+30 ? Chat/1/0/true network 8 words
    2026-03-02T00:00:03Z acme refused
    ");
    // As diagnostic settings write them.
    let resource = |category: &str, id: &str, properties: Value| json!({"time": "2026-03-02T00:00:01Z", "category": category, "correlationId": id, "callerIpAddress": "203.0.113.7", "properties": properties});
    let records = json!({"records": [
        resource("GatewayLlmLogs", "a", json!({"modelName": "m-1", "promptTokens": 12, "completionTokens": 30, "requestMessages": messages()})),
        resource("GatewayLogs", "a", json!({"apimSubscriptionId": "acme", "responseCode": 200})),
    ]});
    let (_, told) = import(&records.to_string(), "apim");
    assert_snapshot!(told, @"2026-03-02T00:00:01Z acme m-1 12(0)+30 ? ? network 8 words");
}

#[test]
fn bedrock() {
    let body = json!({"anthropic_version": "x", "max_tokens": 64, "temperature": 0.5, "messages": [{"role": "user", "content": [{"type": "text", "text": asked()}]}]});
    let call = json!({
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": "2026-03-02T00:00:01Z", "accountId": "123456789012",
        "region": "us-east-1", "requestId": "r", "operation": "InvokeModelWithResponseStream", "modelId": "m-1",
        "input": {"inputContentType": "application/json", "inputBodyJson": body, "inputTokenCount": 12, "cacheReadInputTokenCount": 4},
        "output": {"outputBodyJson": {"completion": CANARY}, "outputTokenCount": 30},
    });
    let mut other = call.clone();
    other["input"]["inputBodyJson"] =
        json!({"messages": [{"role": "user", "content": [{"text": asked()}]}], "inferenceConfig": {"maxTokens": 9}});
    other["operation"] = json!("Converse");
    other["errorCode"] = json!("ThrottlingException");
    let mut third = other.clone();
    third["errorCode"] = json!("InternalServerException");
    let (_, told) = import(&lines(&[call.clone(), other, third]), "bedrock");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z 123456789012 m-1 12(4)+30 ? Chat/0.5/64/true 8 words
    2026-03-02T00:00:01Z 123456789012 refused
    2026-03-02T00:00:01Z 123456789012 m-1 12(4)+30 ? Chat/1/9/false 8 words failed
    ");
    let events = json!({"logGroup": "g", "logEvents": [{"id": "1", "timestamp": 1, "message": call.to_string()}]});
    let (_, told) = import(&events.to_string(), "bedrock");
    assert_snapshot!(told, @"2026-03-02T00:00:01Z 123456789012 m-1 12(4)+30 ? Chat/0.5/64/true 8 words");
}

#[test]
fn kong() {
    let call = json!({
        "started_at": 1_772_409_601_000_i64, "client_ip": "203.0.113.7", "consumer": {"id": "c1", "username": "acme"},
        "request": {"uri": "/chat", "headers": {"user-agent": "tool/1"}}, "response": {"status": 200},
        "ai": {"proxy": {
            "usage": {"prompt_tokens": 12, "completion_tokens": 30, "cost": 0.5},
            "meta": {"request_model": "m-1", "provider_name": "openai"},
            "payload": {"request": json!({"messages": messages(), "max_tokens": 64}).to_string(), "response": CANARY},
        }},
    });
    let mut older = call.clone();
    older["ai"] = json!({"ai-proxy": call["ai"]["proxy"].clone()});
    let mut plain = call.clone();
    plain["ai"] = json!({});
    let (_, told) = import(&lines(&[call, older, plain]), "kong");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z acme m-1 12(0)+30 0.50 Chat/1/64/false network agent 8 words
    2026-03-02T00:00:01Z acme m-1 12(0)+30 0.50 Chat/1/64/false network agent 8 words
    ");
}

#[test]
fn cloudflare() {
    let call = json!({
        "id": "1", "created_at": "2026-03-02T00:00:01Z", "provider": "openai", "model": "m-1", "duration": 5, "tokens_in": 12,
        "tokens_out": 30, "cost": 0.5, "status_code": 200, "cached": false, "metadata": {"user_id": "ann"},
        "request": json!({"messages": messages()}).to_string(), "response": CANARY,
    });
    let mut bare = call.clone();
    bare["request"] = json!(null);
    bare["metadata"] = json!("{\"user\": \"bob\"}");
    let (_, told) = import(&lines(&[call, bare]), "cloudflare");
    assert_snapshot!(told, @r"
    2026-03-02T00:00:01Z ann m-1 12(0)+30 0.50 Chat/1/0/false 8 words
    2026-03-02T00:00:01Z bob m-1 12(0)+30 0.50 ?
    ");
}

#[test]
fn plain_with_what_is_known_of_accounts() {
    let row = |at: u32, payment: &str| {
        json!({
            "at": f64::from(at) + 1_772_409_600.5, "account": "acme", "model": "m-1", "payment": payment, "opened": "2026-01-01T00:00:00Z",
            "prompt": asked(), "prompt_tokens": 12, "completion_tokens": 30, "cost": "0.5", "address": "[2001:db8::1]:443", "agent": "tool/1",
            "operation": "chat", "temperature": 0.5, "max_tokens": 64, "stream": "false", "status": 200,
        })
    };
    let (_, told) = import(&lines(&[row(1, "card-1"), row(2, "card-1"), row(3, "card-2")]), "plain");
    assert_snapshot!(told, @r"
    acme opened 2026-01-01T00:00:00Z payment true
    2026-03-02T00:00:01.5Z acme m-1 12(0)+30 0.50 Chat/0.5/64/false network agent 8 words
    2026-03-02T00:00:02.5Z acme m-1 12(0)+30 0.50 Chat/0.5/64/false network agent 8 words
    acme opened 2026-01-01T00:00:00Z payment true
    2026-03-02T00:00:03.5Z acme m-1 12(0)+30 0.50 Chat/0.5/64/false network agent 8 words
    ");
}
