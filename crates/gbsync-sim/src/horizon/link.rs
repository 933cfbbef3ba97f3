//! The link of a device: HTTP that drops requests and cuts downloads where it is told to.

use gbsync_client::{
    BoxFuture, Download, DownloadFrom, HttpTransport, Pieces, Request, Response, Streamed, Transport, TransportError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What goes wrong in a round.
pub(super) struct Link {
    http: HttpTransport,
    /// Requests that arrive, before none does any more; below 0: all.
    passing: AtomicI64,
    /// Bytes after which each download ends as if it were whole; `u64::MAX`: all of it comes.
    cut_at: AtomicU64,
    downloads: AtomicU64,
    /// Downloads that ended early.
    cut: Arc<AtomicU64>,
}

impl Link {
    pub(super) fn new(http: HttpTransport) -> Self {
        let (passing, cut_at, downloads) = (AtomicI64::new(-1), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { http, passing, cut_at, downloads, cut: Arc::default() }
    }

    /// From now on so many requests arrive, and downloads end after so many bytes.
    pub(super) fn fail(&self, passing: Option<i64>, cut_at: Option<u64>) {
        self.passing.store(passing.unwrap_or(-1), Ordering::SeqCst);
        self.cut_at.store(cut_at.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Downloads that began.
    pub(super) fn downloads(&self) -> u64 {
        self.downloads.load(Ordering::SeqCst)
    }

    /// Downloads that ended early.
    pub(super) fn cut(&self) -> u64 {
        self.cut.load(Ordering::SeqCst)
    }

    fn passes(&self) -> Result<(), TransportError> {
        match self.passing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left > 0).then(|| left - 1)) {
            Err(0) => Err(TransportError { message: "the connection was reset".into() }),
            _ => Ok(()),
        }
    }
}

impl Transport for Link {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async {
            self.passes()?;
            self.http.send(request).await
        })
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        Box::pin(async {
            self.passes()?;
            self.downloads.fetch_add(1, Ordering::SeqCst);
            let left = self.cut_at.load(Ordering::SeqCst);
            let download = self.http.download(request, from).await?;
            Ok(download.map(|download| {
                let body = Box::new(Cut { body: download.streamed.body, left, cut: self.cut.clone() });
                Download { streamed: Streamed { body, ..download.streamed }, ..download }
            }))
        })
    }
}

/// A body that ends early, and does not say so.
struct Cut {
    body: Box<dyn Pieces>,
    left: u64,
    cut: Arc<AtomicU64>,
}

impl Pieces for Cut {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(async {
            if self.left == 0 {
                return Ok(None);
            }
            let Some(mut piece) = self.body.next().await? else { return Ok(None) };
            if piece.len() as u64 > self.left {
                self.cut.fetch_add(1, Ordering::SeqCst);
            }
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= piece.len() as u64;
            Ok(Some(piece))
        })
    }
}
