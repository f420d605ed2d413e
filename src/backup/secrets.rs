//! Keys that a database's rows need and that are in no database: a restore without them loses what they lock.

use super::manifest::Database;

/// The keys that a database needs, each with what it is for.
pub(super) fn of(database: &Database) -> Vec<String> {
    // MLflow: utils/crypto.py, webhooks (store/model_registry/sqlalchemy_store.py), server/auth.
    let known = [
        ("secrets", "MLFLOW_CRYPTO_KEK_PASSPHRASE", "the gateway's secrets"),
        ("webhooks", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "the secrets of webhooks"),
        ("users", "MLFLOW_FLASK_SERVER_SECRET_KEY", "the sessions of basic-auth (any new value will do)"),
    ];
    let needed = known.into_iter().filter(|(table, _, _)| database.rows(table) > 0);
    needed.map(|(table, key, what)| format!("{key}: {what} ({} rows)", database.rows(table))).collect()
}
