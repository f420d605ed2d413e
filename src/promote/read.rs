//! A model and its versions as the registry has them now.

use crate::domain::failure::Outcome;
use crate::domain::promotion::place::Registered;
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;
use crate::registry::find::nobody;

/// Reads them; `None`: there is no such model.
///
/// # Errors
/// Any fault.
pub(super) async fn look(client: &Client, model: &str) -> Reply<Option<Registered>> {
    let Some(model) = client.registered_model(model).await? else { return Ok(None) };
    let (mut pages, mut versions) = (client.versions_of(&model.name), Vec::new());
    while let Some(page) = pages.next().await? {
        versions.extend(page);
    }
    Ok(Some(Registered { model, versions }))
}

/// The same of a model that has to be there.
///
/// # Errors
/// Source: it is not. Else any fault of the server.
pub(super) async fn registered(client: &Client, model: &str) -> Outcome<Registered> {
    if let Some(found) = look(client, model).await? {
        return Ok(found);
    }
    Err(nobody(client, model).await?)
}
