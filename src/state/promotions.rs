//! The log of promotions, `promotions.jsonl`: a line for each that came to an end.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::domain::address::shown;
use crate::domain::promotion::record::Record;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("promotions.jsonl")
}

/// Adds a record, synced to the disk.
///
/// # Errors
/// A sentence for the operator: the folder cannot be written to.
pub fn add(state_dir: &Path, record: &Record) -> Result<(), String> {
    let write = || {
        fs::create_dir_all(state_dir)?;
        let mut line = serde_json::to_string(record).map_err(std::io::Error::other)?;
        line.push('\n');
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path(state_dir))?;
        // Lines of two runs do not mix.
        file.lock()?;
        // Nor does one with what a full disk left of the line before it.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            line.insert(0, '\n');
        }
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| {
        format!("the log {} cannot be written to ({e}): only the tags tell of it", shown(&path(state_dir)))
    })
}

/// What is known of a model on a server. A line that is no record - one that a full disk cut - is passed over, and
/// counted.
///
/// # Errors
/// A sentence for the operator: it cannot be read.
pub fn of(state_dir: &Path, server: &str, model: &str) -> Result<(Vec<Record>, usize), String> {
    let path = path(state_dir);
    let failed = |e: std::io::Error| format!("the log {} cannot be read ({e}): only the tags tell", shown(&path));
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok((Vec::new(), 0)),
        Err(e) => return Err(failed(e)),
    };
    let (mut found, mut damaged) = (Vec::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice::<Record>(&line.map_err(failed)?) {
            Ok(record) if record.model == model && record.server.as_deref() == Some(server) => found.push(record),
            Ok(_) => {}
            Err(_) => damaged += 1,
        }
    }
    Ok((found, damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_costs_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let json = r#"{"id":"a","at":"2026-01-01T00:00:00Z","action":"promote","version":1,"from":"None","to":{"alias":"c"},
            "by":"ann@ci","state":"done","model":"m","server":"s"}"#;
        let record: Record = serde_json::from_str(json).expect("a record");
        add(folder.path(), &record).expect("written");
        let log = path(folder.path());
        let whole = fs::read(&log).expect("read");
        fs::write(&log, [&whole[..], &whole[..40]].concat()).expect("written");
        add(folder.path(), &Record { id: "b".to_owned(), ..record.clone() }).expect("written");
        add(folder.path(), &Record { server: Some("t".to_owned()), ..record.clone() }).expect("written");
        let (found, damaged) = of(folder.path(), "s", "m").expect("read");
        assert_eq!(found.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(damaged, 1);
        assert!(of(&folder.path().join("not there"), "s", "m").expect("nothing").0.is_empty());
        assert!(add(&log, &record).is_err());
    }
}
