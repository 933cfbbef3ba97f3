//! The link between a device and the server: a proxy that understands messages, spoils some of them, and can be cut.

use crate::fate::Fate;
use crate::http::{Answer, Message};
use crate::shop::Dice;
use crate::world::clock;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Result, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Within so many bytes a stream is cut, if it is.
const STREAM_BYTES: u64 = 4 * 1024;
const HTML: &str = "<!DOCTYPE html><html><body><h1>Welcome to the guest network</h1></body></html>";

/// How a device is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are reset.
    Reset,
    /// Nothing comes back, and nobody says so.
    Silent,
    /// What is asked arrives and is done; nothing comes back.
    OneWay,
}

/// The proxy of one device. It ends with the runtime it was started on.
pub struct Link {
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

struct Wire {
    server: SocketAddr,
    dice: Mutex<Dice>,
    is_calm: AtomicBool,
    cut: watch::Sender<Option<Cut>>,
    fates: Mutex<BTreeMap<Fate, u64>>,
    log: Mutex<File>,
}

impl Link {
    pub fn start(runtime: &Handle, server: SocketAddr, dice: Dice, log: &Path) -> Self {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(Wire {
            server,
            dice: Mutex::new(dice),
            is_calm: AtomicBool::new(true),
            cut: watch::Sender::new(None),
            fates: Mutex::default(),
            log: Mutex::new(File::create(log).unwrap()),
        });
        let shared = Arc::clone(&wire);
        runtime.spawn(async move {
            loop {
                // A lack of descriptors passes.
                let Ok((device, _)) = listener.accept().await else { continue };
                tokio::spawn(Arc::clone(&shared).connection(device));
            }
        });
        Self { address, wire }
    }

    /// Whether messages pass unspoiled.
    pub fn calm(&self, is_calm: bool) {
        self.wire.is_calm.store(is_calm, Ordering::Relaxed);
    }

    /// Cuts the device off, or heals that.
    pub fn cut(&self, cut: Option<Cut>) {
        self.wire.cut.send_replace(cut);
    }

    /// How many messages had which fate.
    pub fn fates(&self) -> BTreeMap<Fate, u64> {
        self.wire.fates.lock().unwrap().clone()
    }
}

impl Wire {
    async fn connection(self: Arc<Self>, mut device: TcpStream) {
        let mut cut = self.cut.subscribe();
        let kind = tokio::select! {
            biased;
            kind = begun(&mut cut) => kind,
            // A connection that fails is a connection that is closed: the device sees it.
            _ = self.relay(&mut device) => return,
        };
        if kind == Cut::OneWay {
            self.one_way(&mut device).await;
        }
        if kind != Cut::Reset {
            let _ = cut.wait_for(Option::is_none).await;
        }
        let _ = device.set_zero_linger();
    }

    /// Brings what is still asked to the server, and its answer to nobody.
    async fn one_way(&self, device: &mut TcpStream) {
        let mut cut = self.cut.subscribe();
        let delivered = async {
            if let Ok(Some(request)) = Message::read(device).await {
                let _ = request.deliver(self.server).await;
            }
        };
        tokio::select! {
            _ = cut.wait_for(Option::is_none) => {}
            () = delivered => {}
        }
    }

    /// Carries one request after the other until the connection ends.
    async fn relay(&self, device: &mut TcpStream) -> Result<()> {
        device.set_nodelay(true)?;
        let next = loop {
            let Some(request) = Message::read(device).await? else { return Ok(()) };
            let (fate, draw) = self.draw();
            let next = tokio::select! {
                next = self.exchange(&request, fate, draw) => {
                    self.note(&request, fate, &next);
                    next
                }
                // It sends nothing while it waits: it has gone.
                _ = device.read_u8() => return Ok(()),
            };
            match next {
                Next::Answer(answer) => device.write_all(&answer.bytes()).await?,
                next => break next,
            }
        };
        match next {
            Next::Answer(_) | Next::Reset => device.set_zero_linger(),
            Next::End(bytes) => {
                device.write_all(&bytes).await?;
                device.shutdown().await
            }
            Next::Stream(mut bytes, server, left) => {
                let left = left.unwrap_or(u64::MAX);
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                device.write_all(&bytes).await?;
                let mut server = server.take(left - bytes.len() as u64);
                let (mut from_device, mut to_device) = device.split();
                tokio::select! {
                    _ = tokio::io::copy(&mut server, &mut to_device) => {
                        if server.limit() == 0 {
                            self.count(Fate::StreamCut);
                        }
                        Ok(())
                    }
                    _ = from_device.read_u8() => Ok(()),
                }
            }
        }
    }

    fn note(&self, request: &Message, fate: Fate, next: &Next) {
        let asked = request.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        let got = match next {
            Next::Answer(answer) => answer.head.lines().next().unwrap_or_default(),
            Next::End(_) => "the end",
            Next::Reset => "a reset",
            Next::Stream(..) => "a stream",
        };
        writeln!(self.log.lock().unwrap(), "{} {fate:?}: {asked} -> {got}", clock()).unwrap();
    }

    fn draw(&self) -> (Fate, u64) {
        let mut dice = self.dice.lock().unwrap();
        let drawn = (Fate::draw(&mut dice), dice.next());
        let fate = if self.is_calm.load(Ordering::Relaxed) { Fate::Passes } else { drawn.0 };
        self.count(fate);
        (fate, drawn.1)
    }

    fn count(&self, fate: Fate) {
        *self.fates.lock().unwrap().entry(fate).or_default() += 1;
    }

    /// After how many bytes a stream ends, if it is to be cut: half of them, at any byte.
    fn cut_of_stream(&self, draw: u64) -> Option<u64> {
        (!self.is_calm.load(Ordering::Relaxed) && draw.is_multiple_of(2)).then_some(draw / 2 % STREAM_BYTES)
    }

    /// Lets a request have its fate; `draw` says where it is cut, or how long it takes.
    async fn exchange(&self, request: &Message, fate: Fate, draw: u64) -> Next {
        let at = |length: usize| (draw % (length as u64 + 1)) as usize;
        match fate {
            Fate::RequestDropped => return Next::End(Vec::new()),
            Fate::Reset => return Next::Reset,
            Fate::Portal => return Next::Answer(Message::made_up("200 OK", "text/html", "", HTML)),
            Fate::BadGateway => return Next::Answer(bad_gateway()),
            Fate::TooMany => {
                let more = format!("retry-after: {}\r\n", draw % 2);
                return Next::Answer(Message::made_up("429 Too Many Requests", "text/plain", &more, "slow down"));
            }
            Fate::RequestCut => {
                let bytes = request.bytes();
                let part = &bytes[..at(bytes.len() - 1)];
                // Whether it arrives is nobody's concern.
                if let Ok(mut server) = TcpStream::connect(self.server).await {
                    let _ = server.write_all(part).await;
                }
                return Next::End(Vec::new());
            }
            Fate::Late => {
                self.deliver_later(request, Duration::from_millis(50 + draw % 750));
                return Next::Reset;
            }
            Fate::Slow => tokio::time::sleep(Duration::from_millis(20 + draw % 280)).await,
            Fate::Doubled => drop(request.deliver(self.server).await),
            Fate::Passes
            | Fate::AnswerDropped
            | Fate::AnswerCut
            | Fate::AnswerShort
            | Fate::PortalAfter
            | Fate::StreamCut => {}
        }
        match request.deliver(self.server).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && draw.is_multiple_of(2) => {
                Next::Answer(bad_gateway())
            }
            Err(_) => Next::Reset,
            Ok(Answer::Whole(answer)) => match fate {
                Fate::AnswerDropped => Next::End(Vec::new()),
                Fate::AnswerCut => {
                    let mut bytes = answer.bytes();
                    bytes.truncate(at(bytes.len() - 1));
                    Next::End(bytes)
                }
                Fate::AnswerShort if answer.body.is_empty() => Next::End(Vec::new()),
                Fate::AnswerShort => Next::Answer(answer.with_body(answer.body[..at(answer.body.len() - 1)].to_vec())),
                Fate::PortalAfter => Next::Answer(Message::made_up("200 OK", "text/html", "", HTML)),
                _ => Next::Answer(answer),
            },
            Ok(Answer::Stream(head, first, server)) => {
                let bytes = [head.into_bytes(), first].concat();
                match fate {
                    Fate::AnswerDropped => Next::End(Vec::new()),
                    _ => Next::Stream(bytes, server, self.cut_of_stream(draw)),
                }
            }
        }
    }

    fn deliver_later(&self, request: &Message, wait: Duration) {
        let (request, server) = (Message { head: request.head.clone(), body: request.body.clone() }, self.server);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // Nobody waits for the answer.
            let _ = request.deliver(server).await;
        });
    }
}

/// What the device gets.
enum Next {
    /// An answer, and the connection goes on.
    Answer(Message),
    /// Some bytes, and the end of the connection.
    End(Vec<u8>),
    Reset,
    /// Some bytes, and what else the server says for as long as it does, or up to so many bytes in all.
    Stream(Vec<u8>, TcpStream, Option<u64>),
}

fn bad_gateway() -> Message {
    Message::made_up("502 Bad Gateway", "text/html", "", "<html><body>502 Bad Gateway</body></html>")
}

/// Resolves when the device is cut off.
async fn begun(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    let begun = cut.wait_for(Option::is_some).await.expect("the wire keeps the sender");
    begun.expect("it was waited for")
}
