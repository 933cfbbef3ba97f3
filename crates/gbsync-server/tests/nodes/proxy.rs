//! Stands between a node and PostgreSQL, on a socket of its own, and cuts the connection of one COMMIT at a chosen moment.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
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
    cuts: usize,
}

pub struct Proxy {
    folder: TempDir,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    pub fn start(socket_folder: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (server, plan) = (socket_folder.join(".s.PGSQL.5432"), Arc::<Mutex<Plan>>::default());
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

    /// How many were cut.
    pub fn cuts(&self) -> usize {
        self.plan.lock().unwrap().cuts
    }
}

async fn accept(listener: UnixListener, server: PathBuf, plan: Arc<Mutex<Plan>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&server).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (plan, (mute, is_mute)) = (Arc::clone(&plan), watch::channel(false));
        let down = tokio::spawn(carry_down(from_server, to_client, is_mute));
        tokio::spawn(async move {
            let _ = carry_up(from_client, to_server, &plan, &mute).await;
            down.abort();
        });
    }
}

/// Carries answers until it must be silent; then takes one more answer, lets nobody hear it, and ends.
async fn carry_down(mut server: OwnedReadHalf, client: OwnedWriteHalf, mut is_mute: watch::Receiver<bool>) {
    let (mut buffer, mut client) = (vec![0; 64 * 1024], Some(client));
    loop {
        tokio::select! {
            biased;
            () = async { drop(is_mute.wait_for(|is_mute| *is_mute).await) }, if client.is_some() => client = None,
            read = server.read(&mut buffer) => match (read, &mut client) {
                (Ok(0) | Err(_), _) | (_, None) => return,
                (Ok(read), Some(client)) => {
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
) -> std::io::Result<()> {
    let mut is_first = true;
    loop {
        let mut message = vec![0; if std::mem::take(&mut is_first) { 4 } else { 5 }];
        client.read_exact(&mut message).await?;
        let head = message.len();
        let length = u32::from_be_bytes(message[head - 4..].try_into().unwrap()) as usize;
        message.resize(head + length - 4, 0);
        client.read_exact(&mut message[head..]).await?;
        let cut = match message.as_slice() {
            [b'Q', _, _, _, _, b'C', b'O', b'M', b'M', b'I', b'T', 0] => plan.lock().unwrap().next.take(),
            _ => None,
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
