//! An object is written: in one request where it is small, else in parts. Each carries a mark of its own, so that after
//! an answer that never came nobody has to guess whether it was written, and by whom.

use std::hash::{BuildHasher, Hasher, RandomState};

use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, MultipartUpload, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, path,
};

use super::files::There;
use super::objects::{AFTERWARDS, as_target};
use super::s3::{Bucket, Refusal, Why};
use super::waiting::{Patience, Waiting};
use crate::domain::failure::{Failure, Outcome};

/// Up to so many bytes go in one request.
pub(super) const SINGLE: u64 = 16 << 20;
/// Parts of an object at most (S3: 10,000).
const PARTS: u64 = 9_990;
/// Times that a write is tried.
const TRIES: u32 = 3;
/// Before the second try; twice as long before the third.
const PAUSE_MS: u64 = 200;
/// The mark's name among an object's metadata.
const MARK: &str = "mlops-put";

/// One object to be written.
pub(super) struct Upload<'a> {
    bucket: &'a Bucket,
    object: &'a path::Path,
    waiting: &'a Waiting,
    patience: Patience,
    mark: String,
}

/// A text that nobody else has.
pub(super) fn unique() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        bucket: &'a Bucket,
        object: &'a path::Path,
        waiting: &'a Waiting,
        patience: Patience,
    ) -> Upload<'a> {
        Upload { bucket, object, waiting, patience, mark: unique() }
    }

    fn attributes(&self) -> Attributes {
        let mark = AttributeValue::from(self.mark.clone());
        [(Attribute::Metadata(MARK.into()), mark)].into_iter().collect()
    }

    /// Whether the object is there, and is this one.
    async fn there(&self) -> Result<Option<bool>, Refusal> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let asked = self.bucket.store().get_opts(self.object, options);
        match self.bucket.within(self.patience.answer, asked).await {
            Ok(got) => {
                let mark = got.attributes.get(&Attribute::Metadata(MARK.into()));
                Ok(Some(mark.is_some_and(|mark| mark.as_ref() == self.mark)))
            }
            Err(refusal) if refusal.why == Why::Absent => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Writes all in one request.
    pub(super) fn single(&self, content: Vec<u8>, length: u64, there: There) -> Outcome<bool> {
        if content.len() as u64 != length {
            return Err(Failure::internal("a staged file became shorter"));
        }
        let payload = PutPayload::from(content);
        let create = there == There::Stays;
        self.waiting.on(self.write(payload, create))?.map_err(as_target)
    }

    async fn write(&self, payload: PutPayload, create: bool) -> Result<bool, Refusal> {
        let mut mode = if create { PutMode::Create } else { PutMode::Overwrite };
        for attempt in 0.. {
            let options = PutOptions { mode: mode.clone(), attributes: self.attributes(), ..PutOptions::default() };
            let asked = self.bucket.store().put_opts(self.object, payload.clone(), options);
            let refusal = match self.bucket.within(self.patience.part, asked).await {
                Ok(_) => return Ok(true),
                Err(refusal) => refusal,
            };
            match refusal.why {
                // One that was written by the try before is this one.
                Why::There if create => match self.there().await? {
                    Some(own) => return Ok(own),
                    // Somebody was about to write or remove it.
                    None if attempt + 1 < TRIES => {}
                    None => return Err(refusal),
                },
                // A server without conditional writes: between looking and writing another may write.
                Why::Unknown if mode == PutMode::Create => {
                    if let Some(own) = self.there().await? {
                        return Ok(own);
                    }
                    mode = PutMode::Overwrite;
                    continue;
                }
                Why::Silent if attempt + 1 < TRIES => {}
                _ => return Err(refusal),
            }
            tokio::time::sleep(super::waiting::pause(PAUSE_MS << attempt)).await;
        }
        Ok(false)
    }

    /// Writes part after part, and none of it where one fails. `read` gives so many of the next bytes.
    pub(super) fn in_parts(
        &self,
        read: &mut dyn FnMut(u64) -> Outcome<Vec<u8>>,
        length: u64,
        there: There,
    ) -> Outcome<bool> {
        let stays = there == There::Stays;
        // Looked at before the parts are sent and once more before they are made an object.
        if stays && let Some(own) = self.waiting.on(self.there())?.map_err(as_target)? {
            return Ok(own);
        }
        let options = PutMultipartOptions { attributes: self.attributes(), ..PutMultipartOptions::default() };
        let begun =
            self.bucket.within(self.patience.answer, self.bucket.store().put_multipart_opts(self.object, options));
        let mut parts = self.waiting.on(begun)?.map_err(as_target)?;
        let outcome = self.send(parts.as_mut(), read, length, stays);
        if !matches!(outcome, Ok(true)) {
            // What stays behind where this fails as well is nobody's to read, but is paid for: a lifecycle rule of the
            // bucket removes it (AbortIncompleteMultipartUpload), and MinIO does so by itself.
            let _ = self.waiting.afterwards(AFTERWARDS, parts.abort());
        }
        outcome
    }

    fn send(
        &self,
        parts: &mut dyn MultipartUpload,
        read: &mut dyn FnMut(u64) -> Outcome<Vec<u8>>,
        length: u64,
        stays: bool,
    ) -> Outcome<bool> {
        // Only what is larger than 150 GiB takes larger parts, and more memory.
        let size = SINGLE.max(length.div_ceil(PARTS));
        let mut sent = 0;
        while sent < length {
            let part = read(size.min(length - sent))?;
            if part.is_empty() {
                return Err(Failure::internal("a staged file became shorter"));
            }
            sent += part.len() as u64;
            let put = self.part(parts, part.into());
            self.waiting.on(put)?.map_err(as_target)?;
        }
        // `object_store` completes unconditionally: between this look and the completion another may write.
        if stays && let Some(own) = self.waiting.on(self.there())?.map_err(as_target)? {
            return Ok(own);
        }
        let completed = self.waiting.on(self.bucket.within(self.patience.part, parts.complete()))?;
        match completed {
            Ok(_) => Ok(true),
            // It may be complete though the answer was lost; then a second try finds no upload any more.
            Err(refusal) => match self.waiting.on(self.there())? {
                Ok(Some(true)) => Ok(true),
                _ => Err(as_target(refusal)),
            },
        }
    }

    /// A part that is sent again takes its own place, so it can be sent again.
    async fn part(&self, parts: &mut dyn MultipartUpload, content: PutPayload) -> Result<(), Refusal> {
        self.bucket.within(self.patience.part, parts.put_part(content)).await
    }
}
