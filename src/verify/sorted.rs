//! Any number of things put into order with little memory: what does not fit goes to files and is merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::verify::fingerprint::{Entity, Kind};

/// Bytes that are held before they go to a file.
const HELD: usize = 16 << 20;

/// Takes things in any order.
pub(super) struct Sorter {
    folder: PathBuf,
    held: Vec<(Place, String)>,
    bytes: usize,
    most: usize,
    files: Vec<File>,
}

type Place = (Kind, String);
/// Lines in order.
type Lines = Box<dyn Iterator<Item = std::io::Result<String>>>;

fn of(entity: &Entity) -> Place {
    (entity.kind, entity.id.clone())
}

fn line(entity: &Entity) -> Outcome<String> {
    serde_json::to_string(entity).map_err(|e| Failure::internal(format!("a line of a snapshot: {e}")))
}

/// What a line says.
pub(super) fn read(line: &str) -> Outcome<Entity> {
    serde_json::from_str(line).map_err(|e| Failure::damaged(format!("a line of a snapshot: {e}")))
}

impl Sorter {
    /// One that puts what it cannot hold into that folder.
    pub(super) fn new(folder: &Path) -> Sorter {
        Sorter { folder: folder.to_owned(), held: Vec::new(), bytes: 0, most: HELD, files: Vec::new() }
    }

    pub(super) fn add(&mut self, entity: &Entity) -> Outcome<()> {
        let (place, line) = (of(entity), line(entity)?);
        self.bytes += line.len() + place.1.len() + 64;
        self.held.push((place, line));
        if self.bytes > self.most { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Outcome<()> {
        let failed = |e: std::io::Error| {
            Failure::configuration(format!("the work folder {} cannot be used: {e}", shown(&self.folder)))
                .hint("name another folder with --work-dir")
        };
        self.held.sort();
        let mut file = BufWriter::new(tempfile::tempfile_in(&self.folder).map_err(failed)?);
        for (_, line) in self.held.drain(..) {
            file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        }
        let mut file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.files.push(file);
        self.bytes = 0;
        Ok(())
    }

    /// Tells each thing once, in order; of two that stand in one place the first.
    pub(super) fn each(mut self, mut tell: impl FnMut(&str) -> Outcome<()>) -> Outcome<u64> {
        self.held.sort();
        let held = std::mem::take(&mut self.held).into_iter().map(|(_, line)| Ok(line));
        let mut sources: Vec<Lines> = vec![Box::new(held)];
        for file in self.files {
            sources.push(Box::new(BufReader::new(file).lines()));
        }
        let mut heap = BinaryHeap::new();
        let next = |sources: &mut Vec<Lines>, index: usize| -> Outcome<Option<Reverse<(Place, usize, String)>>> {
            let Some(line) = sources.get_mut(index).and_then(Iterator::next) else { return Ok(None) };
            let line = line.map_err(|e| Failure::internal(format!("a file of ours cannot be read: {e}")))?;
            Ok(Some(Reverse((of(&read(&line)?), index, line))))
        };
        for index in 0..sources.len() {
            heap.extend(next(&mut sources, index)?);
        }
        let (mut last, mut told) = (None, 0);
        while let Some(Reverse((place, index, line))) = heap.pop() {
            heap.extend(next(&mut sources, index)?);
            if last.as_ref() != Some(&place) {
                tell(&line)?;
                told += 1;
                last = Some(place);
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_in_order_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter { most: 2_000, ..Sorter::new(folder.path()) };
        for n in (0..500_u32).map(|n| n * 7 % 500).chain([3, 4]) {
            sorter.add(&Entity::of_history(&format!("{n:04}\n"), "k", 1, 1)).unwrap();
        }
        assert!(sorter.files.len() > 10);
        let mut told = Vec::new();
        let count = sorter.each(|line| {
            told.push(read(line)?.id);
            Ok(())
        });
        let wanted: Vec<String> = (0..500).map(|n| format!("{n:04}\n/k")).collect();
        assert_eq!((count.unwrap(), told), (500, wanted));
    }
}
