//! The list of a bucket's keys as they are. `object_store` drops the slash at a key's end, and refuses a whole page for
//! one key that is no path of its own kind (`a//b`); so such an answer is read here before it gets there.

use std::pin::Pin;

use jiff::Timestamp;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};
use quick_xml::events::Event;

/// Asks for keys as they are, in a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw;

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) objects: Vec<Listed>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// An object as the list tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// When it was last changed, in seconds since 1970.
    pub(super) modified: i64,
    pub(super) etag: Option<String>,
}

/// Hands on requests; reads lists where that is asked for.
#[derive(Debug)]
pub(super) struct Reading(HttpClient);

impl Reading {
    pub(super) fn through(client: HttpClient) -> Reading {
        Reading(client)
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let raw = request.extensions().get::<Raw>().is_some();
        let answer = self.0.execute(request).await?;
        if !raw || !answer.status().is_success() {
            return Ok(answer);
        }
        let (mut parts, body) = answer.into_parts();
        let body = body.bytes().await?;
        let Some(listing) = std::str::from_utf8(&body).ok().and_then(read) else {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        };
        parts.extensions.insert(listing);
        Ok(HttpResponse::from_parts(parts, "<ListBucketResult/>".to_owned().into()))
    }
}

impl HttpService for Reading {
    // What `async_trait` makes of an `async fn`.
    fn call<'a, 't>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 't>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(self.answer(request))
    }
}

/// Reads the answer to ListObjectsV2; `None`: it is none.
fn read(xml: &str) -> Option<Listing> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut listing = Listing::default();
    let mut text = String::new();
    let mut object = None;
    let (mut depth, mut seen, mut more) = (0_usize, false, false);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                match (depth, tag.local_name().as_ref()) {
                    (0, b"ListBucketResult") => seen = true,
                    (1, b"Contents") => object = Some(Listed::default()),
                    _ => {}
                }
                depth += 1;
                text.clear();
            }
            Event::Empty(tag) => seen |= depth == 0 && tag.local_name().as_ref() == b"ListBucketResult",
            Event::Text(part) => text.push_str(&part.decode().ok()?),
            Event::CData(part) => text.push_str(&part.decode().ok()?),
            Event::GeneralRef(name) => match name.resolve_char_ref().ok()? {
                Some(one) => text.push(one),
                None => text.push_str(quick_xml::escape::resolve_predefined_entity(&name.decode().ok()?)?),
            },
            Event::End(tag) => {
                depth = depth.checked_sub(1)?;
                match (depth, tag.local_name().as_ref(), &mut object) {
                    (1, b"Contents", _) => listing.objects.push(object.take()?),
                    (1, b"NextContinuationToken", _) => listing.next = Some(std::mem::take(&mut text)),
                    (1, b"IsTruncated", _) => more = text.trim() == "true",
                    (2, b"Key", Some(object)) => object.key = std::mem::take(&mut text),
                    (2, b"Size", Some(object)) => object.bytes = text.trim().parse().ok()?,
                    (2, b"ETag", Some(object)) => object.etag = Some(std::mem::take(&mut text)),
                    (2, b"LastModified", Some(object)) => {
                        object.modified = text.trim().parse::<Timestamp>().ok()?.as_second();
                    }
                    _ => {}
                }
                text.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    // A list that ends early without saying where it goes on would be taken for all there is.
    (seen && depth == 0 && (!more || listing.next.is_some())).then_some(listing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
  <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>
  <Contents><Key>p//a</Key><LastModified>2025-01-02T03:04:05.678Z</LastModified><ETag>&quot;ab&#x63;&quot;</ETag>
    <Size>7</Size><Owner><ID>1</ID></Owner></Contents>
  <Contents><Key> p/ &lt;&amp;&#233; </Key><LastModified>2025-01-02T03:04:05Z</LastModified><Size>0</Size></Contents>
  <Contents><Key>p/folder/</Key><LastModified>2025-01-02T03:04:05Z</LastModified><Size>0</Size></Contents>
</ListBucketResult>"#;
        let listing = read(xml).unwrap();
        assert_eq!(listing.next.as_deref(), Some("a&b="));
        let keys: Vec<&str> = listing.objects.iter().map(|o| o.key.as_str()).collect();
        assert_eq!(keys, ["p//a", " p/ <&é ", "p/folder/"]);
        let first =
            Listed { key: "p//a".to_owned(), bytes: 7, modified: 1_735_787_045, etag: Some("\"abc\"".to_owned()) };
        assert_eq!(listing.objects[0], first);
    }

    #[test]
    fn what_is_no_whole_list_is_none() {
        assert_eq!(read("<ListBucketResult/>"), Some(Listing::default()));
        for text in [
            "",
            "<html></html>",
            "<ListBucketResult>",
            "<ListBucketResult><Contents><Size>x</Size></Contents></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
