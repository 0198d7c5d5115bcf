//! Connections, as the GraphQL Cursor Connections Specification has them, forward only.

use async_graphql::SimpleObject;

use super::error::ApiError;
use crate::page::{Cursor, List, Page};

/// The most that a list gives at once.
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

/// What a connection shows of a page.
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

/// Reads `first`; null means its default.
pub(super) fn page_size(first: Option<i32>, default: usize) -> Result<usize, ApiError> {
    let Some(first) = first else { return Ok(default) };
    let within = usize::try_from(first).ok().filter(|_| first <= LARGEST_PAGE);
    within
        .ok_or_else(|| ApiError::BadUserInput(format!("first: {first} is not between 0 and {LARGEST_PAGE}.")))
}

/// Costs are cut here: far over any limit, and a thousand of them still far from where a sum would wrap around.
const HIGHEST_COST: usize = 1_000_000;

/// What a list may cost: what one entry does, as often as there may be one. A `first` out of its bounds is refused
/// later; here it counts as the most.
pub(super) fn list_cost(first: Option<i32>, default: usize, entry: usize) -> usize {
    let rows =
        first.map_or(default, |first| usize::try_from(first.clamp(0, LARGEST_PAGE)).unwrap_or(default));
    entries_cost(rows, entry)
}

/// The same for a number of entries that is known.
pub(super) fn entries_cost(rows: usize, entry: usize) -> usize {
    rows.saturating_mul(entry).saturating_add(1).min(HIGHEST_COST)
}

/// A drop has some dozen sizes. It may have a hundred, but were all counted so, a page of drops would pass the limit.
const SIZES: usize = 12;
/// A text may have twenty kilobytes. As above: a page shows fifty of them.
pub(super) const LONG_TEXT_COST: usize = 30;

/// The cost of a drop's sizes.
pub(super) fn sizes_cost(size: usize) -> usize {
    entries_cost(SIZES, size)
}

/// Reads `after`, a cursor of `list`.
pub(super) fn place(list: List, after: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let Some(text) = after else { return Ok(None) };
    let cursor = Cursor::decode(text).filter(|cursor| cursor.list == list);
    let not_one = || ApiError::BadUserInput("after: this is no cursor of this list.".to_owned());
    cursor.map(Some).ok_or_else(not_one)
}
