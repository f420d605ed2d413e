//! Who was champion when: what the tags of the versions and the log of the state folder tell.

use super::read;
use crate::domain::failure::Outcome;
use crate::domain::promotion::history::{self, Reign, Told};
use crate::domain::promotion::place::{Aliases, Registered};
use crate::domain::promotion::record::Record;
use crate::mlflow::Client;

/// The history of a model.
#[derive(Debug)]
pub struct History {
    /// The model.
    pub model: String,
    /// Who was champion when.
    pub reigns: Vec<Reign>,
    /// Every promotion and rollback, also those that put nobody into production or came to nothing.
    pub told: Vec<Told>,
}

/// What both tell of a model.
pub(super) fn told(registered: &Registered, log: &[Record]) -> Vec<Told> {
    history::merge(Record::of_tags(&registered.versions), log.to_vec())
}

/// Gathers it. `log`: what the state folder tells of this model.
///
/// # Errors
/// Source: there is no such model. Any fault of the server.
pub async fn history(client: &Client, model: &str, aliases: &Aliases, log: &[Record]) -> Outcome<History> {
    let registered = read::registered(client, model).await?;
    let told = told(&registered, log);
    let reigns = history::reigns(&told, &registered, aliases);
    Ok(History { model: registered.model.name, reigns, told })
}
