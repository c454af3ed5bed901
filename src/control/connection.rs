//! A client's connection that gives up on a client which does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::guest::Guest;
use crate::os::clock;

/// A stream whose writes fail once nothing could be written for so long.
#[derive(Debug)]
pub(super) struct Patient<Stream> {
    stream: Stream,
    patience: Duration,
    /// Who is told whether it reads.
    guest: Arc<Guest>,
    /// Since a write could not go on.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<Stream> Patient<Stream> {
    pub(super) fn new(stream: Stream, patience: Duration, guest: Arc<Guest>) -> Patient<Stream> {
        Patient { stream, patience, guest, waits: None }
    }

    /// What a write came to, unless it has been waiting for too long.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.waits.take().is_some() {
                self.guest.reads();
            }
            return written;
        }
        if self.waits.is_none() {
            self.guest.does_not_read(clock::now());
        }
        let patience = self.patience;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Patient<Stream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Patient<Stream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    fn patient<Stream>(stream: Stream, patience: Duration) -> Patient<Stream> {
        Patient::new(stream, patience, Arc::new(Guest::new(clock::now())))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up() {
        run(async {
            let (ours, _theirs) = UnixStream::pair().expect("a pair");
            let mut patient = patient(ours, Duration::from_millis(20));
            let error = patient.write_all(&vec![0; 64 << 20]).await.expect_err("too much");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_client_that_reads_slowly_is_not() {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            // Far more time than each read takes, far less than all of them together.
            let mut patient = patient(ours, Duration::from_secs(20));
            let reads = tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                let mut total = 0;
                while let Ok(count @ 1..) = theirs.read(&mut bytes).await {
                    total += count;
                    tokio::task::yield_now().await;
                }
                total
            });
            patient.write_all(&vec![0; 8 << 20]).await.expect("all of it");
            drop(patient);
            assert_eq!(reads.await.expect("read"), 8 << 20);
        });
    }
}
