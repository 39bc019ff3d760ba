//! An answer that arrives in small pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::Frame;
use tokio::time::{Sleep, sleep};

/// The number of pieces.
const BITS: u32 = 20;

/// A body that sends one piece after every pause.
pub(crate) struct Trickle {
    rest: Bytes,
    bit: usize,
    pause: Duration,
    next: Pin<Box<Sleep>>,
}

impl Trickle {
    /// Builds a body that takes this time to arrive.
    pub(crate) fn new(text: String, time: Duration) -> Self {
        let (bit, pause) = (text.len().div_ceil(BITS as usize), time / BITS);
        Self { rest: text.into(), bit, pause, next: Box::pin(sleep(pause)) }
    }
}

impl HttpBody for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.next.as_mut().poll(context));
        self.next = Box::pin(sleep(self.pause));
        let bit = self.bit.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(bit)))))
    }
}
