//! A link that breaks: a TCP proxy between a device and the server that cuts connections by a seed.
//!
//! Invariant: which of a device's requests are cut, and where, follows from the seed and the order of the requests alone.
//! It knows nothing of HTTP but that a device waits for an answer before it sends the next request on a connection.

use super::random::Random;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How many of a hundred requests are cut.
const CUT_PERCENT: u64 = 20;

/// Where a request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server sees nothing of it.
    BeforeRequest,
    /// The server sees a part of it.
    InRequest,
    /// The server has done it; the device gets a part of the answer.
    InAnswer,
    /// The server has done it; the device hears nothing.
    BeforeAnswer,
}

/// A running proxy. It ends when this is dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

struct Link {
    server: SocketAddr,
    random: Mutex<Random>,
    requests: AtomicU64,
    cuts: AtomicU64,
    on_cut: Box<dyn Fn() + Send + Sync>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface; `on_cut` is called at each cut.
    pub(super) async fn start(
        server: SocketAddr,
        random: Random,
        on_cut: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port of 127.0.0.1 is free")?;
        let address = listener.local_addr()?;
        let (requests, cuts) = (AtomicU64::new(0), AtomicU64::new(0));
        let link = Arc::new(Link { server, random: Mutex::new(random), requests, cuts, on_cut: Box::new(on_cut) });
        let shared = link.clone();
        let task = tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let link = shared.clone();
                // A connection that fails is a connection that is closed: the device sees it.
                tokio::spawn(async move { link.relay(device).await.ok() });
            }
        });
        Ok(Self { address, link, task })
    }

    /// The address for a device to connect to.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that devices began.
    pub(super) fn requests(&self) -> u64 {
        self.link.requests.load(Ordering::Relaxed)
    }

    /// Requests that were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.link.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Carries bytes both ways until either side closes or a request is cut. Bytes from the device after bytes from the
    /// server are a new request.
    async fn relay(&self, mut device: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.server).await?;
        device.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let (mut is_answered, mut cut) = (true, None);
        loop {
            tokio::select! {
                read = device.read(&mut up) => {
                    let read = read?;
                    if std::mem::take(&mut is_answered) && read > 0 {
                        cut = self.next_request();
                    }
                    match cut {
                        _ if read == 0 => return Ok(()),
                        Some(Cut::BeforeRequest) => break,
                        Some(Cut::InRequest) => {
                            server.write_all(&up[..read / 2]).await?;
                            break;
                        }
                        _ => server.write_all(&up[..read]).await?,
                    }
                }
                read = server.read(&mut down) => {
                    let read = read?;
                    is_answered = true;
                    match cut {
                        _ if read == 0 => return Ok(()),
                        Some(Cut::BeforeAnswer) => break,
                        Some(Cut::InAnswer) => {
                            device.write_all(&down[..read / 2]).await?;
                            break;
                        }
                        _ => device.write_all(&down[..read]).await?,
                    }
                }
            }
        }
        drop((device, server));
        self.cuts.fetch_add(1, Ordering::Relaxed);
        (self.on_cut)();
        Ok(())
    }

    /// Draws what becomes of the next request.
    fn next_request(&self) -> Option<Cut> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let cuts = [Cut::BeforeRequest, Cut::InRequest, Cut::InAnswer, Cut::BeforeAnswer];
        let place = random.below(4);
        random.percent(CUT_PERCENT).then(|| cuts[usize::try_from(place).expect("below 4")])
    }
}
