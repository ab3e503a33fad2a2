//! The routes: who asks, what, and when.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{AccountId, Digest, Entry, Refusal, RequestFacts, Route, Timestamp};
use anbiq_ledger::{Scope, Session};
use anbiq_openai::{ModelCard, ModelList};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::admission::admit;
use crate::answer::{self, Heading};
use crate::client;
use crate::exchange::{Conductor, Received, pipe};
use crate::gateway::Shared;
use crate::metrics;
use crate::rate::Rate;
use crate::rejection::{Refused, Rejection};
use crate::repeats::{self, Claim, Claimed, Tape};
use crate::request::Asked;

/// The moment of a request, where the clock is simulated; in milliseconds since 1970.
const TIME: &str = "x-anbiq-time";

/// What the customer says the answer is for. `distillation` is the only word that means something.
const PURPOSE: &str = "x-anbiq-purpose";

const REQUEST_ID: &str = "x-request-id";

/// How long a probe waits for the ledger.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn router(gateway: Shared) -> Router {
    let v1 = Router::new()
        .route("/chat/completions", post(chat))
        .route("/completions", post(completions))
        .route("/embeddings", post(embeddings))
        .route("/responses", post(responses))
        .route("/models", get(models))
        .route("/models/{*model}", get(model))
        .method_not_allowed_fallback(async || Rejection::wrong_method())
        .fallback(async || Rejection::not_found("unknown_url", None, "there is nothing at this address"))
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), add_headers));
    Router::new().nest("/v1", v1).merge(probes()).with_state(gateway)
}

/// The routes for whoever operates the gateway.
pub(crate) fn admin_router(gateway: Shared) -> Router {
    probes().route("/metrics", get(metrics)).with_state(gateway)
}

fn probes() -> Router<Shared> {
    Router::new().route("/livez", get(async || "ok")).route("/readyz", get(ready))
}

async fn metrics(State(gateway): State<Shared>) -> Response {
    if let Some(telemetry) = &gateway.telemetry {
        gateway.metrics.untold(telemetry.dropped());
    }
    for (name, model) in &gateway.models {
        gateway.metrics.servers(name, &model.servers());
    }
    let text = gateway.metrics.to_text(gateway.under_way(), gateway.deferral.waiting());
    ([(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response()
}

async fn chat(State(gateway): State<Shared>, request: Request) -> Response {
    serve(gateway, Route::Chat, request).await
}

async fn completions(State(gateway): State<Shared>, request: Request) -> Response {
    serve(gateway, Route::Completions, request).await
}

async fn embeddings(State(gateway): State<Shared>, request: Request) -> Response {
    serve(gateway, Route::Embeddings, request).await
}

async fn responses(State(gateway): State<Shared>, request: Request) -> Response {
    serve(gateway, Route::Responses, request).await
}

async fn models(State(gateway): State<Shared>, headers: HeaderMap) -> Result<Response, Rejection> {
    let (session, _) = authenticate(&gateway, &headers, Scope::Models).await?;
    let mut data = Vec::new();
    for name in gateway.models.keys().filter(|name| session.scopes.allow_model(name)) {
        data.push(card(&gateway, &session, name).await?);
    }
    Ok(axum::Json(ModelList { object: "list".to_owned(), data }).into_response())
}

async fn model(
    State(gateway): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let (session, _) = authenticate(&gateway, &headers, Scope::Models).await?;
    if !gateway.models.contains_key(&name) || !session.scopes.allow_model(&name) {
        let message = format!("the model `{name}` does not exist");
        return Err(Rejection::not_found("model_not_found", Some("model"), message));
    }
    Ok(axum::Json(card(&gateway, &session, &name).await?).into_response())
}

async fn card(gateway: &Shared, session: &Session, name: &str) -> Result<ModelCard, Rejection> {
    let teacher = gateway.ledger.teacher(session, name).await?;
    Ok(ModelCard {
        id: name.to_owned(),
        object: "model".to_owned(),
        created: gateway.opened.milliseconds().div_euclid(1000),
        owned_by: "anbiq".to_owned(),
        prices: teacher.prices,
        terms: teacher.terms.clone(),
    })
}

/// Ready is a gateway whose journal can be written and whose ledger answers, and that is not about to stop.
async fn ready(State(gateway): State<Shared>) -> (StatusCode, &'static str) {
    let unready = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    if gateway.draining() {
        return unready("draining");
    }
    if !gateway.journal_works() && !gateway.journal_works_again().await {
        return unready("journal");
    }
    match tokio::time::timeout(PROBE_PATIENCE, gateway.ledger.prices("")).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok"),
        _ => unready("ledger"),
    }
}

/// Answers a request for text.
async fn serve(gateway: Shared, route: Route, request: Request) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>();
    // Without a listener, as in some tests, there is no peer.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
    let caller = match identify(&gateway, &head.headers, route, peer, started).await {
        Ok(caller) => caller,
        Err(rejection) => return rejection.into_response(),
    };
    let (rate, tokens) = (caller.rate, caller.session.plan.tokens_per_minute);
    let (at, account) = (caller.at, caller.session.account.clone());
    let mut response = match answer(&gateway, caller, route, body).await {
        Ok(response) => response,
        Err(rejection) => {
            if rejection.journalled {
                let entry = Entry::Refused(Refusal { at, account: account.clone(), code: rejection.code.to_owned() });
                if let Err(error) = gateway.record(&entry).await {
                    tracing::error!(code = error.code(), %error, "a refusal could not be journalled");
                }
            }
            rejection.into_response()
        }
    };
    let tokens = tokens.map(|per_minute| gateway.accounts().tokens(&account, per_minute, at));
    for rate in [rate, tokens].into_iter().flatten() {
        rate.write(response.headers_mut());
    }
    // For the log.
    response.extensions_mut().insert(account);
    response
}

/// Whose request it is, from where, and when.
struct Caller {
    session: Session,
    client: anbiq_domain::Client,
    declared: bool,
    /// The request's name, where its client gave it one.
    key: Option<String>,
    at: Timestamp,
    started: Instant,
    rate: Option<Rate>,
}

async fn identify(
    gateway: &Shared,
    headers: &HeaderMap,
    route: Route,
    peer: IpAddr,
    started: Instant,
) -> Result<Caller, Rejection> {
    let scope = match route {
        Route::Chat => Scope::Chat,
        Route::Completions => Scope::Completions,
        Route::Embeddings => Scope::Embeddings,
        Route::Responses => Scope::Responses,
    };
    let (session, at) = authenticate(gateway, headers, scope).await?;
    let address = client::address(peer, headers, &gateway.config.trusted_proxies);
    let declared = headers.get(PURPOSE).is_some_and(|purpose| purpose == "distillation");
    let rate = gateway.accounts().take(&session.account, &session.plan, at).map_err(Rejection::rate_limited)?;
    let key = headers.get(repeats::KEY).map(repeats::key).transpose()?;
    let client = client::describe(&gateway.hasher, address, headers);
    Ok(Caller { session, client, declared, key, at, started, rate })
}

async fn authenticate(gateway: &Shared, headers: &HeaderMap, scope: Scope) -> Result<(Session, Timestamp), Rejection> {
    let at = moment(gateway, headers)?;
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = presented.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim).ok_or_else(|| {
        let message = "no API key: send it in the header `Authorization: Bearer KEY`";
        Rejection::unauthenticated("invalid_api_key", message)
    })?;
    let session = gateway.ledger.authenticate(key, at).await?;
    if !session.scopes.allow(scope) {
        let message = format!("this API key is not good for `{}`", scope.as_str());
        return Err(Rejection::forbidden("scope_not_allowed", message));
    }
    Ok((session, at))
}

fn moment(gateway: &Shared, headers: &HeaderMap) -> Result<Timestamp, Rejection> {
    let Some(said) = headers.get(TIME).filter(|_| gateway.simulated()) else { return Ok(gateway.clock.now()) };
    let milliseconds = said.to_str().ok().and_then(|text| text.parse().ok());
    milliseconds.map(Timestamp::from_milliseconds).ok_or_else(|| {
        Rejection::invalid("invalid_value", Some(TIME), format!("`{TIME}` is a number of milliseconds since 1970"))
    })
}

async fn answer(gateway: &Shared, caller: Caller, route: Route, body: Body) -> Result<Response, Rejection> {
    if gateway.draining() {
        return Err(Rejection::unavailable("shutting_down", "the gateway is stopping"));
    }
    let place = gateway.place(&caller.session)?;
    let reading = Instant::now();
    let body = read(gateway, &caller.session, body).await?;
    let waited = reading.elapsed();
    let asked = Asked::parse(route, &body)?;
    let claimed = match &caller.key {
        None => None,
        Some(key) => {
            let address = [route as u8, u8::from(caller.declared)];
            let named = repeats::named(gateway, key, &Digest::of_parts(&[&address, &body]));
            match repeats::claim(gateway, &caller.session.account, named, caller.at)? {
                Claim::First(claimed) => Some(claimed),
                Claim::Repeated(tape) => return Ok(repeat(gateway, tape).await),
            }
        }
    };
    let admitted = admit(gateway, &caller.session, &asked, caller.declared, caller.at).await;
    let admitted = admitted.map_err(|rejection| asked.reword(rejection))?;
    let mut request = asked.to_model(admitted.model.abilities(), admitted.max_tokens, asked.n);
    request.sampling.seed = admitted.seed;
    let heading = Heading {
        form: asked.form.clone(),
        id: admitted.id,
        created: caller.at.milliseconds().div_euclid(1000),
        model: asked.model.clone(),
        n: asked.n,
        logprobs: asked.logprobs.is_some(),
        include_usage: asked.include_usage,
    };
    let conductor = Conductor {
        gateway: Arc::clone(gateway),
        request,
        embedding: asked.embedding.clone(),
        facts: RequestFacts { named: claimed.as_ref().map(Claimed::named), ..asked.facts(admitted.max_tokens) },
        account: caller.session.account,
        key: caller.session.key,
        client: caller.client,
        sketch: gateway.sketcher.sketch(&asked.prompt),
        policy: caller.session.plan.text_policy,
        at: caller.at,
        started: caller.started,
        waited,
        place: Some(place),
        admitted,
    };
    let (sender, receiver) = pipe();
    tokio::spawn(conductor.run(sender));
    let receiver = match claimed {
        None => receiver,
        Some(claimed) => repeats::record(claimed, heading.clone(), asked.stream, receiver),
    };
    Ok(respond(gateway, heading, asked.stream, receiver).await)
}

/// An answer that was given before.
async fn repeat(gateway: &Shared, tape: Arc<Tape>) -> Response {
    gateway.metrics.repeated();
    let (heading, stream) = (tape.heading.clone(), tape.stream);
    let mut response = respond(gateway, heading, stream, repeats::play(tape)).await;
    for name in ["x-anbiq-replayed", "idempotent-replayed"] {
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The response of an exchange; from here on nothing is refused, it can only fail.
async fn respond(gateway: &Shared, heading: Heading, stream: bool, pieces: Received) -> Response {
    let id = heading.id.to_string();
    let response = if stream {
        stream_response(gateway, heading, pieces).await
    } else {
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        answer::whole(&heading, pieces).await.map(|body| (json, body).into_response())
    };
    let mut response = response.unwrap_or_else(|rejection| {
        let mut response = rejection.into_response();
        // It is counted as an exchange that failed.
        response.extensions_mut().remove::<Refused>();
        response
    });
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The head of a stream waits for its first piece, so that what fails at once fails with a proper status.
async fn stream_response(gateway: &Shared, heading: Heading, mut pieces: Received) -> Result<Response, Rejection> {
    let first = pieces.recv().await;
    let first = first.unwrap_or_else(|| Err(Rejection::unavailable("exchange_lost", "the answer was lost")))?;
    let heartbeat = Duration::from_millis(gateway.config.heartbeat_ms);
    let mut response = Response::new(answer::streamed(heading, first, pieces, heartbeat));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Reads a body, no larger and no slower than is allowed.
async fn read(gateway: &Shared, session: &Session, body: Body) -> Result<Vec<u8>, Rejection> {
    let own = session.plan.max_body_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let limit = own.unwrap_or(usize::MAX).min(gateway.config.max_body_bytes);
    let patience = gateway.config.body_timeout_ms.min(gateway.config.request_timeout_ms);
    let patience = Duration::from_millis(patience);
    let reading = async {
        let mut bytes = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Rejection::invalid("body_cut_off", None, "the request body was cut off"))?;
            if bytes.len() + piece.len() > limit {
                return Err(Rejection::too_large(limit));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| Err(Rejection::too_slow()))
}

/// The headers that every answer under `/v1` has.
async fn add_headers(State(gateway): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let too_large =
        announced_length(request.headers()).is_some_and(|length| length > gateway.config.max_body_bytes as u64);
    let mut response = if too_large {
        Rejection::too_large(gateway.config.max_body_bytes).into_response()
    } else {
        next.run(request).await
    };
    let refused = response.extensions_mut().remove::<Refused>();
    let headers = response.headers_mut();
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert("openai-processing-ms", HeaderValue::from(started.elapsed().as_millis() as u64));
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(gateway.request_id())
    {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(Refused(code)) = refused {
        gateway.metrics.refused(code);
        let request = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let account = response.extensions().get::<AccountId>().map(AccountId::as_str);
        tracing::info!(request, account, code, "a request was refused");
    }
    response
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
