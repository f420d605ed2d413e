//! What of a server stands on secrets that only its own environment holds.

use serde::Deserialize;

use super::Client;
use super::fault::{Reply, known};
use super::send::Ask;

/// The secrets of MLflow's gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewaySecrets {
    /// How many there are.
    pub count: usize,
    /// Whether they are encrypted with the passphrase that MLflow ships (MLflow: utils/crypto.py,
    /// `DEFAULT_KEK_PASSPHRASE`).
    pub default_passphrase: bool,
}

#[derive(Deserialize)]
struct Webhooks {
    #[serde(default)]
    webhooks: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Secrets {
    #[serde(default)]
    secrets: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Passphrase {
    #[serde(default)]
    using_default_passphrase: bool,
}

impl Client {
    /// How many webhooks there are, counted to a thousand; `None`: the release has none. To list them the server
    /// decrypts the secret of each, so a key that is gone shows as a fault (MLflow: `EncryptedString` in
    /// store/model_registry/dbmodels/models.py).
    ///
    /// # Errors
    /// Any other fault.
    pub async fn webhooks(&self) -> Reply<Option<usize>> {
        let ask = Ask::get("webhooks", vec![("max_results", "1000".to_owned())]);
        Ok(known(self.ask::<Webhooks>(&ask).await)?.map(|a| a.value.webhooks.len()))
    }

    /// The secrets of the gateway; `None`: the release has none.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn gateway_secrets(&self) -> Reply<Option<GatewaySecrets>> {
        let list = Ask::plain("/api/3.0/mlflow/gateway/secrets/list");
        let Some(list) = known(self.ask::<Secrets>(&list).await)? else { return Ok(None) };
        let count = list.value.secrets.len();
        if count == 0 {
            return Ok(Some(GatewaySecrets { count, default_passphrase: false }));
        }
        let config = Ask::plain("/ajax-api/3.0/mlflow/gateway/secrets/config");
        let default_passphrase =
            known(self.ask::<Passphrase>(&config).await)?.is_some_and(|a| a.value.using_default_passphrase);
        Ok(Some(GatewaySecrets { count, default_passphrase }))
    }
}
