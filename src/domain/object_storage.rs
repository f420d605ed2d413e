//! How objects of S3 and of servers that speak like it are reached.

use std::path::PathBuf;

use secrecy::SecretString;

/// All that is needed to talk to them, handed in by the configuration.
#[derive(Debug, Clone, Default)]
pub struct S3Access {
    /// The server, without a slash at its end; `None`: Amazon's own.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` where none is known, as MinIO has it.
    pub region: Option<String>,
    /// Whether the bucket's name stands in the host's name and not in the path.
    pub virtual_hosted: bool,
    /// Who asks.
    pub key: Option<S3Key>,
    /// Where the key comes from, or why there is none, for hints.
    pub key_from: String,
    /// The authorities that are believed: a PEM file; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// The system's own bundle of authorities, where the environment names it (`SSL_CERT_FILE`).
    pub system_roots: Option<PathBuf>,
    /// Whether any certificate of the server is believed.
    pub insecure: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct S3Key {
    /// The key's id.
    pub id: String,
    /// The key.
    pub secret: SecretString,
    /// What goes with a key that is lent for some hours.
    pub session_token: Option<SecretString>,
}
