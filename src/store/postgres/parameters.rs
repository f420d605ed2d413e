//! What becomes of each parameter that libpq knows (PostgreSQL documentation, "Parameter Key Words", up to 18), and of
//! those that SQLAlchemy's drivers take.

use crate::domain::address::PgAddress;
use crate::domain::failure::{Failure, Outcome};

enum Effect {
    /// It means here what it means to libpq.
    Served,
    /// It may stand there and changes nothing, for this reason.
    Without(&'static str),
    /// These values ask for what is done anyway; any other is refused, for this reason.
    Only(&'static [&'static str], &'static str),
}

use Effect::{Only, Served, Without};

const OWN_NAME: &str = "sessions are called mlops/<id>, by which a run tells its own from others'";
const NO_GSS: &str = "GSSAPI is not spoken";
const OF_A_DRIVER: &str = "it tunes a Python driver";
const NO_OAUTH: &str = "OAuth is not spoken: a server that asks for it refuses the connection";

const PARAMETERS: &[(&str, Effect)] = &[
    // Where to, and how long.
    ("hostaddr", Served),
    ("connect_timeout", Served),
    ("target_session_attrs", Served),
    ("load_balance_hosts", Without("a run stays with one host: the first that answers")),
    ("keepalives", Served),
    ("keepalives_idle", Served),
    ("keepalives_interval", Served),
    ("keepalives_count", Served),
    ("tcp_user_timeout", Served),
    ("min_protocol_version", Only(&["3.0"], "version 3.0 of the protocol is spoken")),
    ("max_protocol_version", Without("version 3.0 of the protocol is spoken, which is below any limit")),
    ("replication", Only(&["false", "off", "no", "0"], "a replication connection takes no queries")),
    // The session.
    ("options", Served),
    ("application_name", Without(OWN_NAME)),
    ("fallback_application_name", Without(OWN_NAME)),
    ("client_encoding", Without("text is always sent as UTF-8")),
    // Who it is. `config` has read what these name.
    ("service", Served),
    ("servicefile", Served),
    ("passfile", Served),
    ("channel_binding", Served),
    (
        "require_auth",
        Only(&[], "the driver cannot tell how it authenticated; channel_binding=require can be asked for"),
    ),
    ("requirepeer", Only(&[], "the driver does not tell who owns the server's socket")),
    ("scram_client_key", Only(&[], "the driver logs in with a password only")),
    ("scram_server_key", Only(&[], "the driver logs in with a password only")),
    ("oauth_issuer", Without(NO_OAUTH)),
    ("oauth_client_id", Without(NO_OAUTH)),
    ("oauth_client_secret", Without(NO_OAUTH)),
    ("oauth_scope", Without(NO_OAUTH)),
    // TLS.
    ("sslmode", Served),
    ("sslnegotiation", Served),
    ("sslrootcert", Served),
    ("sslcert", Served),
    ("sslkey", Served),
    ("sslcrl", Served),
    ("sslsni", Served),
    ("ssl_min_protocol_version", Served),
    ("ssl_max_protocol_version", Served),
    ("sslcertmode", Only(&["allow", "disable"], "the TLS library does not tell whether the server asked")),
    ("sslcrldir", Only(&[], "name one file of revoked certificates by sslcrl")),
    ("sslpassword", Only(&[], "encrypted keys are not read: openssl pkey -in KEY -out NEW writes one without")),
    ("sslcompression", Without("TLS compression is gone from all libraries, because it leaks")),
    ("sslkeylogfile", Only(&[], "the keys of a session are not written anywhere")),
    // GSSAPI.
    ("gssencmode", Only(&["prefer", "disable"], NO_GSS)),
    ("gssdelegation", Without(NO_GSS)),
    ("gsslib", Without(NO_GSS)),
    ("krbsrvname", Without(NO_GSS)),
    // SQLAlchemy's drivers.
    ("async_fallback", Without(OF_A_DRIVER)),
    ("executemany_batch_page_size", Without(OF_A_DRIVER)),
    ("executemany_mode", Without(OF_A_DRIVER)),
    ("prepared_statement_cache_size", Without(OF_A_DRIVER)),
    ("prepared_statement_name_func", Without(OF_A_DRIVER)),
    ("statement_cache_size", Without(OF_A_DRIVER)),
    ("use_native_hstore", Without(OF_A_DRIVER)),
];

/// Refuses what is not known and what cannot be done: a parameter is never passed over in silence where the operator
/// would be less safe for it.
///
/// # Errors
/// Configuration.
pub(super) fn check(address: &PgAddress) -> Outcome<()> {
    for (key, value) in &address.parameters {
        match PARAMETERS.iter().find(|(name, _)| name == key) {
            Some((_, Served)) => {}
            Some((_, Without(why))) => tracing::info!(parameter = %key, %why, "has no effect here"),
            Some((_, Only(values, _))) if values.contains(&value.as_str()) || value.is_empty() => {}
            Some((_, Only(_, why))) => {
                return Err(Failure::configuration(format!("the parameter `{key}` is not served: {why}"))
                    .hint("it comes from the address, the service file or a PG* variable"));
            }
            None => {
                let failure = Failure::configuration(format!("the address has a parameter `{key}` that is not known"));
                return Err(match nearest(key) {
                    Some(name) => failure.hint(format!("the nearest that is known: {name}")),
                    None => failure,
                });
            }
        }
    }
    Ok(())
}

fn nearest(key: &str) -> Option<&'static str> {
    let names = PARAMETERS.iter().map(|(name, _)| *name).chain(["host", "port", "user", "password", "dbname"]);
    let near = names.map(|name| (strsim::osa_distance(&key.to_ascii_lowercase(), name), name));
    near.min().filter(|(distance, name)| *distance <= name.len().div_ceil(3).min(3)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Outcome<()> {
        check(&PgAddress { parameters: vec![(key.to_owned(), value.to_owned())], ..PgAddress::default() })
    }

    #[test]
    fn the_nearest_name_is_told() {
        for (wrong, right) in
            [("sslrootcrt", "sslrootcert"), ("SSLMODE", "sslmode"), ("conect_timeout", "connect_timeout"), ("db", "")]
        {
            let hint = with(wrong, "x").unwrap_err().hint;
            assert_eq!(hint.as_deref().unwrap_or_default().rsplit(": ").next(), Some(right), "{wrong}");
        }
    }

    #[test]
    fn what_would_make_a_connection_less_safe_is_refused() {
        for (key, refused, taken) in [
            ("gssencmode", "require", Some("prefer")),
            ("sslcertmode", "require", Some("disable")),
            ("require_auth", "scram-sha-256", None),
            ("requirepeer", "postgres", None),
            ("sslcrldir", "/crl", None),
            ("sslpassword", "x", None),
        ] {
            assert!(with(key, refused).unwrap_err().message.contains("is not served"), "{key}");
            assert!(taken.is_none_or(|value| with(key, value).is_ok()), "{key}");
        }
        assert!(with("application_name", "mlflow").is_ok());
    }
}
