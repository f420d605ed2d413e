//! The part of *security* that asks the server: who gets in, and which secrets only its memory knows.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::domain::health::{Reading, Status};
use crate::domain::server::{Connection, Credentials};
use crate::domain::tracking::View;
use crate::mlflow::fault::{Fault, Trouble};
use crate::mlflow::{Bounds, Client};

use super::Stack;
use super::security::is_near;
use super::server::unmeasured;

const PATIENCE: Duration = Duration::from_secs(10);
/// What MLflow's administrator has until somebody changes it (MLflow: server/auth/basic_auth.ini; `password` up to
/// 2.x, `password1234` from 3.x, none from 3.18).
const FIRST_ADMINISTRATOR: [(&str, &str); 2] = [("admin", "password1234"), ("admin", "password")];

/// Looks at who gets in.
pub(super) async fn look(stack: Arc<Stack>) {
    let Some((connection, client)) = &stack.server else { return };
    tokio::join!(guard(&stack, connection), secrets(&stack, client));
}

/// Whether a search as somebody is answered.
async fn gets_in(stack: &Stack, connection: &Connection, credentials: Credentials) -> Result<bool, Trouble> {
    let bound = stack.patience(PATIENCE);
    let stranger = Connection { credentials, ..connection.clone() };
    let client = Client::new(&stranger, Bounds { connect: bound, call: bound }).map_err(Trouble::unasked)?.once();
    match client.experiments("", View::Active, 1).next().await {
        Ok(_) => Ok(true),
        Err(trouble) if matches!(trouble.fault, Fault::Unauthorized | Fault::Forbidden) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

async fn guard(stack: &Stack, connection: &Connection) {
    let (server, admin) = ("security.server", "security.admin");
    if !stack.wants(server) && !stack.wants(admin) {
        return;
    }
    let open = match gets_in(stack, connection, Credentials::None).await {
        Ok(open) => open,
        Err(trouble) => {
            // Both ask with a search: where nobody's is answered, that is the finding.
            stack.tell(unmeasured(server, &trouble).needs("server.ready"));
            stack.tell(unmeasured(admin, &trouble).needs("server.ready"));
            return;
        }
    };
    stack.tell(exposure(connection, open));
    if open {
        stack.tell(Reading::ok(admin, "the server asks nobody for a password"));
        return;
    }
    for (user, password) in FIRST_ADMINISTRATOR {
        let credentials = Credentials::Basic { user: user.to_owned(), password: SecretString::from(password) };
        match gets_in(stack, connection, credentials).await {
            Ok(false) => {}
            Ok(true) => {
                let what = format!("the user {user} still has the password that MLflow ships");
                stack.tell(
                    Reading::critical(admin, what)
                        .cause("basic-auth was switched on and its first password never changed")
                        .hint("change it: PATCH /api/2.0/mlflow/users/update-password, or `mlflow.server.get_app_client(\"basic-auth\", URI).update_user_password(\"admin\", ...)`"),
                );
                return;
            }
            Err(trouble) => {
                stack.tell(unmeasured(admin, &trouble).needs("server.ready"));
                return;
            }
        }
    }
    stack.tell(Reading::ok(admin, "not the passwords that MLflow ships"));
}

/// What a stranger meets.
fn exposure(connection: &Connection, open: bool) -> Reading {
    let id = "security.server";
    let address = &connection.address;
    if is_near(&address.host) {
        let asks = if open { "asks nobody for a password" } else { "asks for a password" };
        return Reading::ok(id, format!("asked on this machine only; it {asks}"));
    }
    match (open, address.secure) {
        (false, true) => Reading::ok(id, "asks for a password, over TLS"),
        (true, secure) => {
            let tls = if secure { "" } else { ", and without TLS" };
            let what = format!("whoever reaches {} may read, change and delete everything{tls}", address.host);
            Reading::new(id, Status::Warning, what)
                .cause("the server asks nobody for a password")
                .hint("`mlflow server --app-name basic-auth`, or a proxy in front of it that asks")
        }
        (false, false) => Reading::warning(id, format!("passwords travel to {} without TLS", address.host))
            .hint("put a proxy with TLS in front of the server"),
    }
}

async fn secrets(stack: &Stack, client: &Client) {
    let id = "security.secrets";
    if !stack.wants(id) {
        return;
    }
    let client = client.within(stack.patience(PATIENCE));
    let webhooks = match client.webhooks().await {
        Ok(webhooks) => webhooks,
        // The server reads each webhook's secret to list it, and fails on one that another key encrypted.
        Err(trouble) if matches!(trouble.fault, Fault::Server(500)) => {
            stack.tell(
                Reading::critical(id, "the server cannot read its webhooks: their secrets were encrypted with a key that is gone")
                    .cause("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY is not set: each process of the server makes one of its own, and a restart forgets it")
                    .evidence([trouble.failure.message])
                    .hint("set the variable for the server, delete the rows of `webhooks` and make them anew"),
            );
            return;
        }
        Err(trouble) => {
            stack.tell(unmeasured(id, &trouble));
            return;
        }
    };
    let shipped = match client.gateway_secrets().await {
        Ok(Some(secrets)) if secrets.count > 0 && secrets.default_passphrase => secrets.count,
        Ok(_) => 0,
        Err(trouble) => {
            stack.tell(unmeasured(id, &trouble));
            return;
        }
    };
    stack.tell(match (shipped, webhooks.unwrap_or(0)) {
        (0, 0) => Reading::ok(id, "no webhooks, and no gateway secrets that stand on a key of the server's"),
        (0, webhooks) => Reading::ok(
            id,
            format!(
                "{webhooks} webhooks are readable; after a restart only if MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY is set"
            ),
        ),
        (secrets, _) => Reading::warning(
            id,
            format!("{secrets} gateway secrets are encrypted with the passphrase that MLflow ships"),
        )
        .cause("MLFLOW_CRYPTO_KEK_PASSPHRASE is not set for the server")
        .hint("set it to something of your own, and run `mlflow crypto rotate-kek`"),
    });
}
