//! Several servers on loopback that answer as they are told, as one model.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anbiq_domain::{Answer, Finish, Prompt};
use anbiq_model::{EmbedRequest, Fault, Inputs, Model, ModelError, Request, collect};
use anbiq_upstream::{Member, Pool, PoolConfig, Upstream, UpstreamConfig};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;

/// A server and how often it was asked.
struct Server {
    base: String,
    asked: Arc<AtomicUsize>,
}

impl Server {
    /// Answers its `n`th request, counted from 0, with `reply(n)`.
    async fn new(reply: impl Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let app = axum::Router::new().fallback(move || {
            let answer = reply(count.fetch_add(1, Ordering::SeqCst));
            async move { answer }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { base, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn member(&self, weight: u32, priority: u32) -> Member {
        let model = Arc::new(Upstream::new(UpstreamConfig::new("m", &*self.base, None)).unwrap());
        Member { model, weight, priority }
    }
}

fn answer(done: bool) -> Response<Body> {
    let text = json!({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]});
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
    let rest = if done { format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n") } else { String::new() };
    Response::new(Body::from(format!("data: {text}\n\n{rest}")))
}

fn refusal(status: u16, retry_after: Option<&str>) -> Response<Body> {
    let mut response = (StatusCode::from_u16(status).unwrap(), "{}").into_response();
    if let Some(wait) = retry_after {
        response.headers_mut().insert("retry-after", wait.parse().unwrap());
    }
    response
}

fn config() -> PoolConfig {
    PoolConfig { pause: Duration::from_millis(1), rest: Duration::from_secs(3600), ..PoolConfig::default() }
}

fn pool(members: Vec<Member>, config: PoolConfig) -> Pool {
    Pool::new("m", members, config).unwrap()
}

async fn ask(pool: &Pool) -> Result<String, ModelError> {
    let (answers, _) = collect(pool.generate(Request::new(Prompt::user("hi"), 9)).await?, 1).await?;
    let [Answer { text, finish: Finish::Stop, .. }] = answers.as_slice() else { unreachable!("one answer that ended") };
    Ok(text.clone())
}

#[tokio::test]
async fn another_server_makes_the_vectors() {
    let vectors = |data: serde_json::Value| {
        axum::Json(json!({"data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})).into_response()
    };
    let one = |index: u32, embedding: &[f32]| json!({"index": index, "embedding": embedding});
    let ask = EmbedRequest { inputs: Inputs::Texts(vec!["a".into(), "b".into()]), dimensions: None };
    let bad = Server::new(|_| refusal(500, None)).await;
    let good = Server::new(move |_| vectors(json!([one(1, &[3.0, 4.0]), one(0, &[1.0, 2.0])]))).await;
    let pool_of_both = pool(vec![bad.member(1, 0), good.member(1, 1)], config());
    assert!(pool_of_both.abilities().embeddings);
    let embedded = pool_of_both.embed(&ask).await.unwrap();
    assert_eq!((embedded.vectors, embedded.prompt_tokens), (vec![vec![1.0, 2.0], vec![3.0, 4.0]], 3));
    assert_eq!((bad.asked(), good.asked()), (1, 1));

    // What is no vector of every text is a failure of the server.
    for data in [
        json!([one(0, &[1.0])]),
        json!([one(0, &[1.0]), one(0, &[1.0])]),
        json!([one(0, &[1.0]), one(2, &[1.0])]),
        json!([one(0, &[1.0]), one(1, &[1.0, 2.0])]),
        json!([one(0, &[1.0]), one(1, &[])]),
        json!([one(0, &[1.0]), {"index": 1, "embedding": "AACAPw=="}]),
    ] {
        let odd = Server::new(move |_| vectors(data.clone())).await;
        let error = odd.member(1, 0).model.embed(&ask).await.unwrap_err();
        assert_eq!((error.fault, error.code), (Fault::Model, "answer_malformed"));
    }
}

#[tokio::test]
async fn another_server_answers_for_one_that_fails() {
    for status in [401, 404, 429, 500, 503] {
        let (bad, good) = (Server::new(move |_| refusal(status, None)).await, Server::new(|_| answer(true)).await);
        let gone = Member {
            model: Arc::new(Upstream::new(UpstreamConfig::new("m", "http://127.0.0.1:9/v1", None)).unwrap()),
            weight: 1,
            priority: 0,
        };
        let pool = pool(vec![gone, bad.member(1, 0), good.member(1, 0)], config());
        assert_eq!(ask(&pool).await.unwrap(), "a", "{status}");
        assert_eq!((bad.asked(), good.asked()), (1, 1));
    }
}

#[tokio::test]
async fn weights_and_priorities_hold() {
    let servers = [Server::new(|_| answer(true)).await, Server::new(|_| answer(true)).await];
    let last = Server::new(|_| answer(true)).await;
    let pool = pool(vec![servers[0].member(3, 0), servers[1].member(1, 0), last.member(9, 1)], config());
    for _ in 0..8 {
        ask(&pool).await.unwrap();
    }
    assert_eq!([servers[0].asked(), servers[1].asked(), last.asked()], [6, 2, 0]);
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let server = Server::new(|n| if n < 2 { refusal(503, None) } else { answer(true) }).await;
    assert_eq!(ask(&pool(vec![server.member(1, 0)], config())).await.unwrap(), "a");
    assert_eq!(server.asked(), 3);
    let server = Server::new(|_| refusal(503, None)).await;
    assert_eq!(ask(&pool(vec![server.member(1, 0)], config())).await.unwrap_err().code, "upstream_busy");
    assert_eq!(server.asked(), 3, "and not for ever");
    // What cannot be better the next time, and what asks for a longer wait than is made here, is not tried again.
    for (status, retry_after, fault) in
        [(400, None, Fault::Request), (401, None, Fault::Setup), (429, Some("60"), Fault::Busy)]
    {
        let server = Server::new(move |_| refusal(status, retry_after)).await;
        let error = ask(&pool(vec![server.member(1, 0)], config())).await.unwrap_err();
        assert_eq!((error.fault, error.retry_after_ms), (fault, retry_after.map(|_| 60_000)));
        assert_eq!(server.asked(), 1, "{status}");
    }
}

#[tokio::test]
async fn once_a_part_was_passed_on_there_is_no_second_try() {
    let (cut, good) = (Server::new(|_| answer(false)).await, Server::new(|_| answer(true)).await);
    let pool = pool(vec![cut.member(1, 0), good.member(1, 1)], config());
    assert_eq!(ask(&pool).await.unwrap_err().code, "upstream_malformed");
    assert_eq!((cut.asked(), good.asked()), (1, 0));
}

#[tokio::test]
async fn a_server_that_keeps_failing_rests() {
    for (reply, rest, times) in [
        (refusal as fn(u16, Option<&str>) -> Response<Body>, Duration::from_secs(3600), 2),
        (|_, _| answer(false), Duration::from_secs(3600), 2),
        (refusal, Duration::ZERO, 5),
    ] {
        let (bad, good) = (Server::new(move |_| reply(500, None)).await, Server::new(|_| answer(true)).await);
        let pool = pool(vec![bad.member(1, 0), good.member(1, 1)], PoolConfig { failures: 2, rest, ..config() });
        for _ in 0..5 {
            // Where the bad one cuts its answer off, the first two are errors.
            let _ = ask(&pool).await;
        }
        assert_eq!(bad.asked(), times);
        assert!(ask(&pool).await.is_ok());
    }
    // A server that says how long to wait is left alone at once; where all rest, one is asked all the same.
    let (busy, good) = (Server::new(|_| refusal(429, Some("60"))).await, Server::new(|_| answer(true)).await);
    let pool = pool(vec![busy.member(1, 0), good.member(1, 1)], config());
    for _ in 0..3 {
        ask(&pool).await.unwrap();
    }
    assert_eq!((busy.asked(), good.asked()), (1, 3));
    let alone = Server::new(|n| if n < 4 { refusal(500, None) } else { answer(true) }).await;
    let pool = self::pool(vec![alone.member(1, 0)], config());
    assert!(ask(&pool).await.is_err());
    assert_eq!(ask(&pool).await.unwrap(), "a", "resting is no reason to refuse");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_work() {
    let server = Server::new(|_| answer(true)).await;
    let pool = pool(vec![server.member(1, 0)], config());
    drop(pool.generate(Request::new(Prompt::user("hi"), 9)).await.unwrap());
    assert_eq!(ask(&pool).await.unwrap(), "a");
}

#[test]
fn a_pool_of_nobody_is_refused() {
    assert_eq!(Pool::new("m", Vec::new(), config()).unwrap_err().code, "pool_invalid");
}

#[tokio::test]
async fn what_each_server_was_asked_is_counted() {
    let (bad, good) = (Server::new(|_| refusal(500, None)).await, Server::new(|_| answer(true)).await);
    let pool = pool(vec![bad.member(1, 0), good.member(1, 1)], PoolConfig { failures: 2, ..config() });
    for _ in 0..3 {
        ask(&pool).await.unwrap();
    }
    let [first, second] = pool.servers().try_into().unwrap();
    assert_eq!((first.name.as_str(), second.name.as_str()), (bad.base.as_str(), good.base.as_str()));
    assert_eq!((first.requests, first.retries, first.failures, first.resting), (2, 0, 2, true));
    assert_eq!((second.requests, second.retries, second.failures, second.resting), (3, 2, 0, false));
}
