//! The way from an exchange to its client.

use tokio::sync::mpsc::{self, error};

use super::Piece;
use crate::rejection::Rejection;

/// Pieces that wait for a slow client before the model is made to wait.
const PIECES: usize = 32;

/// What the client is told: a piece, or why there will be no more.
pub(crate) type Said = Result<Piece, Rejection>;

/// Where pieces go.
///
/// A channel has room for all of its pieces from its first one on, and most streams are open for long while little waits
/// in them. So the room is for pointers: half a kilobyte a stream instead of five.
#[derive(Debug, Clone)]
pub(crate) struct Pieces(mpsc::Sender<Box<Said>>);

/// Where they come from; whoever reads them is the client.
#[derive(Debug)]
pub(crate) struct Received(mpsc::Receiver<Box<Said>>);

/// Nobody reads any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why a piece was not taken at once.
pub(crate) enum NotTaken {
    /// Too many pieces wait; here it is again.
    Full(Box<Said>),
    Gone,
}

/// A way for the pieces of one exchange.
pub(crate) fn pipe() -> (Pieces, Received) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (Pieces(sender), Received(receiver))
}

impl Pieces {
    /// Waits until `said` has room.
    pub(crate) async fn send(&self, said: impl Into<Box<Said>>) -> Result<(), Gone> {
        self.0.send(said.into()).await.map_err(|_| Gone)
    }

    pub(crate) fn try_send(&self, said: Said) -> Result<(), NotTaken> {
        self.0.try_send(Box::new(said)).map_err(|error| match error {
            error::TrySendError::Full(said) => NotTaken::Full(said),
            error::TrySendError::Closed(_) => NotTaken::Gone,
        })
    }

    /// Ends when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Received {
    pub(crate) async fn recv(&mut self) -> Option<Said> {
        self.0.recv().await.map(|said| *said)
    }

    pub(crate) fn try_recv(&mut self) -> Result<Said, error::TryRecvError> {
        self.0.try_recv().map(|said| *said)
    }
}
