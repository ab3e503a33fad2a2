//! The dossier: all that supports a finding, in one folder that another party can check without trusting us.
//!
//! [`Dossier`] is what a dossier says, in neutral words that `watch`, `trace` and `distill` fill in; [`html::page`] draws
//! it. [`write()`] puts it into a folder together with the journal's records that it rests on, their inclusion proofs, the
//! coins that chose among twins, and a signed statement over everything. [`verify()`] needs that folder and nothing
//! else, and says which file, and which row of it, is not as it was signed. [`html::findings`] draws what `watch` found by
//! itself.

pub mod canonical;
mod content;
pub mod dossier;
mod findings;
pub mod html;
mod language;
mod other;
mod records;
pub mod signed;
pub mod statement;

pub use content::{
    Dossier, GrantRow, Graph, GraphEdge, GraphNode, Licence, Mark, OperatorRow, OperatorTest, PartTest, Plot,
    Provenance, Reason, Strength, StudentRow, SuspectPage, TermsPage, Timeline, TimelineBucket, Tone,
};
pub use dossier::{
    Broken, Contents, Disclosed, EvidenceError, Twin, Verified, Written, attachment_name, verify, write,
};
pub use findings::{Findings, FoundAccount, FoundOperator, FoundStage};
pub use language::Language;
pub use other::{Among, Basis, Fact, Measure, OtherTest, Question, Table, Value};
