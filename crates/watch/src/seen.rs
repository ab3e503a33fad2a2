use anbiq_domain::{Entry, Imported};

/// Something that `watch` reads.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one is held at a time, and boxing each would cost more")]
pub enum Seen {
    /// An entry of a journal.
    Entry(Entry),
    /// A row of another system's log.
    Imported(Imported),
}

impl From<Entry> for Seen {
    fn from(entry: Entry) -> Self {
        Self::Entry(entry)
    }
}

impl From<Imported> for Seen {
    fn from(row: Imported) -> Self {
        Self::Imported(row)
    }
}
