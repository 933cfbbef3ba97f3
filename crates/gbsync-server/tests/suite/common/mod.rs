//! A real server on a free port of the loopback, and a device that speaks to it in plain JSON. In the tests of
//! `on_postgres` it is on PostgreSQL, elsewhere on a folder.

#![allow(dead_code, clippy::unwrap_used)]

use gbsync_cluster::Cluster;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, Role, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_server::{
    Counters, NewToken, Server, ServerConfig, ServerError, SpaceDigest, StoreLocation, Tokens, space_digest,
};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The space that tests use.
pub const SPACE: &str = "shop";

/// A running server on a folder of its own.
pub struct TestApp {
    pub folder: TempDir,
    pub store: StoreLocation,
    /// Where the store is, if it is in no folder.
    pub cluster: Option<Arc<Cluster>>,
    pub server: Option<Server>,
    pub token: String,
    pub http: Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let content_type = headers.get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        Self { status, content_type, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The result at a place of a push's answer.
    pub fn result(&self, index: usize) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["results"][index].clone()
    }

    /// `status` or `status code` of each result, e.g. `accepted`, `rejected conflict`.
    pub fn verdicts(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        let results = self.json()["results"].as_array().unwrap().clone();
        let word = |result: &Value, name: &str| result[name].as_str().unwrap_or_default().to_owned();
        results.iter().map(|r| format!("{} {}", word(r, "status"), word(r, "code")).trim().to_owned()).collect()
    }

    /// Checks that this is a problem of the contract, and returns its pointer.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) -> Option<String> {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem["pointer"].as_str().map(Into::into)
    }
}

pub fn http() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// Whether the tests of this program run on PostgreSQL.
pub fn is_on_postgres() -> bool {
    ["on_postgres", "nodes"].iter().any(|program| module_path!().starts_with(program))
}

pub fn config(store: impl Into<StoreLocation>) -> ServerConfig {
    let mut config = ServerConfig::new(store);
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = is_on_postgres().then(|| Cluster::shared().unwrap_or_else(|error| panic!("{error}")));
        let store = match &cluster {
            Some(cluster) => StoreLocation::Postgres(cluster.store()),
            None => StoreLocation::from(folder.path()),
        };
        let mut config = config(&store);
        change(&mut config);
        let token = token(&store, SPACE, None, None);
        let server = Some(Server::start(config).await.unwrap());
        Self { folder, store, cluster, server, token, http: http() }
    }

    /// A server with a schema, and a token with roles.
    pub async fn with_schema(schema: &str, roles: &[&str]) -> Self {
        let schema = Schema::parse(schema).unwrap_or_else(|problems| panic!("{problems}"));
        let mut app = Self::with(|config| config.schema = Some(schema)).await;
        app.token = token_with_roles(&app.store, SPACE, roles);
        app
    }

    /// Stops the server and starts another on the same folder.
    pub async fn restart(&mut self) {
        self.restart_with(|_| {}).await.unwrap();
    }

    /// The same, with another configuration; the server that could not start is gone.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut ServerConfig)) -> Result<(), ServerError> {
        if let Some(server) = self.server.take() {
            server.stop().await.unwrap();
        }
        let mut config = config(&self.store);
        change(&mut config);
        self.server = Some(Server::start(config).await?);
        Ok(())
    }

    pub fn counters(&self) -> Counters {
        self.server.as_ref().unwrap().counters()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.as_ref().unwrap().url())
    }

    pub fn space_url(&self, rest: &str) -> String {
        self.url(&format!("/v1/spaces/{SPACE}{rest}"))
    }

    pub async fn get(&self, rest: &str) -> Answer {
        Answer::of(self.http.get(self.space_url(rest)).bearer_auth(&self.token)).await
    }

    pub async fn post(&self, rest: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.http.post(self.space_url(rest)).bearer_auth(&self.token);
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    pub async fn post_gzip(&self, rest: &str, body: Vec<u8>) -> Answer {
        let request = self.http.post(self.space_url(rest)).bearer_auth(&self.token).header("content-encoding", "gzip");
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    /// A push written to the socket byte for byte; the answer as soon as there is one.
    pub async fn raw_push(&self, headers: &str, body: &[u8]) -> String {
        let address = self.server.as_ref().unwrap().local_addr();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/spaces/{SPACE}/push HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\n{headers}\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        String::from_utf8(answer).unwrap()
    }

    /// Pushes groups of device `till-1`, epoch `e1`.
    pub async fn push(&self, groups: &[TestGroup]) -> Answer {
        self.push_as("till-1", "e1", groups).await
    }

    pub async fn push_as(&self, device: &str, epoch: &str, groups: &[TestGroup]) -> Answer {
        self.post("/push", envelope(device, epoch, groups)).await
    }

    pub fn digest(&self) -> SpaceDigest {
        space_digest(&self.store, &SpaceId::new(SPACE).unwrap()).unwrap()
    }

    /// The first row that a query finds in the store, as texts.
    pub fn stored(&self, sql: &str) -> Vec<String> {
        match &self.store {
            StoreLocation::Postgres(url) => {
                let rows = gbsync_cluster::ask(url, sql).unwrap();
                rows.into_iter().next().unwrap().into_iter().map(Option::unwrap_or_default).collect()
            }
            StoreLocation::Folder(folder) => {
                let store = rusqlite::Connection::open(folder.join("gbsync.db")).unwrap();
                let mut statement = store.prepare(sql).unwrap();
                let columns = statement.column_count();
                let text = |value| match value {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => panic!("{other:?}"),
                };
                statement.query_row([], |row| (0..columns).map(|column| row.get(column).map(text)).collect()).unwrap()
            }
        }
    }
}

/// Makes a token, and its space if it is new.
pub fn token(store: impl Into<StoreLocation>, space: &str, actor: Option<&str>, device: Option<&str>) -> String {
    let new = NewToken {
        actor: actor.map(|actor| Actor::new(actor).unwrap()),
        device: device.map(|device| DeviceId::new(device).unwrap()),
        ..NewToken::new(SpaceId::new(space).unwrap())
    };
    Tokens::open(store).unwrap().create(new).unwrap().token
}

/// Makes a token with roles, and its space if it is new.
pub fn token_with_roles(store: impl Into<StoreLocation>, space: &str, roles: &[&str]) -> String {
    let roles = roles.iter().map(|role| Role::new(*role).unwrap()).collect();
    let new = NewToken { roles, ..NewToken::new(SpaceId::new(space).unwrap()) };
    Tokens::open(store).unwrap().create(new).unwrap().token
}

pub fn envelope(device: &str, epoch: &str, groups: &[TestGroup]) -> String {
    let groups: Vec<String> = groups.iter().map(TestGroup::json).collect();
    raw_envelope(device, epoch, &groups.join(","))
}

pub fn raw_envelope(device: &str, epoch: &str, groups: &str) -> String {
    format!(r#"{{"device":"{device}","epoch":"{epoch}","batch":"b1","groups":[{groups}]}}"#)
}

/// A group in wire form, written without the code under test.
#[derive(Clone, Debug)]
pub struct TestGroup {
    pub id: String,
    pub device_seq: u64,
    pub changes: String,
    pub count: usize,
    pub group_type: String,
    pub extra: String,
    pub digest: Option<String>,
}

impl TestGroup {
    /// A group of these changes; see [`upsert`] and its siblings.
    pub fn of(id: &str, device_seq: u64, changes: &[String]) -> Self {
        let joined = format!("[{}]", changes.join(","));
        let group_type = "\"receipt-create\"".into();
        let (id, count, extra) = (id.into(), changes.len(), String::new());
        Self { id, device_seq, changes: joined, count, group_type, extra, digest: None }
    }

    /// The same as another kind of operation; `None` is a change outside any.
    pub fn typed(mut self, group_type: Option<&str>) -> Self {
        self.group_type = group_type.map_or("null".into(), |name| format!("\"{name}\""));
        self
    }

    pub fn depends_on(self, id: &str) -> Self {
        self.with(&format!(r#""dependsOn":["{id}"],"#))
    }

    pub fn replaces(self, id: &str) -> Self {
        self.with(&format!(r#""replaces":"{id}","#))
    }

    pub fn actor(self, actor: &str) -> Self {
        self.with(&format!(r#""actor":"{actor}","#))
    }

    pub fn with(mut self, member: &str) -> Self {
        self.extra.push_str(member);
        self
    }

    pub fn json(&self) -> String {
        let digest = self.digest.clone().unwrap_or_else(|| Digest::of(self.changes.as_bytes()).to_string());
        format!(
            r#"{{"syncGroupId":"{}","syncGroupType":{},"deviceSeq":{},"createdAt":"2026-06-03T20:52:59.123Z",{}"changeCount":{},"digest":"{}","changes":{}}}"#,
            self.id, self.group_type, self.device_seq, self.extra, self.count, digest, self.changes
        )
    }
}

pub fn upsert(entity: &str, id: &str, base: u64, payload: &str) -> String {
    format!(r#"{{"entity":"{entity}","id":"{id}","action":"upsert","baseVersion":{base},"payload":{payload}}}"#)
}

pub fn patch(entity: &str, id: &str, base: u64, payload: &str) -> String {
    format!(r#"{{"entity":"{entity}","id":"{id}","action":"patch","baseVersion":{base},"payload":{payload}}}"#)
}

pub fn increment(entity: &str, id: &str, payload: &str) -> String {
    format!(r#"{{"entity":"{entity}","id":"{id}","action":"increment","payload":{payload}}}"#)
}

pub fn delete(entity: &str, id: &str, base: u64) -> String {
    format!(r#"{{"entity":"{entity}","id":"{id}","action":"delete","baseVersion":{base}}}"#)
}

/// A group that makes one new receipt.
pub fn receipt(id: &str, device_seq: u64, record: &str) -> TestGroup {
    TestGroup::of(id, device_seq, &[upsert("receipts", record, 0, r#"{"total":"1.00"}"#)])
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
