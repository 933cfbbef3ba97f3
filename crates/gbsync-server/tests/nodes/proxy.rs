//! Stands between a node and PostgreSQL, on a socket of its own: cuts the connection of one COMMIT at a chosen moment, and of
//! everybody who says what is refused, and counts round trips.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// When the connection of a COMMIT goes away, as the node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before PostgreSQL was told of it.
    Before,
    /// After PostgreSQL has done it, before the node hears so.
    After,
    /// While it is on its way: PostgreSQL does it some time after the node saw the end.
    Late,
}

/// How much later.
const LATE: Duration = Duration::from_millis(600);

#[derive(Default)]
struct Plan {
    next: Option<Cut>,
    /// Whoever says one of these is cut off before PostgreSQL hears it.
    refused: &'static [&'static str],
    cuts: usize,
    /// `None` while they are not counted.
    round_trips: Option<u64>,
}

pub struct Proxy {
    folder: TempDir,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    pub fn start(socket_folder: &Path, refused: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (server, plan) =
            (socket_folder.join(".s.PGSQL.5432"), Arc::new(Mutex::new(Plan { refused, ..Plan::default() })));
        tokio::spawn(accept(listener, server, Arc::clone(&plan)));
        Self { folder, plan }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Cuts the next COMMIT, and that one alone.
    pub fn cut_next(&self, cut: Cut) {
        self.plan.lock().unwrap().next = Some(cut);
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.plan.lock().unwrap().cuts
    }

    /// Counts from now on how often somebody asks, other than those who tell and listen. What is sent without waiting for an
    /// answer is asked once: answers are held back until nobody sends any more.
    pub fn count_round_trips(&self) {
        self.plan.lock().unwrap().round_trips = Some(0);
    }

    /// How many there were since.
    pub fn round_trips(&self) -> u64 {
        self.plan.lock().unwrap().round_trips.unwrap()
    }
}

/// How long nobody may send before an answer is carried, where round trips are counted.
const QUIET: Duration = Duration::from_millis(40);
/// How those are known who tell and listen, beside what is done for devices.
const ASIDE: [&str; 2] = ["LISTEN ", "pg_notify"];

fn says(message: &[u8], text: &str) -> bool {
    message[..message.len().min(1024)].windows(text.len()).any(|window| window == text.as_bytes())
}

/// Who had the word last on a connection.
struct Talk {
    is_answered: AtomicBool,
    asked: Mutex<Instant>,
}

impl Talk {
    /// Whether this is the first that is sent after an answer.
    fn ask(&self) -> bool {
        *self.asked.lock().unwrap() = Instant::now();
        self.is_answered.swap(false, Ordering::SeqCst)
    }

    async fn fall_silent(&self) {
        loop {
            let since = self.asked.lock().unwrap().elapsed();
            if since >= QUIET {
                return;
            }
            tokio::time::sleep(QUIET - since).await;
        }
    }
}

async fn accept(listener: UnixListener, server: PathBuf, plan: Arc<Mutex<Plan>>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&server).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (plan, (mute, is_mute)) = (Arc::clone(&plan), watch::channel(false));
        let talk = Arc::new(Talk { is_answered: AtomicBool::new(false), asked: Mutex::new(Instant::now()) });
        let down = tokio::spawn(carry_down(from_server, to_client, is_mute, Arc::clone(&plan), Arc::clone(&talk)));
        tokio::spawn(async move {
            let _ = carry_up(from_client, to_server, &plan, &mute, &talk).await;
            down.abort();
        });
    }
}

/// Carries answers until it must be silent; then takes one more answer, lets nobody hear it, and ends.
async fn carry_down(
    mut server: OwnedReadHalf,
    client: OwnedWriteHalf,
    mut is_mute: watch::Receiver<bool>,
    plan: Arc<Mutex<Plan>>,
    talk: Arc<Talk>,
) {
    let (mut buffer, mut client) = (vec![0; 64 * 1024], Some(client));
    loop {
        tokio::select! {
            biased;
            () = async { drop(is_mute.wait_for(|is_mute| *is_mute).await) }, if client.is_some() => client = None,
            read = server.read(&mut buffer) => match (read, &mut client) {
                (Ok(0) | Err(_), _) | (_, None) => return,
                (Ok(read), Some(client)) => {
                    if plan.lock().unwrap().round_trips.is_some() {
                        talk.fall_silent().await;
                    }
                    talk.is_answered.store(true, Ordering::SeqCst);
                    if client.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}

async fn carry_up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    plan: &Mutex<Plan>,
    mute: &watch::Sender<bool>,
    talk: &Talk,
) -> std::io::Result<()> {
    let (mut is_first, mut is_aside) = (true, false);
    loop {
        let mut message = vec![0; if std::mem::take(&mut is_first) { 4 } else { 5 }];
        client.read_exact(&mut message).await?;
        let head = message.len();
        let length = u32::from_be_bytes(message[head - 4..].try_into().unwrap()) as usize;
        message.resize(head + length - 4, 0);
        client.read_exact(&mut message[head..]).await?;
        is_aside |= ASIDE.iter().any(|text| says(&message, text));
        let cut = {
            let mut plan = plan.lock().unwrap();
            let is_asking = talk.ask() && !is_aside;
            plan.round_trips = plan.round_trips.map(|before| before + u64::from(is_asking));
            match message.as_slice() {
                [b'Q', _, _, _, _, b'C', b'O', b'M', b'M', b'I', b'T', 0] => plan.next.take(),
                _ => plan.refused.iter().any(|text| says(&message, text)).then_some(Cut::Before),
            }
        };
        let Some(cut) = cut else {
            server.write_all(&message).await?;
            continue;
        };
        // Whoever listens to the node's end hears nothing any more.
        mute.send_replace(true);
        plan.lock().unwrap().cuts += 1;
        match cut {
            Cut::Before => return Ok(()),
            Cut::After => {
                server.write_all(&message).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Ok(());
            }
            Cut::Late => {
                drop(client);
                tokio::time::sleep(LATE).await;
                server.write_all(&message).await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Ok(());
            }
        }
    }
}
