//! Whose every place of artifacts is, as the rows tell.

use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::cleanup::territory;
use crate::domain::failure::Outcome;
use crate::engine::purge::{Purge, Version};
use crate::store::sqlite::docket::{Docket, Owner};

/// Runs and logged models that an address names, by itself or by a folder of it.
fn named_in(address: &str) -> Vec<(Root, String)> {
    let mut found = Vec::new();
    match ArtifactAddress::parse(address) {
        ArtifactAddress::Run { id, .. } => found.push((Root::Run, id)),
        ArtifactAddress::LoggedModel(id) => found.push((Root::Model, id)),
        _ => {}
    }
    for part in address.split('/') {
        if part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit()) {
            found.push((Root::Run, part.to_owned()));
        } else if part.starts_with("m-") {
            found.push((Root::Model, part.to_owned()));
        }
    }
    found
}

/// Notes what every model version that is not deleted comes from, and where its files are.
///
/// # Errors
/// Target: the database failed. Configuration: the work folder did.
pub(super) fn versions(store: &mut dyn Purge, docket: &Docket, root: Option<&ArtifactAddress>) -> Outcome<()> {
    store.versions(&mut |Version { name, run, addresses }| {
        if let Some(run) = run.filter(|run| !run.is_empty()) {
            docket.needs(Root::Run, &run, &name)?;
        }
        for address in &addresses {
            for (kind, id) in named_in(address) {
                docket.needs(kind, &id, &name)?;
            }
            if let Some(key) = territory::key(&ArtifactAddress::parse(address), root) {
                docket.place(&key, "model version", &name)?;
            }
        }
        Ok(())
    })
}

/// Notes where everything else has its files.
///
/// # Errors
/// As [`versions`].
pub(super) fn places(store: &mut dyn Purge, docket: &Docket, root: Option<&ArtifactAddress>) -> Outcome<()> {
    store.places(&mut |kind, id, address| match territory::key(&ArtifactAddress::parse(address), root) {
        Some(key) => docket.place(&key, kind.word(), id),
        None => Ok(()),
    })
}

/// Why a place is not a thing's own alone: somebody else's is in it, or it lies in somebody else's.
///
/// # Errors
/// Configuration: the work folder failed.
pub(super) fn other(docket: &Docket, key: &str, kind: Root, id: &str) -> Outcome<Option<String>> {
    let whose = |Owner { kind, id }: Owner| format!("the {kind} {id}");
    if let Some(owner) = docket.within(key, kind, id)? {
        return Ok(Some(format!("what belongs to {} lies there", whose(owner))));
    }
    for above in territory::above(key) {
        // One who says that an experiment's folder is his, or one above it, says it wrongly, and keeps nobody.
        if docket.holds_experiment(above)? {
            break;
        }
        if let Some(owner) = docket.owner(above, kind, id)? {
            return Ok(Some(format!("it lies in the place of {}", whose(owner))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_runs_and_models() {
        let run = "0123456789abcdef0123456789abcdef";
        for (address, wanted) in [
            (format!("runs:/{run}/model"), (Root::Run, run)),
            (format!("s3://b/1/{run}/artifacts/model"), (Root::Run, run)),
            (format!("/srv/ml/1/{run}/artifacts"), (Root::Run, run)),
            ("models:/m-77".to_owned(), (Root::Model, "m-77")),
            ("mlflow-artifacts:/1/models/m-77/artifacts".to_owned(), (Root::Model, "m-77")),
        ] {
            let wanted = (wanted.0, wanted.1.to_owned());
            assert!(named_in(&address).contains(&wanted), "{address}");
        }
        assert!(named_in("dummy-source").is_empty());
    }
}
