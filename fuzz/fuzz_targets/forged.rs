//! About, manifest and a data entry of the fuzzer's, separated by a byte 0xff, as an archive whose checksums are right:
//! where the manifest is empty, one is made that fits the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlops::archive::about::ArchivedAbout;
use mlops::archive::frame::{BLOCK, Frame};
use mlops::archive::layout;
use mlops::archive::manifest::{EntryRecord, Manifest, TableRecord};
use mlops::archive::reader::ArchiveSource;
use mlops::domain::digest::TableDigest;
use mlops::engine::cancel::Cancel;
use mlops::engine::{Part, RowSource};

fn put(tar: &mut Vec<u8>, name: &str, content: &[u8]) -> EntryRecord {
    let bytes = content.len() as u64;
    tar.extend(Frame { name: name.to_owned(), bytes, seconds: 0 }.header());
    tar.extend_from_slice(content);
    tar.resize(tar.len().div_ceil(BLOCK) * BLOCK, 0);
    EntryRecord { name: name.to_owned(), bytes, sha256: layout::sha256_hex(content), raw_bytes: bytes, rows: None }
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(5, |b| *b == 0xff);
    let (Some(about), Some(manifest), Some(rows)) = (parts.next(), parts.next(), parts.next()) else { return };
    let (Some(raw_bytes), Some(data)) = (parts.next(), parts.next()) else { return };
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.parse::<u64>().ok()).unwrap_or(1);
    let (rows, raw_bytes) = (number(rows), number(raw_bytes));
    let mut tar = Vec::new();
    let mut made = Manifest { entries: vec![put(&mut tar, layout::ABOUT, about)], tables: Vec::new() };
    made.entries.push(put(&mut tar, layout::TABLES, b""));
    made.entries.push(put(&mut tar, layout::POST_DATA, b""));
    let parsed = ArchivedAbout::parse(about);
    if let Ok(about) = &parsed
        && let Some(table) = about.tables.first()
    {
        let name = layout::piece_name(&table.shape.name, None, about.compression);
        let entry = put(&mut tar, &name, data);
        made.entries.push(EntryRecord { raw_bytes, rows: Some((table.shape.name.clone(), rows)), ..entry });
        made.tables = about.tables.iter().map(|t| TableRecord {
            name: t.shape.name.clone(),
            digest: TableDigest { rows: if t.shape.name == table.shape.name { rows } else { 0 }, sum: 0 },
            unfit: 0,
            widened: Vec::new(),
        }).collect();
    }
    made.entries.push(put(&mut tar, layout::RESTORE, b""));
    let manifest = if manifest.is_empty() { made.render().unwrap() } else { manifest.to_vec() };
    put(&mut tar, layout::MANIFEST, &manifest);
    put(&mut tar, layout::SEAL, layout::seal(&manifest).as_bytes());
    tar.resize(tar.len() + 2 * BLOCK, 0);
    match ArchiveSource::of(Box::new(tar), "fuzz".to_owned(), &Cancel::new()) {
        Ok(archive) => {
            for shape in archive.shapes() {
                let _ = archive.rows(shape);
                for wanted in [1, 3] {
                    for part in archive.parts(shape, wanted).unwrap() {
                        let _ = archive.read(shape, part, &mut |_| Ok(()));
                    }
                }
                let _ = archive.read(shape, Part::ALL, &mut |_| Ok(()));
            }
        }
        Err(_) => {}
    }
});
