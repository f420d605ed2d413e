//! The artifacts of what is purged: which places are its own and may be emptied, and emptying them.

use std::path::{Path, PathBuf};

use crate::artifact::Cleared;
use crate::backup::place::Ways;
use crate::cleanup::owners;
use crate::domain::address::shown;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::cleanup::territory::{self, Place};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::store::sqlite::docket::Docket;

/// Folders in an experiment's that MLflow makes for others than runs.
const KINDS: [&str; 2] = ["models", "traces"];

/// The place of something's artifacts, if it is its own and nobody else's; `None`: it has none.
///
/// # Errors
/// Configuration: the work folder failed. Within: why the place is never emptied.
pub(super) fn own_place(
    docket: &Docket,
    root: Option<&ArtifactAddress>,
    kind: Root,
    id: &str,
    address: Option<&str>,
) -> Outcome<Result<Option<Place>, String>> {
    let Some(address) = address.filter(|a| !a.is_empty()) else { return Ok(Ok(None)) };
    let place = match territory::removable(address, root) {
        Ok(place) => place,
        Err(why) => return Ok(Err(refusal(address, &why))),
    };
    if !is_named_by(&place.key, id) {
        return Ok(Err(refusal(
            address,
            "it is not named by the id, as what MLflow makes is; anybody may have set it",
        )));
    }
    if let Some(why) = owners::other(docket, &place.key, kind, id)? {
        return Ok(Err(refusal(address, &why)));
    }
    Ok(Ok(Some(place)))
}

/// Whether a place is `.../ID/artifacts` or `.../ID`. Addresses come from whoever uses the server: one that leads elsewhere
/// must not take along what lies there.
fn is_named_by(key: &str, id: &str) -> bool {
    let own = key.strip_suffix("/artifacts").unwrap_or(key);
    own.rsplit('/').next() == Some(id)
}

fn refusal(address: &str, why: &str) -> String {
    format!("{} is not removed: {why}", ArtifactAddress::parse(address))
}

/// The folder that the experiment's own lies in, where it is named by the experiment's id and is not there: a disk that
/// is not mounted, rather than files that are gone.
fn missing_root(place: &Place, experiment: &str) -> Option<PathBuf> {
    let path = Path::new(place.key.strip_prefix("file:")?);
    let own = path.ancestors().find(|p| p.file_name().is_some_and(|name| name == experiment))?;
    own.parent().filter(|root| !root.exists()).map(Path::to_owned)
}

/// Empties a place, and removes the folder that MLflow made around it for that one thing.
///
/// # Errors
/// Why something stays, for people.
pub(super) fn empty(ways: &Ways, place: &Place, id: &str, experiment: &str) -> Result<Cleared, String> {
    if let Some(root) = missing_root(place, experiment) {
        return Err(format!("{} is not there: is its disk mounted?", shown(&root)));
    }
    let cleared = ways.emptied(&place.address)?.clear().map_err(|failure| failure.message)?;
    if let Some(around) = around(&place.address, id) {
        ways.emptied(&around)?.tidy(&KINDS).map_err(|failure| failure.message)?;
    }
    Ok(cleared)
}

/// Removes the folder of an experiment if it is empty, where it is named by its id or lies below the artifact root.
///
/// # Errors
/// As [`empty`].
pub(super) fn tidy(ways: &Ways, root: Option<&ArtifactAddress>, id: &str, address: &str) -> Result<(), String> {
    let Ok(place) = territory::removable(address, root) else { return Ok(()) };
    let below =
        root.and_then(|root| territory::key(root, None)).is_some_and(|root| place.key.starts_with(&format!("{root}/")));
    if !below && !is_named_by(&place.key, id) {
        return Ok(());
    }
    ways.emptied(&place.address)?.tidy(&KINDS).map_err(|failure| failure.message)
}

/// Whether there is any file at or below a place; what is not reached from here at all has none.
///
/// # Errors
/// Unreachable: the store does not answer. Interrupted.
pub(super) fn holds_something(ways: &Ways, address: &ArtifactAddress) -> Outcome<bool> {
    let Ok(files) = ways.files(address) else { return Ok(false) };
    let mut any = false;
    // The walk ends with the first thing that it meets.
    let walked = files.walk("", &mut |_| {
        any = true;
        Err(Failure::internal("enough"))
    });
    match walked {
        Err(failure) if !any && matches!(failure.kind, Kind::Unreachable | Kind::Interrupted(_)) => Err(failure),
        _ => Ok(any),
    }
}

/// `.../ID` around `.../ID/artifacts`.
fn around(address: &ArtifactAddress, id: &str) -> Option<ArtifactAddress> {
    let above = |path: &str| {
        let (above, last) = path.rsplit_once('/')?;
        (last == "artifacts" && above.rsplit('/').next() == Some(id)).then(|| above.to_owned())
    };
    match address {
        ArtifactAddress::Local(path) => above(path.to_str()?).map(|path| ArtifactAddress::Local(path.into())),
        ArtifactAddress::Proxy { host: None, path } => {
            above(path).map(|path| ArtifactAddress::Proxy { host: None, path })
        }
        _ => None,
    }
}
