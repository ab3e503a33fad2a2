//! Watermarks of sampling: marks in the choice of tokens that a key makes visible, with exact tests for them.
//!
//! Which token follows the last few ones (the *window*) is nudged by a pseudo-random function of the window, the token and a
//! secret key. Whoever holds the key can tell marked text from any other, by [`Tally`], and can tell whether a model was
//! *trained* on marked text, since a student learns the nudges as if they were language: the text is radioactive (Sander et
//! al. 2024).
//!
//! | [`Scheme`] | what it does to answers | test |
//! |---|---|---|
//! | [`Scheme::Gumbel`] with two keys (after Aaronson 2022; two keys after TextSeal 2026) | nothing: each answer has exactly the model's distribution | Gamma |
//! | [`Scheme::Green`] (Kirchenbauer et al. 2023) | favours a keyed part of the vocabulary; costs some quality | binomial |
//!
//! **What is random.** The key alone. H0 of every test here is that what is looked at, a text or a model, is independent of
//! the key. The values of the function at different pairs of window and token are then independent and uniform, so a pair may
//! count *once*, over a whole corpus: a phrase that is said a hundred times says nothing a hundred times. That is why
//! everything here goes through a [`Tally`] or a [`Leaning`], which count each pair once.
//!
//! **What breaks it.** A key that was chosen after the text was seen. So a [`Mark::commitment`] must be with somebody else
//! before: in the journal, or in a signed plan. And a model that *reads* marked text may repeat it without having been
//! trained on it: [`Tally`] and [`Leaning`] are for models that were given unmarked text only; [`Reading`] is for the
//! rest.

mod error;
mod leaning;
mod mark;
mod marker;
mod reading;
mod tally;

pub use error::MarkError;
pub use leaning::{Lean, Leaning};
pub use mark::{Mark, Scheme, Value, Window};
pub use marker::Marker;
pub use reading::{Read, Reading};
pub use tally::{Detection, Tally};
