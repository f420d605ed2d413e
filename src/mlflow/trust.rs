//! What is believed of a server, and who this client is: rustls set up as `requests` sets OpenSSL up.

use rustls::{ClientConfig, RootCertStore};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::server::Connection;
use crate::tls::{self, Belief};

/// The setup for a connection; with `any` every certificate is believed.
///
/// # Errors
/// Configuration: a certificate or key that cannot be read.
pub(super) fn configure(connection: &Connection, any: bool) -> Outcome<ClientConfig> {
    if !connection.address.secure {
        return Ok(tls::builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let belief = Belief {
        any,
        file: connection.ca_file.as_deref(),
        system: connection.system_roots.as_deref(),
        set_by: "MLFLOW_TRACKING_SERVER_CERT_PATH",
    };
    let builder = tls::believing(&belief)?;
    let Some(path) = &connection.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let of = |what: &dyn std::fmt::Display| {
        Failure::configuration(format!("MLFLOW_TRACKING_CLIENT_CERT_PATH {}: {what}", shown(path)))
            .hint("the file holds the certificate and its private key, both as PEM")
    };
    let bytes = std::fs::read(path).map_err(|e| of(&e))?;
    let chain = tls::certificates(path)?;
    if chain.is_empty() {
        return Err(of(&"it holds no certificate"));
    }
    builder.with_client_auth_cert(chain, tls::private_key(bytes, path)?).map_err(|e| of(&e))
}
