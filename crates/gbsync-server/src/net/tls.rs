//! TLS of the server's own: a certificate and its key from files, and new ones without a restart.
//!
//! Invariant: files that cannot be used change nothing; the certificate before stays in use, and the log says what is wrong.
//! Connections keep the certificate that they began with.

use crate::config::TlsConfig;
use crate::error::ServerError;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(10);
/// What is spoken, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a file looked like: when it was written and how long it is.
type Look = Option<(SystemTime, u64)>;

/// The certificate in use.
pub(crate) struct Tls {
    files: TlsConfig,
    in_use: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ServerError::Certificate`] names the file and what to do.
    pub(crate) fn open(files: TlsConfig) -> Result<Self, ServerError> {
        let in_use = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, in_use })
    }

    /// What a new connection is begun with.
    pub(super) fn in_use(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_use.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Self::open`]; the certificate before stays in use.
    pub(crate) fn reload(&self) -> Result<(), ServerError> {
        let read = Arc::new(read(&self.files)?);
        *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    fn looks(&self) -> [Look; 2] {
        let look = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        [look(&self.files.certificate), look(&self.files.key)]
    }

    /// Reads the files again whenever they have changed, until the server stops.
    pub(crate) async fn watch(self: Arc<Self>, mut drain: watch::Receiver<bool>) {
        let mut seen = self.looks();
        loop {
            tokio::select! {
                _ = drain.wait_for(|is_draining| *is_draining) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let looks = self.looks();
            if looks == seen {
                continue;
            }
            seen = looks;
            match self.reload() {
                Ok(()) => tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use"),
                // The key may follow in a moment: then they have changed once more.
                Err(error) => tracing::warn!(%error, "the certificate before stays in use"),
            }
        }
    }
}

fn read(files: &TlsConfig) -> Result<ServerConfig, ServerError> {
    let unusable = |path: &Path, problem: String| ServerError::Certificate { path: path.into(), problem };
    let pem = |path: &Path, error: rustls::pki_types::pem::Error, what: &str| {
        let problem = match error {
            rustls::pki_types::pem::Error::Io(error) => format!("{error}; this user must be able to read it"),
            rustls::pki_types::pem::Error::NoItemsFound => format!("there is no {what} in it; give one as PEM"),
            other => format!("it is no PEM: {other}; write the {what} anew"),
        };
        unusable(path, problem)
    };
    let (certificate, key) = (files.certificate.as_path(), files.key.as_path());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| pem(certificate, error, "certificate"))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| pem(certificate, error, "certificate"))?;
    if chain.is_empty() {
        return Err(pem(certificate, rustls::pki_types::pem::Error::NoItemsFound, "certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, error, "private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, error.to_string()))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            unusable(key, format!("it is not the key of {}; give the two that belong together", certificate.display()))
        }
        other => {
            unusable(certificate, format!("{other}; give the server's own certificate first, then those that signed it"))
        }
    })?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
