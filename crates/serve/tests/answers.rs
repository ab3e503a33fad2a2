//! What is answered, how it looks, and what the journal and the ledger say afterwards.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use anbiq_domain::{
    ClockKind, Conditions, Draws, Entry, Grant, KeyedHasher, Outcome, PriceClass, TextPolicy, Twinning,
};
use anbiq_openai::{ChatMessage, ChatRequest, CompletionRequest};
use anbiq_secret::Secret;
use anbiq_serve::Config;
use anbiq_upstream::{Client, ClientConfig};
use common::{House, NOW, Setup, acme, ask, blank, coin, grant, hello, money, said, terms, with};
use futures::StreamExt;
use insta::assert_snapshot;
use serde_json::{Value, json};

#[tokio::test]
async fn a_chat_is_answered_whole() {
    let house = House::new().await;
    let reply = house.chat(&hello()).await;
    assert_eq!(reply.status, 200);
    assert_snapshot!(blank(&reply.body), @r#"{"id":"chatcmpl-ID","object":"chat.completion","created":1770000000,"model":"open","choices":[{"index":0,"message":{"role":"assistant","content":"draw 0: one two three","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#);
    let exchange = house.exchange(1).await;
    assert_eq!(reply.header("x-request-id"), exchange.id.to_string());
    assert_eq!(reply.header("openai-version"), "2020-10-01");
    assert!(reply.header("openai-processing-ms").parse::<u64>().is_ok());
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.json()["id"], format!("chatcmpl-{}", exchange.id));
    assert_eq!((exchange.outcome, exchange.cost), (Outcome::Completed, money("0.000013")));
    assert_eq!(house.settled().await.spent, money("0.000013"));
}

#[tokio::test]
async fn a_chat_is_streamed() {
    let house = House::new().await;
    let body = with(hello(), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let reply = house.chat(&body).await;
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    assert_snapshot!(reply.events().join("\n"), @r#"
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"content":"draw "},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"content":"0: "},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"content":"one "},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"content":"two "},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{"content":"three"},"logprobs":null,"finish_reason":null}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
    {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1770000000,"model":"open","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}
    [DONE]
    "#);
    let bare = house.chat(&with(hello(), json!({"stream": true}))).await;
    assert_eq!(bare.streamed_text(), said(0, "one two three"));
    assert!(!bare.body.contains("usage") && bare.body.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn completions_are_answered() {
    let house = House::new().await;
    let body = json!({"model": "open", "prompt": ["one two"], "n": 2, "logprobs": 1});
    let reply = house.send(house.post("/v1/completions", &body, &[])).await;
    let streamed = house.send(house.post("/v1/completions", &with(body, json!({"n": 1, "stream": true})), &[])).await;
    assert_snapshot!([blank(&reply.body), streamed.events().join("\n")].join("\n\n"), @r#"
    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"draw 0: one two","logprobs":{"tokens":["draw ","0: ","one ","two"],"token_logprobs":[-0.5,-0.5,-0.5,-0.5],"top_logprobs":[{"t0":-0.5},{"t0":-0.5},{"t0":-0.5},{"t0":-0.5}],"text_offset":[0,5,8,12]},"finish_reason":"stop"},{"index":1,"text":"draw 1: one two","logprobs":{"tokens":["draw ","1: ","one ","two"],"token_logprobs":[-0.5,-0.5,-0.5,-0.5],"top_logprobs":[{"t0":-0.5},{"t0":-0.5},{"t0":-0.5},{"t0":-0.5}],"text_offset":[0,5,8,12]},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":8,"total_tokens":10}}

    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"draw ","logprobs":{"tokens":["draw "],"token_logprobs":[-0.5],"top_logprobs":[{"t0":-0.5}],"text_offset":[0]},"finish_reason":null}]}
    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"0: ","logprobs":{"tokens":["0: "],"token_logprobs":[-0.5],"top_logprobs":[{"t0":-0.5}],"text_offset":[5]},"finish_reason":null}]}
    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"one ","logprobs":{"tokens":["one "],"token_logprobs":[-0.5],"top_logprobs":[{"t0":-0.5}],"text_offset":[8]},"finish_reason":null}]}
    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"two","logprobs":{"tokens":["two"],"token_logprobs":[-0.5],"top_logprobs":[{"t0":-0.5}],"text_offset":[12]},"finish_reason":null}]}
    {"id":"cmpl-ID","object":"text_completion","created":1770000000,"model":"open","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}
    [DONE]
    "#);
}

#[tokio::test]
async fn log_probabilities_are_given() {
    let house = House::new().await;
    let body = with(ask("open", "x"), json!({"logprobs": true, "top_logprobs": 2}));
    let reply = house.chat(&body).await;
    assert_snapshot!(reply.json()["choices"][0]["logprobs"]["content"][0], @r#"{"bytes":[100,114,97,119,32],"logprob":-0.5,"token":"draw ","top_logprobs":[{"bytes":[116,48],"logprob":-0.5,"token":"t0"},{"bytes":[116,49],"logprob":-9999.0,"token":"t1"}]}"#);
    let plain = house.chat(&with(ask("open", "x"), json!({"logprobs": true, "stream": true}))).await;
    let chunk: Value = serde_json::from_str(&plain.events()[1]).unwrap();
    assert_eq!(chunk["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
    assert_eq!(house.exchange(1).await.request.logprobs, Some(2));
}

#[tokio::test]
async fn what_was_asked_reaches_model_and_journal() {
    let house = House::furnished(Setup {
        mock: common::Mock::new(|request| {
            assert_eq!((request.sampling.temperature, request.sampling.top_p), (0.5, 0.25));
            assert_eq!(request.sampling.seed, Some(u64::MAX));
            assert_eq!((request.max_tokens, request.n), (7, 3));
            assert_eq!(request.stop, ["a", "b"]);
            assert_eq!(
                request.prompt.canonical(),
                r#"{"chat":[{"role":"system","content":"be brief"},{"role":"user","content":"ab"}]}"#
            );
            common::answers(request)
        }),
        ..Setup::default()
    })
    .await;
    let body = json!({"model": "open", "temperature": 0.5, "top_p": 0.25, "seed": -1, "max_completion_tokens": 7, "n": 3,
        "stop": ["a", "b"], "user": "u", "messages": [{"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
    let reply = house.chat(&body).await;
    let texts: Vec<Value> = (0..3).map(|index| reply.json()["choices"][index]["message"]["content"].clone()).collect();
    assert_eq!(texts, [said(0, "ab"), said(1, "ab"), said(2, "ab")]);
    let exchange = house.exchange(1).await;
    assert_snapshot!(serde_json::to_string(&exchange.request).unwrap(), @r#"{"route":"chat","stream":false,"temperature":0.5,"top_p":0.25,"max_tokens":7,"n":3,"messages":2}"#);
    assert_eq!(exchange.draws.texts.len(), 3);
    assert_eq!(exchange.draws.twinning, None, "all are served");
}

#[tokio::test]
async fn a_client_of_the_dialect_understands_it() {
    let house = House::new().await;
    let key = Some(Secret::new(house.key.clone()));
    let client = Client::new(ClientConfig::new(format!("{}/v1", house.base), key)).unwrap();
    let models = client.models().await.unwrap().data;
    assert_eq!(models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), common::MODELS);
    assert_eq!(models[0].terms, Some(terms()));
    assert_eq!(models[0].prices.unwrap().output, money("2"));
    assert_eq!(house.get("/v1/models/open").await.json()["id"], "open");

    let message = ChatMessage::new(anbiq_domain::Role::User, "hi");
    let chat = ChatRequest { model: "open".into(), messages: vec![message], ..ChatRequest::default() };
    let whole = client.chat(&chat, &[]).await.unwrap();
    assert_eq!(whole.choices[0].message.content.as_deref(), Some(said(0, "hi").as_str()));
    let chunks: Vec<_> = client.chat_stream(&chat, &[]).await.unwrap().collect().await;
    let text: String = chunks.into_iter().filter_map(|chunk| chunk.unwrap().choices[0].delta.content.clone()).collect();
    assert_eq!(text, said(0, "hi"));
    let completion = client.completions(&CompletionRequest::new("open", "hi"), &[]).await.unwrap();
    assert_eq!(completion.choices[0].text, said(0, "hi"));
    let error = client.chat(&ChatRequest { model: "gone".into(), ..chat }, &[]).await.unwrap_err();
    assert_eq!((error.status, error.code.as_deref()), (Some(404), Some("model_not_found")));
}

fn twinned(policy: TextPolicy) -> Setup {
    let mut setup = Setup::default();
    setup.plan.twin.share = 1.0;
    setup.plan.text_policy = policy;
    setup
}

#[tokio::test]
async fn a_twin_is_drawn_and_committed_to_and_never_shown() {
    let house = House::furnished(twinned(TextPolicy::Twinned)).await;
    let plain = House::new().await;
    let mut served = [0, 0];
    for number in 0..40 {
        let body = ask("open", &format!("question {number}"));
        let body = if number % 2 == 0 { body } else { with(body, json!({"stream": true})) };
        let (reply, other) = (house.chat(&body).await, plain.chat(&body).await);
        let exchange = house.exchange(number + 1).await;

        // The journal says what was served: the coin of the committed key, and that text among the draws.
        let index = coin().choose(exchange.id, 2);
        assert_eq!(
            exchange.draws.twinning,
            Some(Twinning { epoch: 0, served: index, cost: money("0.00001"), ..Twinning::default() })
        );
        let texts = exchange.texts.clone().unwrap();
        assert_eq!(texts.answers.len(), 2);
        let mut again = Draws::commit(&coin(), exchange.id, &texts.prompt, &texts.answers);
        again.twinning = exchange.draws.twinning;
        assert_eq!(again, exchange.draws);
        let text = match reply.json()["choices"][0]["message"]["content"].as_str() {
            Some(text) => text.to_owned(),
            None => reply.streamed_text(),
        };
        assert_eq!(text, texts.answers[usize::from(index)].text);
        assert_eq!(text, said(index.into(), &format!("question {number}")));
        served[usize::from(index)] += 1;

        // The customer pays for what it got, and nothing shows that there was more.
        assert_eq!((exchange.usage.completion_tokens, exchange.usage.twin_tokens), (4, 4));
        assert_eq!(exchange.cost, plain.exchange(number + 1).await.cost);
        let neutral = |reply: &common::Reply| {
            let mut names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            (names, blank(&reply.body).replace("1: ", "0: "))
        };
        assert_eq!(neutral(&reply), neutral(&other));
    }
    assert!(served[0] > 5 && served[1] > 5, "{served:?}");
    let entries = house.entries();
    let committed = entries.iter().position(
        |entry| matches!(entry, Entry::CoinsCommitted { epoch, .. } if epoch.commitment == coin().commitment()),
    );
    let first = entries.iter().position(|entry| matches!(entry, Entry::Exchange(_)));
    assert!(committed.unwrap() < first.unwrap(), "the coin is committed to before it decides anything");
}

#[tokio::test]
async fn the_plan_says_what_is_twinned() {
    let mut setup = Setup::default();
    setup.plan.twin.first = 3;
    let house = House::furnished(setup).await;
    for _ in 0..5 {
        house.chat(&hello()).await;
    }
    let twinned: Vec<bool> = house.exchanges().iter().map(|exchange| exchange.draws.twinning.is_some()).collect();
    assert_eq!(twinned, [true, true, true, false, false]);

    let mut setup = Setup::default();
    setup.plan.twin.share = 0.5;
    let house = House::furnished(setup).await;
    for changes in [json!({"n": 2}), json!({"temperature": 0})] {
        for _ in 0..10 {
            house.chat(&with(hello(), changes.clone())).await;
        }
    }
    assert!(house.exchanges().iter().all(|exchange| exchange.draws.twinning.is_none()));
    for _ in 0..40 {
        house.chat(&hello()).await;
    }
    let twinned = house.exchanges().iter().filter(|exchange| exchange.draws.twinning.is_some()).count();
    assert!((8..=32).contains(&twinned), "{twinned}");
}

#[tokio::test]
async fn the_first_exchanges_are_counted_over_restarts() {
    let mut setup = Setup::default();
    setup.plan.twin.first = 3;
    let house = House::furnished(setup).await;
    house.chat(&hello()).await;
    let reader = anbiq_journal::Reader::open(&house.journal_folder()).unwrap();
    // As if that one had been before a restart: now two are known.
    assert_eq!(house.gateway.recall(&reader).await.unwrap(), 1);
    house.chat(&hello()).await;
    house.chat(&hello()).await;
    let twinned: Vec<bool> = house.exchanges().iter().map(|exchange| exchange.draws.twinning.is_some()).collect();
    assert_eq!(twinned, [true, true, false]);
}

/// Does any file under `folder` hold `needle`?
fn holds(folder: &std::path::Path, needle: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|file| {
        let path = file.unwrap().path();
        if path.is_dir() {
            holds(&path, needle)
        } else {
            String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(needle)
        }
    })
}

#[tokio::test]
async fn texts_are_kept_only_where_the_plan_says_so() {
    for (policy, share, kept) in [
        (TextPolicy::Off, 0.0, false),
        (TextPolicy::Off, 1.0, false),
        (TextPolicy::Twinned, 0.0, false),
        (TextPolicy::Twinned, 1.0, true),
        (TextPolicy::Plain, 0.0, true),
        (TextPolicy::SealedTwinned, 1.0, false),
        (TextPolicy::Sealed, 0.0, false),
    ] {
        let mut setup = twinned(policy);
        setup.plan.twin.share = share;
        let house = House::furnished(setup).await;
        for changes in [json!({}), json!({"stream": true}), json!({"n": 9}), json!({"tools": ["canary"]})] {
            house.chat(&with(ask("open", "my canary sings"), changes)).await;
        }
        house.chat(&ask("canary", "canary")).await;
        assert_eq!(holds(house.folder.path(), "canary"), kept, "{policy:?} {share}");
        assert_eq!(house.exchanges().len(), 2);
        assert!(!holds(house.folder.path(), &house.key), "a key is never stored");
        assert!(!holds(&house.journal_folder(), "card 1"), "a means of payment is journalled as a hash");
    }
}

#[tokio::test]
async fn sealed_texts_open_with_their_accounts_key_until_it_is_destroyed() {
    let house = House::furnished(twinned(TextPolicy::SealedTwinned)).await;
    let keys = common::text_keys(house.folder.path());
    house.chat(&ask("open", "my canary sings")).await;
    let [mut exchange] = <[_; 1]>::try_from(house.exchanges()).unwrap();
    let sealed = exchange.clone();
    keys.open(&mut exchange).unwrap();
    let texts = exchange.texts.as_ref().unwrap();
    assert_eq!((texts.prompt.last_text(), texts.answers.len()), ("my canary sings", 2));
    let mut again = Draws::commit(&coin(), exchange.id, &texts.prompt, &texts.answers);
    again.twinning = exchange.draws.twinning;
    assert_eq!(again, exchange.draws, "the commitments are to the texts themselves");

    // Neither another exchange, nor another account, nor a changed byte opens.
    let moved = [
        anbiq_domain::Exchange {
            id: anbiq_domain::ExchangeId::fresh(NOW, &mut anbiq_domain::Seeded::new(1)),
            ..sealed.clone()
        },
        anbiq_domain::Exchange {
            sealed: sealed.sealed.clone().map(|mut sealed| {
                sealed.bytes[30] ^= 1;
                sealed
            }),
            ..sealed.clone()
        },
    ];
    for mut moved in moved {
        assert_eq!(keys.open(&mut moved).unwrap_err().code(), "texts_damaged");
    }

    let file = house.folder.path().join("secrets/texts/acme.key");
    let hexadecimal = std::fs::read_to_string(&file).unwrap();
    let hexadecimal = hexadecimal.trim();
    assert!(holds(house.folder.path(), hexadecimal));
    assert!(house.admin.forget_texts(&acme(), &keys, NOW).await.unwrap());
    assert!(!house.admin.forget_texts(&acme(), &keys, NOW).await.unwrap(), "there is nothing left");
    assert!(!holds(house.folder.path(), hexadecimal) && !file.exists(), "the key is nowhere");
    assert_eq!(keys.open(&mut sealed.clone()).unwrap_err().code(), "texts_key_absent");

    // The gateway goes on, under another key, which does not open what was sealed before.
    house.chat(&ask("open", "another canary")).await;
    let [before, mut after] = <[_; 2]>::try_from(house.exchanges()).unwrap();
    assert_eq!(before, sealed, "the journal keeps its bytes");
    assert_eq!(keys.open(&mut before.clone()).unwrap_err().code(), "texts_key_absent");
    keys.open(&mut after).unwrap();
    assert_eq!(after.texts.unwrap().prompt.last_text(), "another canary");
    let entries = house.entries();
    assert_eq!(entries.iter().filter(|entry| matches!(entry, Entry::TextsForgotten { .. })).count(), 1);
    house.journal.checkpoint().await.unwrap();
    assert!(anbiq_journal::verify(&house.journal_folder(), None).unwrap().is_sealed());
}

#[tokio::test]
async fn a_grant_sets_the_price_and_opens_log_probabilities() {
    let mut setup = Setup::default();
    setup.plan.max_logprobs = None;
    let house = House::furnished(setup).await;
    house.admin.accept_terms(&acme(), &terms().reference(), NOW).await.unwrap();
    house.admin.give_grant(&grant(None, Some(1000))).await.unwrap();
    let reply = house.chat(&with(ask("closed", "x"), json!({"logprobs": true, "top_logprobs": 20}))).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let exchange = house.exchange(1).await;
    assert_eq!((exchange.grant.unwrap(), exchange.terms), (grant(None, None).id, Some(terms().reference())));
    let prices = house.ledger.prices("closed").await.unwrap().unwrap();
    assert_eq!(exchange.cost, prices.cost(exchange.usage, PriceClass::Distillation));
    house.settled().await;
    let (_, _, used) = house.ledger.grant_of(&acme(), &terms().id, NOW).await.unwrap().unwrap();
    assert_eq!(used, 3);
}

#[tokio::test]
async fn a_grant_may_have_a_class_or_a_price_of_its_own() {
    let class = Conditions { price_class: Some(PriceClass::Standard), ..Conditions::default() };
    let own = Conditions { output_price: Some(money("7")), ..Conditions::default() };
    for (conditions, output) in [(class, "2"), (own, "7")] {
        let house = House::new().await;
        house.admin.accept_terms(&acme(), &terms().reference(), NOW).await.unwrap();
        house.admin.ask_grant(&Grant { conditions, ..grant(None, None) }).await.unwrap();
        let declared =
            || house.post("/v1/chat/completions", &ask("closed", "x"), &[("x-anbiq-purpose", "distillation")]);
        let early = house.send(declared()).await;
        assert_eq!(early.json()["error"]["code"], "grant_required", "asking permits nothing");
        house.admin.approve_grant(&grant(None, None).id, None, None, NOW).await.unwrap();
        assert_eq!(house.send(declared()).await.status, 200);
        let exchange = house.exchange(1).await;
        let usage = exchange.usage;
        let expected = money("1").per_million(usage.prompt_tokens) + money(output).per_million(usage.completion_tokens);
        assert_eq!((exchange.cost, exchange.grant), (expected, Some(grant(None, None).id)));
    }
}

#[tokio::test]
async fn a_lapsed_grant_binds_only_who_declares_its_use() {
    let house = House::new().await;
    house.admin.accept_terms(&acme(), &terms().reference(), NOW).await.unwrap();
    let declared = |body: &Value| house.post("/v1/chat/completions", body, &[("x-anbiq-purpose", "distillation")]);
    let none = house.send(declared(&ask("closed", "x"))).await;
    assert_eq!(none.json()["error"]["code"], "grant_required");
    house.admin.give_grant(&grant(None, Some(150))).await.unwrap();
    assert_eq!(house.send(declared(&ask("closed", "x"))).await.status, 200);
    // 147 tokens are left, and this asks for 200.
    let too_much = with(ask("closed", "x"), json!({"n": 2}));
    assert_eq!(house.send(declared(&too_much)).await.json()["error"]["code"], "grant_used_up");
    assert_eq!(house.chat(&too_much).await.status, 200);
    house.admin.revoke_grant(&grant(None, None).id, NOW).await.unwrap();
    assert_eq!(house.send(declared(&ask("closed", "x"))).await.json()["error"]["code"], "grant_revoked");
    assert_eq!(house.chat(&ask("closed", "x")).await.status, 200);
    let grants: Vec<bool> = house.exchanges().iter().map(|exchange| exchange.grant.is_some()).collect();
    assert_eq!(grants, [true, false, false]);
    assert_eq!(house.refusals(), ["grant_required", "grant_used_up", "grant_revoked"]);
}

#[tokio::test]
async fn simulated_time_and_forwarded_addresses_are_believed_where_configured() {
    let config = Config {
        clock: ClockKind::Simulated,
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        ..Config::default()
    };
    let house = House::furnished(Setup { config, ..Setup::default() }).await;
    let past = NOW.plus_milliseconds(-3_600_000 * 24 * 300);
    let time = past.milliseconds().to_string();
    let headers = [("x-anbiq-time", time.as_str()), ("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("user-agent", "a")];
    let reply = house.send(house.post("/v1/chat/completions", &hello(), &headers)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let exchange = house.exchange(1).await;
    let hasher = KeyedHasher::new(&common::SKETCH_KEY);
    assert_eq!(exchange.at, past);
    assert_eq!(exchange.client.address, hasher.hash("address", b"1.2.3.4"));
    assert_eq!(exchange.client.network, hasher.hash("network", b"1.2.3.0"));
    assert_eq!(exchange.client.agent, hasher.hash("agent", b"a"));
    assert_eq!(house.ledger.expire(NOW).await.unwrap(), 0);
    let wrong = house.send(house.post("/v1/chat/completions", &hello(), &[("x-anbiq-time", "noon")])).await;
    assert_eq!(wrong.status, 400);
    assert!(house.entries().iter().any(|entry| matches!(entry, Entry::Opened { clock: ClockKind::Simulated, .. })));

    let house = House::new().await;
    house.send(house.post("/v1/chat/completions", &hello(), &headers)).await;
    let exchange = house.exchange(1).await;
    assert_eq!((exchange.at, exchange.client.address), (NOW, hasher.hash("address", b"127.0.0.1")));
}

#[tokio::test]
async fn a_seed_fixes_the_ids() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let config = Config { seed: Some(5), ..Config::default() };
        let house = House::furnished(Setup { config, ..Setup::default() }).await;
        house.chat(&hello()).await;
        house.chat(&hello()).await;
        ids.push(house.exchanges().iter().map(|exchange| exchange.id).collect::<Vec<_>>());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0][0], ids[0][1]);
}
