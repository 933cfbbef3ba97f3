//! A connection whose beginning was read, with bounded patience for taking what is sent.

use super::beginning::Beginning;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection with bounded patience.
pub(super) struct Patient<S> {
    inner: S,
    /// What was read of it and nobody was given.
    beginning: Option<Box<Beginning>>,
    stall_timeout: Duration,
    /// While the peer takes nothing: until when it must.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S, beginning: Beginning, stall_timeout: Duration) -> Self {
        Self { inner, beginning: Some(Box::new(beginning)), stall_timeout, stalled: None }
    }

    /// What writing came to, unless the peer has taken nothing for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the peer takes nothing of what is sent")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let given = self.beginning.as_ref().filter(|beginning| beginning.bytes().len() <= buffer.remaining());
        let Some(given) = given else {
            return match self.beginning {
                Some(_) => Poll::Ready(Err(io::Error::new(ErrorKind::InvalidInput, "there is no room for the first bytes"))),
                None => Pin::new(&mut self.inner).poll_read(context, buffer),
            };
        };
        buffer.put_slice(given.bytes());
        self.beginning = None;
        // What came behind it belongs to the same read, and an end or an error shows again in the next one.
        let _ = Pin::new(&mut self.inner).poll_read(context, buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, shut)
    }
}
