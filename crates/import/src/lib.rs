//! Logs of other systems, made readable for `watch`.
//!
//! A log is read row by row, whatever its size and whether or not it is compressed; a row that cannot be used is counted,
//! named by its number and passed over. Of each request is kept who asked, when, with what settings and how many tokens; of
//! addresses, software, payments and prompts only keyed hashes and sketches, so that no text of the log is in the result.
//!
//! What comes out are rows of [`Imported`](anbiq_domain::Imported), which are no entries of a journal and cannot be taken for
//! such: nobody signed them or committed to them. [`import`] writes them to a folder, [`Import`] reads them back, [`check`]
//! says beforehand what can be found with the fields that a log has.
//!
//! Formats are told from their rows; each has a file in `format/` that says where its fields stand. Rows of one request that
//! stand in several files are put together in the order of time (`join.rs`), in bounded memory.

mod check;
mod error;
mod fault;
mod field;
mod format;
mod found;
mod import;
mod join;
mod mapping;
mod pipeline;
mod prompt;
mod read;
mod rows;
mod source;
mod store;
mod table;

pub use check::{Check, Signal, Works, check, render_check};
pub use error::ImportError;
pub use fault::Fault;
pub use field::Field;
pub use format::Format;
pub use import::{Target, import};
pub use mapping::Mapping;
pub use read::{BadRow, FieldReport, Options, SourceReport, Sums};
pub use source::{Compression, files};
pub use store::{Import, ImportedRows, MANIFEST, Manifest, RowsFile};
