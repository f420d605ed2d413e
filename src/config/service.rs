//! libpq's connection service file (PostgreSQL documentation, "The Connection Service File").

use std::path::{Path, PathBuf};

use super::environment::Environment;
use crate::domain::address::{PgAddress, shown};
use crate::domain::failure::{Failure, Outcome};

/// Where the file for all users is when PGSYSCONFDIR does not say: Debian's folder, Red Hat's, and that of a
/// PostgreSQL built by hand.
const SYSTEM: &[&str] = &["/etc/postgresql-common", "/etc", "/usr/local/pgsql/etc"];

/// The parameters of the service that the address or PGSERVICE names; none where none is named.
///
/// # Errors
/// Configuration: the service is in no file, or a file is not of the form.
pub(super) fn parameters(address: &PgAddress, environment: &Environment) -> Outcome<Vec<(String, String)>> {
    let Some(name) = address.parameter("service").map(str::to_owned).or_else(|| environment.get("PGSERVICE")) else {
        return Ok(Vec::new());
    };
    let own = address
        .parameter("servicefile")
        .map(str::to_owned)
        .or_else(|| environment.get("PGSERVICEFILE"))
        .or_else(|| Some(format!("{}/.pg_service.conf", environment.get("HOME")?)));
    let mut files: Vec<PathBuf> = own.map(PathBuf::from).into_iter().collect();
    match environment.get("PGSYSCONFDIR") {
        Some(folder) => files.push(Path::new(&folder).join("pg_service.conf")),
        None => files.extend(SYSTEM.iter().map(|folder| Path::new(folder).join("pg_service.conf"))),
    }
    for file in files.iter().filter(|f| f.exists()) {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Failure::configuration(format!("the service file {}: {e}", shown(file))))?;
        if let Some(found) = section(&text, &name).map_err(|f| f.on(format!("the service file {}", shown(file))))? {
            return Ok(found);
        }
    }
    let looked: Vec<String> = files.iter().map(|f| shown(f)).collect();
    Err(Failure::configuration(format!("the service \"{name}\" is not defined"))
        .hint(format!("looked in {}", looked.join(", "))))
}

/// The lines of `[name]`, where the text has it.
fn section(text: &str, name: &str) -> Outcome<Option<Vec<(String, String)>>> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(found) = found.as_mut() else { continue };
        // The line is not repeated: it may hold a password.
        let wrong = |what: &str| Failure::configuration(format!("line {}: {what}", number + 1));
        if line.starts_with("ldap") {
            return Err(wrong("a service that is looked up by LDAP is not read"));
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("is not of the form parameter=value"))?;
        if key == "service" || key == "servicefile" {
            return Err(wrong("a service cannot name another"));
        }
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections() {
        let text = "# all\n[a]\nhost=one\n\n[b]\n host=two\nport=5\npassword=x=y\n[b]\nhost=three\n";
        let pairs = |p: &[(&str, &str)]| Some(p.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(section(text, "a").unwrap(), pairs(&[("host", "one")]));
        assert_eq!(section(text, "b").unwrap(), pairs(&[("host", "two"), ("port", "5"), ("password", "x=y")]));
        assert_eq!(section(text, "c").unwrap(), None::<Vec<(String, String)>>);
        for wrong in ["[a]\nhost one", "[a]\nldap://x", "[a]\nservice=b"] {
            assert!(section(wrong, "a").is_err(), "{wrong}");
        }
    }
}
