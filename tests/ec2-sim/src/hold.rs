//! Calls held up until a test lets them go on: so that what happens meanwhile does not depend on anybody's speed.

use tokio::sync::oneshot;

/// A call of an action that a test holds up before EC2 begins to work on it; it goes on when this is dropped.
pub struct Held {
    arrived: Option<oneshot::Receiver<()>>,
    _until_dropped: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the call has come.
    ///
    /// # Panics
    /// If the cloud is gone before it came.
    pub async fn arrived(&mut self) {
        if let Some(arrived) = self.arrived.take() {
            arrived.await.expect("a cloud");
        }
    }

    /// Lets the call go on.
    pub fn release(self) {}
}

/// The cloud's side of it.
pub(crate) struct Gate {
    pub(crate) action: String,
    arrived: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

impl Gate {
    pub(crate) fn new(action: &str) -> (Self, Held) {
        let ((told, arrived), (until_dropped, go)) = (oneshot::channel(), oneshot::channel());
        let held = Held { arrived: Some(arrived), _until_dropped: until_dropped };
        (Self { action: action.into(), arrived: told, go }, held)
    }

    /// Tells that the call has come, and waits until it may go on.
    pub(crate) async fn pass(self) {
        // Nobody need be waiting for it.
        let _ = self.arrived.send(());
        // All that can come is that the other side was dropped.
        let _ = self.go.await;
    }
}
