//! Connections to PostgreSQL: how an address is read, how they are encrypted, and what a server must be before it is trusted.
//!
//! Invariant: a connection is handed out only if PostgreSQL makes what it acknowledges durable.

use crate::store::StoreError;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime as PoolRuntime};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The oldest PostgreSQL that is supported, as it counts itself.
const OLDEST: i32 = 150_000;
/// The parameter of the address that names a file with certificates to trust instead of the system's.
const ROOT_CERTIFICATES: &str = "sslrootcert";
/// The parameter of the address that names the schema of the database in which the tables are.
const SCHEMA: &str = "schema";
/// That schema where the address names none.
const DEFAULT_SCHEMA: &str = "gbsync";
/// Most bytes of its name: PostgreSQL cuts longer ones, and the channel of wake-ups is named after it.
const SCHEMA_BYTES: usize = 50;
/// How long a connection may take, and how long a read waits for one that is free.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address that was understood.
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
    schema: String,
}

impl Address {
    /// Reads the URL of a database.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let (url, root_certificates) = without(url, ROOT_CERTIFICATES);
        let (url, schema) = without(&url, SCHEMA);
        let schema = schema.unwrap_or_else(|| DEFAULT_SCHEMA.into());
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if schema.is_empty() || schema.len() > SCHEMA_BYTES || !schema.bytes().all(is_name) {
            let hint = format!("{SCHEMA} must have 1 to {SCHEMA_BYTES} of the characters a-z, 0-9 and _");
            return Err(StoreError::Address(hint));
        }
        if url.contains("sslmode=verify-ca") {
            let hint =
                "sslmode=verify-ca lets any host with a certificate in; say verify-full, or require, which is the same here";
            return Err(StoreError::Address(hint.into()));
        }
        // An encrypted connection is always one to the host of the certificate; others call that verify-full.
        let url = url.replace("sslmode=verify-full", "sslmode=require");
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            StoreError::Address(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("gbsync");
        }
        if !url.contains("sslmode=") {
            config.ssl_mode(if is_local(&config) { SslMode::Disable } else { SslMode::Require });
        }
        if config.get_ssl_mode() == SslMode::Prefer {
            let hint = "sslmode=prefer protects nothing; say require or disable";
            return Err(StoreError::Address(hint.into()));
        }
        config.connect_timeout(PATIENCE).tcp_user_timeout(Duration::from_secs(30));
        let tls = tls(config.get_ssl_mode(), root_certificates.as_deref())?;
        Ok(Self { config, tls, schema })
    }

    /// The schema of the database in which the tables are.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// One connection outside any pool, checked. Must be awaited on the runtime that serves it.
    pub(super) async fn connect(&self) -> Result<Client, StoreError> {
        self.connect_listening(mpsc::unbounded_channel().0).await
    }

    /// The same; what the server says without being asked goes to `messages`, which ends with the connection.
    pub(super) async fn connect_listening(&self, messages: UnboundedSender<AsyncMessage>) -> Result<Client, StoreError> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(message) => drop(messages.send(message)),
                    Err(error) => tracing::debug!(%error, "a connection to PostgreSQL ended"),
                }
            }
        });
        match check(&client).await? {
            Some(problem) => Err(StoreError::Unsafe(problem)),
            None => Ok(client),
        }
    }

    /// A pool of so many connections.
    pub(super) fn pool(&self, most: usize, lock_timeout: Duration) -> Result<Pool, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let set_up = set_up(&self.schema, lock_timeout);
        let hook = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let set_up = set_up.clone();
            Box::pin(async move {
                client.batch_execute(&set_up).await.map_err(HookError::Backend)?;
                match check(client).await.map_err(HookError::Backend)? {
                    Some(problem) => Err(HookError::message(problem)),
                    None => Ok(()),
                }
            })
        });
        let pool = Pool::builder(manager)
            .max_size(most)
            .runtime(PoolRuntime::Tokio1)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(PATIENCE))
            .post_create(hook)
            .build();
        pool.map_err(|error| StoreError::Address(error.to_string()))
    }
}

/// What a connection is set to. Statements are planned once, and by their indexes: a plan that was made while a table was
/// empty must hold when it is not. That takes more than these settings: see `plans`. A process that stands still must not hold a
/// space for ever.
fn set_up(schema: &str, lock_timeout: Duration) -> String {
    format!(
        "SET search_path TO \"{schema}\"; SET plan_cache_mode TO force_generic_plan; SET enable_seqscan TO off;
         SET enable_hashjoin TO off; SET enable_mergejoin TO off; SET enable_bitmapscan TO off; SET enable_material TO off;
         SET enable_memoize TO off; SET jit TO off; SET client_min_messages TO warning;
         SET lock_timeout TO {}; SET idle_in_transaction_session_timeout TO 30000",
        lock_timeout.as_millis()
    )
}

/// Why this PostgreSQL must not be trusted with what it is to keep, if it must not.
async fn check(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
                    current_setting('full_page_writes'), current_setting('synchronous_commit'),
                    current_setting('server_encoding')",
            &[],
        )
        .await?;
    let text = |column: usize| row.try_get::<_, String>(column);
    if row.try_get::<_, i32>(0)? < OLDEST {
        return Ok(Some(format!("it has version {}; gbsync needs PostgreSQL 15 or newer", text(1)?)));
    }
    let risks = [
        ("fsync", text(2)?, "a crash of the machine could destroy the database"),
        ("full_page_writes", text(3)?, "a crash of the machine could leave half-written pages"),
        ("synchronous_commit", text(4)?, "a crash could lose operations that devices were told are saved"),
    ];
    if let Some((setting, _, risk)) = risks.into_iter().find(|(_, value, _)| value == "off") {
        return Ok(Some(format!("{setting} is off, so {risk}; turn it on, for this role and database as well")));
    }
    Ok((text(5)? != "UTF8").then(|| format!("the database has the encoding {}; make one with UTF8", row.get::<_, &str>(5))))
}

fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    })
}

/// Takes a parameter out of the address that the driver does not know.
fn without(url: &str, name: &str) -> (String, Option<String>) {
    let Some((address, parameters)) = url.split_once('?') else { return (url.into(), None) };
    let prefix = format!("{name}=");
    let (ours, others): (Vec<&str>, Vec<&str>) = parameters.split('&').partition(|parameter| parameter.starts_with(&prefix));
    let decode = |text: &&str| {
        percent_encoding::percent_decode_str(text.trim_start_matches(&prefix)).decode_utf8_lossy().into_owned()
    };
    (format!("{address}?{}", others.join("&")), ours.first().map(decode))
}

fn tls(mode: SslMode, root_certificates: Option<&str>) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = root_certificates {
        let unusable = |error: String| StoreError::Address(format!("{ROOT_CERTIFICATES} {path}: {error}"));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    } else if mode != SslMode::Disable {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Address(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<SslMode, String> {
        Address::parse(url).map(|address| address.config.get_ssl_mode()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_somebody_says_otherwise() {
        assert_eq!(mode("postgres://u@db.example.com/shops"), Ok(SslMode::Require));
        assert_eq!(mode("postgres://u@127.0.0.1:5433/shops"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://u@%2Fvar%2Frun%2Fpostgresql/shops"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://u@db.example.com/shops?sslmode=disable"), Ok(SslMode::Disable));
        assert!(mode("postgres://u@db.example.com/shops?sslmode=prefer").is_err());
        assert_eq!(mode("postgres://u@127.0.0.1/shops?sslmode=verify-full"), Ok(SslMode::Require));
        assert!(mode("postgres://u@127.0.0.1/shops?sslmode=verify-ca").is_err_and(|error| error.contains("verify-full")));
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_a_sentence() {
        let error = mode("postgres://u@host/db?colour=red").expect_err("there is no such parameter");
        assert!(error.contains("colour"), "{error}");
        assert!(mode("postgres://u@127.0.0.1/db?schema=shops_2").is_ok());
        assert!(mode("postgres://u@127.0.0.1/db?schema=a%22b").is_err());
        let error = mode("postgres://u@host/db?sslrootcert=/nowhere.pem").expect_err("there is no such file");
        assert!(error.contains("/nowhere.pem"), "{error}");
    }
}
