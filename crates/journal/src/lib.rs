//! The append-only, tamper-evident log of exchanges.
//!
//! A journal is a folder. One process writes it, through one thread; anybody may read it meanwhile.
//!
//! ```text
//! DIR/journal.json       format, id, public key, time of creation, signed
//! DIR/00000000.seg       segments: 16 bytes of magic, then frames
//! DIR/00000001.seg         u32 length | u32 CRC-32C of length and payload | payload   (little-endian)
//!                          the length's top bit is set in the first frame of what was written in one go
//! DIR/00000000-000000000000-00001024.parquet   a sealed file: segment, first record, number of records
//! DIR/sealed.list        which files are sealed and what was deleted, signed
//! DIR/checkpoints.log    signed notes: the Merkle root at growing sizes
//! DIR/lock               held by the writer
//! ```
//!
//! A closed segment is sealed: it becomes a Parquet file (zstd) that holds the same payloads, byte for byte, in a column
//! `leaf`, and beside it what analysts ask for in columns of their own. Whole sealed files may be deleted once their root is
//! signed; `sealed.list` keeps the few hashes from which every later root and proof still follows.
//!
//! A payload is the JSON of one [`anbiq_domain::Entry`]. Its bytes on the disk are what the [`tree`] hashes; they are
//! never written a second time in another spelling.
//!
//! What is promised: an entry that [`Journal::append`] acknowledged was fsynced before, and is there after any crash;
//! every byte that a checkpoint covers is protected by its signature. What is not: records after the last checkpoint
//! are protected by checksums only, and a journal cut back to an older signed state as a whole looks like that older
//! journal, unless somebody else kept a newer checkpoint.

pub mod checkpoint;
mod columns;
mod disk;
mod error;
mod format;
mod key;
#[cfg(test)]
mod proof;
mod read;
mod sealed;
#[cfg(test)]
mod sim;
mod snapshot;
mod spool;
mod store;
mod texts;
pub mod tree;
mod upkeep;
mod verify;
mod write;

pub use checkpoint::Checkpoint;
pub use columns::schema as sealed_schema;
pub use error::{Fault, JournalError, Place};
pub use format::{FORMAT, MAX_ENTRY_BYTES};
pub use key::{PublicKey, PublicKeyError, SigningKey};
pub use read::{Bookmark, Entries, Reader, Record, Torn};
pub use sealed::{FileReport, Keep, Retained, SealedFile, verify_file};
pub use snapshot::Snapshot;
pub use spool::{Spool, SpoolError};
pub use texts::{TextKeys, TextsError};
pub use upkeep::{Pruned, prune, seal};
pub use verify::{Report, verify};
pub use write::{Journal, Options, Position, Recovery, Seal, State};
