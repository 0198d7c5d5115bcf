//! Ids and cursors: what decodes encodes to itself, so that no thing has two ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sneaker_drop::{
    ids::{DropId, NodeId},
    page::Cursor,
};

fuzz_target!(|text: &str| {
    if let Some(id) = NodeId::decode(text) {
        assert_eq!(id.encode(), text);
    }
    if let Some(id) = DropId::decode(text) {
        assert_eq!(NodeId::Drop(id).encode(), text);
    }
    if let Some(cursor) = Cursor::decode(text) {
        assert_eq!(cursor.encode(), text);
    }
});
