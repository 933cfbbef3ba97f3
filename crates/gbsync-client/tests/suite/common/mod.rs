//! A real server, devices with real files, and a transport that fails as it is told.

#![allow(dead_code, clippy::unwrap_used)]

pub mod app;

use gbsync_client::{
    BoxFuture, Client, Config, Download, DownloadFrom, FixedToken, GroupState, HttpTransport, Method, Pieces, Remote,
    Request, Response, Streamed, SyncError, SyncOptions, SyncReport, Transport, TransportError,
};
use gbsync_core::id::SpaceId;
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, Server, ServerConfig, Tokens};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A server on a folder of its own, with a token for one space.
pub struct World {
    pub folder: tempfile::TempDir,
    pub runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    pub url: String,
    pub token: String,
}

pub fn space() -> SpaceId {
    SpaceId::new("shop").unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let tokens = Tokens::open(folder.path().join("server")).unwrap();
        let new = NewToken::new(space());
        let token = tokens.create(new).unwrap().token;
        let mut config = ServerConfig::new(folder.path().join("server"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let server = runtime.block_on(Server::start(config)).unwrap();
        let url = server.url();
        Self { folder, runtime, server: Some(server), url, token }
    }

    /// A server that decides by a schema.
    pub fn under(schema: &str) -> Self {
        let schema = Schema::parse(schema).unwrap();
        Self::with(|config| config.schema = Some(schema))
    }

    /// The same server again, under another schema.
    pub fn renew(&mut self, schema: &str) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop()).unwrap();
        }
        let mut config = ServerConfig::new(self.folder.path().join("server"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.schema = Some(Schema::parse(schema).unwrap());
        let server = self.runtime.block_on(Server::start(config)).unwrap();
        self.url = server.url();
        self.server = Some(server);
    }

    /// The same server again, at the same address.
    pub fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop()).unwrap();
        }
        let mut config = ServerConfig::new(self.folder.path().join("server"));
        config.listen = self.url.trim_start_matches("http://").parse().unwrap();
        config.live.heartbeat_ms = 200;
        self.server = Some(self.runtime.block_on(Server::start(config)).unwrap());
    }

    /// Copies the server's folder, or puts such a copy back by hand, while the server stands still.
    pub fn copy_server(&mut self, from: &str, to: &str) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop()).unwrap();
        }
        let (from, to) = (self.folder.path().join(from), self.folder.path().join(to));
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        self.restart();
    }

    /// The device's file, made if it is not there.
    pub fn reopen_or_make(&self, name: &str) -> Device {
        if self.path(name).exists() { self.reopen(name) } else { self.device(name) }
    }

    /// A device whose app brings a schema.
    pub fn device_under(&self, name: &str, schema: &str) -> Device {
        let remote = Remote { server: self.url.clone(), space: space() };
        let config = Config { schema: Some(Schema::parse(schema).unwrap()), ..Config::new(self.path(name)) };
        self.with_client(Client::create(config, &remote).unwrap())
    }

    /// Opens a device's file with an app that brings a schema.
    pub fn reopen_under(&self, name: &str, schema: &str) -> Device {
        let config = Config { schema: Some(Schema::parse(schema).unwrap()), ..Config::new(self.path(name)) };
        self.with_client(Client::open(config).unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    /// A device with a transport that is told how to fail.
    pub fn device(&self, name: &str) -> Device {
        let remote = Remote { server: self.url.clone(), space: space() };
        let client = Client::create(Config::new(self.path(name)), &remote).unwrap();
        self.with_client(client)
    }

    /// A device under the schema of the shop.
    pub fn shop(&self, name: &str) -> Device {
        let remote = Remote { server: self.url.clone(), space: space() };
        let config = Config { schema: Some(app::shop()), ..Config::new(self.path(name)) };
        self.with_client(Client::create(config, &remote).unwrap())
    }

    /// Opens a device's file that exists.
    pub fn reopen(&self, name: &str) -> Device {
        self.with_client(Client::open(Config::new(self.path(name))).unwrap())
    }

    pub fn with_client(&self, client: Client) -> Device {
        let http = HttpTransport::new(&self.url, Arc::new(FixedToken(self.token.clone()))).unwrap();
        let transport =
            Arc::new(Faulty { http, plan: Mutex::default(), sent: Mutex::default(), downloads: Mutex::default() });
        Device {
            client,
            transport,
            options: SyncOptions { attempts: 1, ..SyncOptions::default() },
            runtime: self.runtime.handle().clone(),
        }
    }

    /// Closes a rejection as the back office does; the status and the body of the answer.
    pub fn close(&self, id: &gbsync_core::id::GroupId, verb: &str, body: &str) -> (u16, String) {
        let tokens = Tokens::open(self.folder.path().join("server")).unwrap();
        let roles = vec![gbsync_core::id::Role::new("admin").unwrap()];
        let actor = Some(gbsync_core::id::Actor::new("ann").unwrap());
        let token = tokens.create(NewToken { roles, actor, ..NewToken::new(space()) }).unwrap().token;
        let http = HttpTransport::new(&self.url, Arc::new(FixedToken(token))).unwrap();
        let id = id.as_str().replace(':', "%3A");
        let path = format!("/v1/spaces/shop/rejections/{id}/{verb}");
        let request = Request { method: Method::Post, path, body: Some(body.into()), timeout_ms: 10_000, token: None };
        let response = self.runtime.block_on(http.send(request)).unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    }

    /// The server's rows at its head.
    pub fn digest(&self) -> (u64, u64, String) {
        let digest = gbsync_server::space_digest(self.folder.path().join("server"), &space()).unwrap();
        (digest.head.0, digest.records, digest.digest.to_string())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop()).unwrap();
        }
    }
}

pub struct Device {
    pub client: Client,
    pub transport: Arc<Faulty>,
    pub options: SyncOptions,
    runtime: tokio::runtime::Handle,
}

impl Device {
    pub fn try_sync(&self) -> Result<SyncReport, SyncError> {
        self.runtime.block_on(self.client.sync(self.transport.as_ref(), &self.options))
    }

    pub fn sync(&self) -> SyncReport {
        self.try_sync().unwrap()
    }

    pub fn digest(&self) -> (u64, u64, String) {
        let digest = self.client.digest().unwrap();
        (digest.cursor.0, digest.records, digest.digest.to_string())
    }

    /// The local view of one record.
    pub fn read(&self, entity: &str, id: &str) -> Option<String> {
        self.client.read(entity, id).unwrap().map(|payload| payload.as_str().to_owned())
    }

    /// One value of a query over the stable relations.
    pub fn query<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.client.with_reader(|db| db.query_row(sql, [], |row| row.get(0))).unwrap()
    }

    pub fn states(&self) -> Vec<(GroupState, Option<String>)> {
        let groups = self.client.groups(gbsync_client::GroupFilter::All, usize::MAX >> 1).unwrap();
        groups.into_iter().map(|group| (group.state, group.code)).collect()
    }

    /// A receipt with its payment, sealed as one operation.
    pub fn receipt(&self, id: &str, total: &str) -> gbsync_client::Sealed {
        self.client
            .operation::<gbsync_client::Error>("receipt-create", id, |op| {
                op.upsert("receipts", id, format!(r#"{{"total":"{total}"}}"#))?;
                op.upsert("payments", &format!("p-{id}"), format!(r#"{{"amount":"{total}","receiptId":"{id}"}}"#))
            })
            .unwrap()
    }
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It never arrives.
    DropRequest,
    /// It arrives and takes effect; the answer is lost.
    DropAnswer,
    /// The answer is cut off after some bytes.
    Truncate(usize),
    /// Something between answers instead of the server.
    Answer(Response),
    /// It passes.
    Pass,
}

/// Decides about one request.
pub type Plan = Box<dyn FnMut(&Request) -> Fault + Send>;

pub struct Faulty {
    http: HttpTransport,
    pub plan: Mutex<Option<Plan>>,
    pub sent: Mutex<Vec<Request>>,
    /// How downloads were asked for.
    pub downloads: Mutex<Vec<DownloadFrom>>,
}

impl Faulty {
    pub fn plan(&self, plan: impl FnMut(&Request) -> Fault + Send + 'static) {
        *self.plan.lock().unwrap() = Some(Box::new(plan));
    }

    pub fn heal(&self) {
        *self.plan.lock().unwrap() = None;
    }

    /// Every `changes` array that was pushed, in order.
    pub fn pushes(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        let pushes = sent.iter().filter(|request| request.method == Method::Post);
        pushes.map(|request| String::from_utf8(request.body.clone().unwrap()).unwrap()).collect()
    }
}

impl Transport for Faulty {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.sent.lock().unwrap().push(request.clone());
        let fault = match self.plan.lock().unwrap().as_mut() {
            Some(plan) => plan(&request),
            None => Fault::Pass,
        };
        let lost = |message: &str| TransportError { message: message.into() };
        Box::pin(async move {
            match fault {
                Fault::DropRequest => Err(lost("connection reset before the request")),
                Fault::DropAnswer => {
                    self.http.send(request).await?;
                    Err(lost("connection reset before the answer"))
                }
                Fault::Truncate(bytes) => {
                    let mut response = self.http.send(request).await?;
                    response.body.truncate(bytes);
                    Ok(response)
                }
                Fault::Answer(response) => Ok(response),
                Fault::Pass => self.http.send(request).await,
            }
        })
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        self.sent.lock().unwrap().push(request.clone());
        self.downloads.lock().unwrap().push(from.clone());
        let fault = match self.plan.lock().unwrap().as_mut() {
            Some(plan) => plan(&request),
            None => Fault::Pass,
        };
        Box::pin(async move {
            match fault {
                Fault::DropRequest | Fault::DropAnswer => {
                    Err(TransportError { message: "connection reset before the answer".into() })
                }
                Fault::Truncate(bytes) => {
                    let download = self.http.download(request, from).await?;
                    Ok(download.map(|download| {
                        let body = Box::new(Cut { body: download.streamed.body, left: bytes });
                        Download { streamed: Streamed { body, ..download.streamed }, ..download }
                    }))
                }
                Fault::Answer(Response { status, content_type, retry_after_ms, body }) => {
                    let streamed = Streamed { status, content_type, retry_after_ms, body: Box::new(Bytes(Some(body))) };
                    Ok(Some(Download { streamed, etag: Some("\"x\"".into()), is_zstd: false, from: 0 }))
                }
                Fault::Pass => self.http.download(request, from).await,
            }
        })
    }
}

/// A body that breaks off.
struct Cut {
    body: Box<dyn Pieces>,
    left: usize,
}

impl Pieces for Cut {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(async {
            if self.left == 0 {
                return Err(TransportError { message: "connection reset in the middle".into() });
            }
            let piece = self.body.next().await?;
            Ok(piece.map(|mut piece| {
                piece.truncate(self.left);
                self.left -= piece.len();
                piece
            }))
        })
    }
}

/// A body that somebody between made.
struct Bytes(Option<Vec<u8>>);

impl Pieces for Bytes {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        let piece = self.0.take();
        Box::pin(async { Ok(piece) })
    }
}

pub fn html(status: u16) -> Response {
    let body = b"<html><body>Sign in to the hotel's network</body></html>".to_vec();
    Response { status, content_type: Some("text/html".into()), retry_after_ms: None, body }
}

pub fn problem(status: u16, code: &str, pointer: Option<&str>) -> Response {
    let pointer = pointer.map(|pointer| format!(r#","pointer":"{pointer}""#)).unwrap_or_default();
    let body = format!(r#"{{"type":"x","title":"x","status":{status},"code":"{code}","detail":"refused"{pointer}}}"#);
    Response { status, content_type: Some("application/problem+json".into()), retry_after_ms: None, body: body.into_bytes() }
}

pub fn is_push(request: &Request) -> bool {
    request.path.ends_with("/push")
}

/// A receipt that another device made first is refused; an edit of it, a note and an edit of that depend on it.
pub fn refused_with_three_dependents(world: &World) -> (Device, Device, Vec<gbsync_client::Sealed>) {
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    let mut sealed = vec![b.receipt("r1", "9.00")];
    let mut seal =
        |kind: &str, root: &str, write: &dyn Fn(&mut gbsync_client::Operation) -> Result<(), gbsync_client::Error>| {
            sealed.push(b.client.operation::<gbsync_client::Error>(kind, root, write).unwrap());
        };
    seal("payment-edit", "p-r1", &|op| {
        op.patch("payments", "p-r1", r#"{"note":"x"}"#)?;
        op.upsert("notes", "n1", r#"{"edits":0}"#)
    });
    seal("note-edit", "n1", &|op| op.patch("notes", "n1", r#"{"edits":1}"#));
    seal("note-edit", "n1", &|op| op.patch("notes", "n1", r#"{"edits":2}"#));
    b.receipt("r2", "2.00");
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len()), (1, 4));
    (a, b, sealed)
}

pub fn group(device: &Device, sealed: &gbsync_client::Sealed) -> gbsync_client::GroupInfo {
    device.client.group(&sealed.group_id).unwrap().unwrap()
}

pub fn state(device: &Device, sealed: &gbsync_client::Sealed) -> GroupState {
    group(device, sealed).state
}
