//! libpq's password file (PostgreSQL documentation, "The Password File").

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;

use super::environment::Environment;
use super::pg::SOCKETS;
use crate::domain::address::{PgAddress, shown};

/// Fills in the password of each host from the file, and what is to be said of the file when a server refuses.
pub(super) fn complete(address: &mut PgAddress, environment: &Environment) {
    let named = address.parameter("passfile").map(str::to_owned).or_else(|| environment.get("PGPASSFILE"));
    let usual = || Some(format!("{}/.pgpass", environment.get("HOME")?));
    let must_exist = named.is_some();
    let Some(path) = named.or_else(usual) else { return };
    let path = Path::new(&path);
    let file = shown(path);
    let text = match std::fs::metadata(path) {
        Err(_) if !must_exist => return,
        Err(e) => Err(format!("the password file {file} is not read: {e}")),
        Ok(meta) if !meta.is_file() => Err(format!("the password file {file} is not read: it is not a plain file")),
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            Err(format!("the password file {file} is not read, because others have access to it: chmod 600 {file}"))
        }
        Ok(_) => std::fs::read_to_string(path).map_err(|e| format!("the password file {file} is not read: {e}")),
    };
    let text = match text {
        Ok(text) => text,
        Err(note) => {
            address.password_note = Some(note);
            return;
        }
    };
    let user = address.user.as_deref().unwrap_or_default();
    let database = address.database.as_deref().unwrap_or(user);
    let password = |(host, port): &(String, Option<u16>)| {
        let port = port.unwrap_or(5432).to_string();
        // The usual socket is called localhost there, and by its folder too.
        let names = [Some(host.as_str()), SOCKETS.contains(&host.as_str()).then_some("localhost")];
        names.into_iter().flatten().find_map(|host| {
            let wanted = [host, &port, database, user];
            text.lines().find_map(|line| matching(line, wanted)).map(SecretString::from)
        })
    };
    let passwords: Vec<_> = address.hosts.iter().map(password).collect();
    address.password_note = Some(if passwords.iter().any(Option::is_some) {
        format!("the password came from {file}")
    } else {
        format!("{file} has no line for this host, port, database and user")
    });
    address.file_passwords = passwords;
}

/// The password of a line `host:port:database:user:password` that fits; `\:` and `\\` are escapes.
fn matching(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => fields.last_mut()?.push(characters.next()?),
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    let password = fields.get(4)?.clone();
    fields.iter().zip(wanted).all(|(have, want)| have == "*" || have == want).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let wanted = ["db", "5432", "mlflow", "ml"];
        assert_eq!(matching(r"db:5432:mlflow:ml:a\:b\\c", wanted).as_deref(), Some(r"a:b\c"));
        assert_eq!(matching("*:*:*:ml:x:y", wanted).as_deref(), Some("x:y"));
        assert_eq!(matching("db:5432:other:ml:x", wanted), None);
        assert_eq!(matching("# comment", wanted), None);
        assert_eq!(matching("#*:*:*:*:x", wanted), None);
    }
}
