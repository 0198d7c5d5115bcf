//! Connects to PostgreSQL, encrypted as the URL asks.

use std::{sync::Arc, time::Duration};

use diesel::{ConnectionError, connection::InstrumentationEvent};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::transaction;
use crate::telemetry::Metrics;

/// PostgreSQL's bounds on the statements of requests. A stock transaction is short: one that waits longer for its row
/// lock is answered with `OVERLOADED`, and one whose server died soon releases the lock. A single statement is a
/// transaction too.
const LIMITS: &str = "SET default_transaction_isolation = 'read committed'; \
    SET lock_timeout = '2s'; SET statement_timeout = '3s'; \
    SET idle_in_transaction_session_timeout = '3s'; SET client_connection_check_interval = '1s'";

/// A prepared statement keeps a plan made when its table was small, or last analysed, and for a small table any plan
/// will do: a sequential scan, or any index and a sort. In the first minute of a drop the table grows by thousands of
/// rows a second. Each statement that a buyer waits for has an index that returns its rows in order; without scans and
/// sorts the planner takes that index, whatever its statistics. (A statement that must sort still does, at an estimated
/// cost that would trigger JIT compilation.)
///
/// The plan then does not depend on the parameters, so one generic plan serves all. By default PostgreSQL replans most
/// of these statements each time, because it assumes arrays of ten elements and gets one: a lone reserve spent a fifth
/// of its time on that.
const PLANS: &str = "SET enable_seqscan = off; SET enable_sort = off; SET jit = off; \
    SET plan_cache_mode = force_generic_plan";

/// How long connecting may take, authentication included. The other end may accept and then say nothing.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// A failure to connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings name no database.
    #[error("no database is set")]
    NoUrl,
    /// The URL, or a file that it refers to, is wrong.
    #[error("{0}")]
    Settings(String),
    /// PostgreSQL could not be reached, or refused the connection.
    #[error("cannot connect to PostgreSQL: {0}")]
    Connect(String),
}

impl ConnectError {
    pub(super) fn into_diesel(self) -> ConnectionError {
        ConnectionError::BadConnection(self.to_string())
    }
}

/// Opens connections to one database.
#[derive(Clone)]
pub struct Connector {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    /// Set for connections that serve requests: these have limits, and their statements are counted.
    requests: Option<Metrics>,
}

impl Connector {
    /// Parses the URL. `sslmode` follows libpq: `require` encrypts without verifying the server, unless `sslrootcert`
    /// is set; `verify-ca` and `verify-full` verify the chain and the name.
    ///
    /// # Errors
    /// `Settings`, without the URL's password, if the URL is wrong or asks for something unsupported.
    pub fn new(url: &SecretString) -> Result<Self, ConnectError> {
        let mut url = Url::parse(url.expose_secret())
            .map_err(|error| ConnectError::Settings(format!("DATABASE_URL: {error}")))?;
        let (ours, rest): (Vec<_>, Vec<_>) = url
            .query_pairs()
            .into_owned()
            .partition(|(name, _)| matches!(name.as_str(), "sslmode" | "sslrootcert"));
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
            // The encoding of forms writes a space as a plus, which the driver would take literally.
            let spaced = url.query().map(|query| query.replace('+', "%20"));
            url.set_query(spaced.as_deref());
        }
        let option = |name: &str| ours.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mut config: tokio_postgres::Config = url
            .as_str()
            .parse()
            .map_err(|error| ConnectError::Settings(format!("DATABASE_URL: {}", with_cause(&error))))?;
        let roots = option("sslrootcert");
        let (mode, verified) = match option("sslmode").unwrap_or("prefer") {
            "disable" => (SslMode::Disable, false),
            "allow" | "prefer" => (SslMode::Prefer, false),
            "require" => (SslMode::Require, roots.is_some()),
            "verify-ca" | "verify-full" => (SslMode::Require, true),
            other => {
                return Err(ConnectError::Settings(format!("DATABASE_URL: sslmode {other:?} is unknown")));
            }
        };
        config
            .ssl_mode(mode)
            .connect_timeout(Duration::from_secs(2))
            .tcp_user_timeout(Duration::from_secs(5));
        config.application_name("sneaker-drop");
        // A server that vanished is noticed within half a minute instead of two hours.
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(4);
        let tls = tls_config(verified.then_some(roots))?;
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), requests: None })
    }

    pub(super) fn for_requests(mut self, metrics: Metrics) -> Self {
        self.requests = Some(metrics);
        self
    }

    /// Connects, within three seconds.
    ///
    /// # Errors
    /// `Connect` with the cause.
    pub async fn connect(&self) -> Result<AsyncPgConnection, ConnectError> {
        let no_answer = |_| Err(ConnectError::Connect("no answer in time".to_owned()));
        timeout(CONNECT_WITHIN, self.sign_in()).await.unwrap_or_else(no_answer)
    }

    async fn sign_in(&self) -> Result<AsyncPgConnection, ConnectError> {
        let (client, connection) = self
            .config
            .connect(self.tls.clone())
            .await
            .map_err(|error| ConnectError::Connect(with_cause(&error)))?;
        let mut connection = AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|error| ConnectError::Connect(error.to_string()))?;
        if let Some(metrics) = &self.requests {
            connection
                .batch_execute(&format!("{LIMITS}; {PLANS}"))
                .await
                .map_err(|error| ConnectError::Connect(error.to_string()))?;
            let statements = metrics.sql_statements.clone();
            connection.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
                InstrumentationEvent::StartQuery { .. } => drop(statements.inc()),
                InstrumentationEvent::CacheQuery { .. } => transaction::note_preparation(),
                _ => {}
            });
        }
        Ok(connection)
    }
}

/// Returns the TLS settings. `None`: trust any certificate. `Some(None)`: trust the system's authorities.
/// `Some(Some(path))`: trust those in the file.
fn tls_config(verify: Option<Option<&str>>) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let Some(root_file) = verify else {
        let anyone = Arc::new(AnyCertificate(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    let certificates = match root_file {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| ConnectError::Settings(format!("DATABASE_URL: sslrootcert {path}: {error}")))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(ConnectError::Settings(
            "DATABASE_URL: no certificate authority to trust was found".to_owned(),
        ));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Returns a driver error with its causes: its own text is often just "db error".
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Accepts any certificate, as libpq does for `sslmode=require` and `prefer`: this protects against eavesdropping only.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn spaces_of_a_url_stay_spaces_and_pluses_pluses() {
        let url = "postgres:///drops?host=%2Ftmp%2Fa%20b&options=-c%20work_mem%3D8MB%20-c%20x.y%3D1%2B1&sslmode=disable";
        let connector = Connector::new(&url.into()).unwrap();
        assert_eq!(connector.config.get_options(), Some("-c work_mem=8MB -c x.y=1+1"));
        assert_eq!(connector.config.get_hosts(), [Host::Unix("/tmp/a b".into())]);
    }

    /// Such as a load balancer without a backend.
    #[tokio::test]
    async fn whoever_accepts_and_says_nothing_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://{}/drops?sslmode=disable", silent.local_addr().unwrap());
        let connector = Connector::new(&url.into()).unwrap();
        let Err(error) = connector.connect().await else { panic!("nobody is there") };
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }
}
