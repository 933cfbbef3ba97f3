//! The line of a device that listens: requests pass, and of its streams what the judge lets pass.

use gbsync_client::{BoxFuture, Method, Pieces, Request, Response, Streamed, Transport, TransportError};
use gbsync_server::{LocalServer, LocalStream};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// What an operation's id begins with: its number comes next.
const SALE: &str = "\"syncGroupId\":\"sale:s";

/// How many sales there were when a token ended, by token.
pub(super) type Ended = Arc<Mutex<BTreeMap<String, u64>>>;

/// What happens to the streams of a line, and what came through them.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// So many bytes more, then the connection breaks off.
    pub(super) cut_after: Option<usize>,
    /// Nobody reads.
    pub(super) is_stalled: bool,
    /// Streams that were opened.
    pub(super) opened: u64,
    /// Streams that are open.
    pub(super) open: u64,
    /// Pieces of the stream that is open, and its token.
    pub(super) pieces: u64,
    pub(super) token: String,
    /// Requests other than for streams.
    pub(super) asked: u64,
    /// Streams that were cut, dropped because they were read too slowly, and ended with their token.
    pub(super) cut: u64,
    pub(super) too_slow: u64,
    pub(super) unauthenticated: u64,
    /// P9: what came on a stream that was not to come.
    pub(super) broken: Option<String>,
}

/// A device's way to the server.
pub(super) struct Line {
    local: Arc<LocalServer>,
    ended: Ended,
    present: Arc<Mutex<Present>>,
}

impl Line {
    pub(super) fn new(local: &Arc<LocalServer>, ended: &Ended) -> Self {
        Self { local: Arc::clone(local), ended: Arc::clone(ended), present: Arc::default() }
    }

    pub(super) fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Line {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.present().asked += 1;
        Box::pin(async move {
            let method = match request.method {
                Method::Get => "GET",
                Method::Post => "POST",
                Method::Put => "PUT",
            };
            // The server would wait in real time.
            let path = request.path.split('&').filter(|part| !part.starts_with("wait=")).collect::<Vec<_>>().join("&");
            let token = request.token.map(|token| token.0);
            let answer = self.local.answer(method, &path, token.as_deref(), request.body).await;
            let retry_after_ms = answer.retry_after_s.map(|seconds| seconds * 1_000);
            Ok(Response { status: answer.status, content_type: answer.content_type, retry_after_ms, body: answer.body })
        })
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        Box::pin(async move {
            let token = request.token.map(|token| token.0);
            let stream = self.local.listen(&request.path, token.as_deref()).await;
            let (status, content_type) = (stream.status, stream.content_type.clone());
            let retry_after_ms = stream.retry_after_s.map(|seconds| seconds * 1_000);
            if status == 200 {
                let mut present = self.present();
                (present.opened, present.open, present.pieces) = (present.opened + 1, present.open + 1, 0);
                present.token = token.clone().unwrap_or_default();
            }
            let body = Heard {
                stream,
                token: token.unwrap_or_default(),
                ended: Arc::clone(&self.ended),
                present: Arc::clone(&self.present),
                is_cut: false,
                is_counted: status == 200,
            };
            Ok(Streamed { status, content_type, retry_after_ms, body: Box::new(body) })
        })
    }
}

/// A stream as it comes to the device.
struct Heard {
    stream: LocalStream,
    token: String,
    ended: Ended,
    present: Arc<Mutex<Present>>,
    is_cut: bool,
    is_counted: bool,
}

impl Heard {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a piece; what of it arrives.
    fn look(&mut self, mut piece: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&piece).into_owned();
        let ended_at = self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(&self.token).copied();
        let sales = text.split(SALE).skip(1).filter_map(|rest| rest.split(':').next()?.parse::<u64>().ok());
        let later = sales.filter(|sale| ended_at.is_some_and(|ended_at| *sale > ended_at)).max();
        let mut present = self.present();
        if let Some(sale) = later {
            present.broken = Some(format!("P9: a stream told of the sale {sale}, which is of after its token ended"));
        }
        present.pieces += 1;
        present.too_slow += u64::from(text.contains("too_slow"));
        present.unauthenticated += u64::from(text.contains("unauthenticated"));
        if let Some(left) = present.cut_after {
            if piece.len() >= left {
                piece.truncate(left);
                (present.cut_after, present.cut) = (None, present.cut + 1);
                drop(present);
                self.is_cut = true;
            } else {
                present.cut_after = Some(left - piece.len());
            }
        }
        piece
    }
}

impl Pieces for Heard {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(async {
            if self.is_cut {
                return Err(TransportError { message: "the connection was reset".into() });
            }
            // The judge asks again and again.
            poll_fn(|_| if self.present().is_stalled { Poll::Pending } else { Poll::Ready(()) }).await;
            let piece = self.stream.next().await;
            Ok(piece.map(|piece| self.look(piece)))
        })
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if self.is_counted {
            let mut present = self.present();
            present.open = present.open.saturating_sub(1);
        }
    }
}
