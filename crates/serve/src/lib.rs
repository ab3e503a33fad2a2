//! The gateway: terms, budgets, twins and a journal in front of any teacher.
//!
//! A request goes through this crate from top to bottom:
//!
//! 1. `routes` reads it and finds out whose it is,
//! 2. `request` checks it and puts it in the form of a model's request,
//! 3. `admission` applies plan, terms, grant and budget, and decides whether it is twinned,
//! 4. `twins` says which draws there are, and why what is drawn says nothing about the coin,
//! 5. `exchange` draws, commits to the journal, settles, and only then lets the end of the answer go,
//! 6. `answer` writes what is served in OpenAI's form; `responses` and `embedding` read and write those of their endpoints.
//!
//! What becomes of a request's fields, besides those that are the request (`model`, `messages`, `n`, `stream`, `max_tokens`,
//! `temperature`, `top_p`, `seed`, `stop`, `logprobs` and the like):
//!
//! | field | what becomes of it |
//! |---|---|
//! | `tools`, `tool_choice`, `parallel_tool_calls` | to a model with tools; not of completions |
//! | `response_format` | to a model that keeps to forms; not of completions; `{"type": "text"}` changes nothing |
//! | `presence_penalty`, `frequency_penalty`, `logit_bias`, `top_k`, `min_p`, `repetition_penalty` | to a model that bends its probabilities: those behind HTTP and those in this process |
//! | content other than text, `tool_calls` and `tool_call_id` of messages | to a model behind HTTP |
//! | `reasoning_effort`, `verbosity` | to a model behind HTTP; others are spared them, since they only advise |
//! | `functions`, `modalities`, `audio`, `prediction`, `web_search_options`, `suffix`, `echo`, `best_of` | refused, unless the value changes nothing |
//! | `user`, `metadata`, `store`, `service_tier` and whatever is not known | ignored: they go nowhere and are not kept; a response gives its `metadata` back |
//! | of responses: `previous_response_id`, `conversation`, `prompt`, `store`, `background`, `truncation` | refused, unless the value needs nothing to be kept or left out |
//!
//! Responses say the same in words of their own (`text.format`, `reasoning.effort`), which are read as those of a chat.
//! Embeddings have `input`, `dimensions` and `encoding_format`.
//!
//! What a model cannot be handed is refused with the field's name, unless its value changes nothing.
//!
//! A request that names itself by `Idempotency-Key` is answered once, however often it is sent: `repeats`.
//!
//! Whoever operates it reads its state and its metrics at an address of their own: [`operate`].

mod admission;
mod answer;
mod charges;
mod client;
mod config;
mod door;
mod embedding;
mod error;
mod exchange;
mod fields;
mod gateway;
mod metrics;
mod planted;
mod rate;
mod rejection;
mod repeats;
mod request;
mod responses;
mod routes;
mod run;
mod telemetry;
mod twins;

pub use config::{Config, DeferredConfig, IdempotencyConfig, Secrets, TwinConfig};
pub use error::ServeError;
pub use gateway::{Gateway, GatewayParts};
pub use planted::{PlantedAnswer, PlantedDraw};
pub use run::{operate, run};
pub use telemetry::TelemetryConfig;
