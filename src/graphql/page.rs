//! Connections as in the GraphQL Cursor Connections Specification, forward only.

use async_graphql::SimpleObject;

use super::error::ApiError;
use crate::page::{Cursor, List, Page};

/// Maximum number of entries in a page.
const LARGEST_PAGE: i32 = 50;

/// A page's position in its list.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct PageInfo {
    /// Whether more entries follow; fetch them with `after: endCursor`.
    has_next_page: bool,
    /// Whether this page was requested with `after`.
    has_previous_page: bool,
    /// Cursor of the first entry; null if the page is empty.
    start_cursor: Option<String>,
    /// Cursor of the last entry; null if the page is empty.
    end_cursor: Option<String>,
}

/// Returns the edges, nodes and `PageInfo` of a page.
pub(super) fn connection<Item, Node: Clone, Edge>(
    page: Page<Item>,
    after: Option<Cursor>,
    cursor: impl Fn(&Item) -> Cursor,
    node: impl Fn(Item) -> Node,
    edge: impl Fn(String, Node) -> Edge,
) -> (Vec<Edge>, Vec<Node>, PageInfo) {
    let cursors: Vec<String> = page.items.iter().map(|item| cursor(item).encode()).collect();
    let page_info = PageInfo {
        has_next_page: page.has_next,
        has_previous_page: after.is_some(),
        start_cursor: cursors.first().cloned(),
        end_cursor: cursors.last().cloned(),
    };
    let nodes: Vec<Node> = page.items.into_iter().map(node).collect();
    let edges = cursors.into_iter().zip(&nodes).map(|(cursor, node)| edge(cursor, node.clone())).collect();
    (edges, nodes, page_info)
}

/// Returns the page size that `first` asks for; null means the default.
pub(super) fn page_size(first: Option<i32>, default: usize) -> Result<usize, ApiError> {
    let Some(first) = first else { return Ok(default) };
    let within = usize::try_from(first).ok().filter(|_| first <= LARGEST_PAGE);
    within
        .ok_or_else(|| ApiError::BadUserInput(format!("first: {first} is not between 0 and {LARGEST_PAGE}.")))
}

/// Costs are capped here: far above any limit, yet a thousand of them are far from overflowing a sum.
const HIGHEST_COST: usize = 1_000_000;

/// Returns the maximum cost of a list: an entry's cost times the page size. A `first` out of bounds is refused later;
/// here it is clamped.
pub(super) fn list_cost(first: Option<i32>, default: usize, entry: usize) -> usize {
    let rows =
        first.map_or(default, |first| usize::try_from(first.clamp(0, LARGEST_PAGE)).unwrap_or(default));
    entries_cost(rows, entry)
}

/// Returns the cost of a list with a known number of entries.
pub(super) fn entries_cost(rows: usize, entry: usize) -> usize {
    rows.saturating_mul(entry).saturating_add(1).min(HIGHEST_COST)
}

/// Sizes counted per drop, typically a dozen. A drop may have a hundred, but at that a page of drops would exceed the
/// limit.
const SIZES: usize = 12;
/// Cost of a text, which may have twenty kilobytes. Kept low as above: a page shows fifty of them.
pub(super) const LONG_TEXT_COST: usize = 30;

/// Returns the cost of a drop's sizes.
pub(super) fn sizes_cost(size: usize) -> usize {
    entries_cost(SIZES, size)
}

/// Decodes `after`, which must be a cursor of `list`.
pub(super) fn place(list: List, after: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let Some(text) = after else { return Ok(None) };
    let cursor = Cursor::decode(text).filter(|cursor| cursor.list == list);
    let not_one = || ApiError::BadUserInput("after: this is no cursor of this list.".to_owned());
    cursor.map(Some).ok_or_else(not_one)
}
