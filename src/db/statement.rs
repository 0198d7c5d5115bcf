//! Statements with a fixed text.
//!
//! diesel prepares `sql_query` and its own `UPDATE` and `ON CONFLICT` anew each time, at the price of round trips;
//! a query node with a static id is prepared once per connection. The type that the macro makes is such a node: a
//! text in which `$1`, `$2`.. stand for its fields, in their order and as often as wanted.

/// Makes a query node: `statement!(Name -> (Row, Types), "text", { field: SqlType => RustType, .. })`.
macro_rules! statement {
    (
        $(#[$doc:meta])*
        $name:ident -> $row:ty, $sql:expr, { $($field:ident: $sql_type:ty => $rust_type:ty),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, diesel::query_builder::QueryId)]
        pub(super) struct $name {
            $(pub(super) $field: $rust_type),*
        }

        impl diesel::query_builder::Query for $name {
            type SqlType = $row;
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name {
            fn walk_ast<'b>(
                &'b self,
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                for (text, place) in $crate::db::pieces($sql) {
                    out.push_sql(text);
                    let (_field, _) = (0, place);
                    $(
                        let _field = _field + 1;
                        // A field that is named twice is sent twice: diesel numbers the places itself.
                        if place == Some(_field) {
                            out.push_bind_param::<$sql_type, _>(&self.$field)?;
                        }
                    )*
                }
                Ok(())
            }
        }
    };
}

pub(crate) use statement;

/// The text of a statement, cut at its places: each piece with the number of the place that follows it.
pub(crate) fn pieces(sql: &str) -> impl Iterator<Item = (&str, Option<u32>)> {
    let mut rest = Some(sql);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some((piece, after)) = text.split_once('$') else {
            rest = None;
            return Some((text, None));
        };
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        rest = Some(after);
        Some((piece, number.parse().ok()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_statement_is_cut_at_its_places() {
        let pieces: Vec<_> = super::pieces("a = $1 AND b = ANY($12) OR $1").collect();
        assert_eq!(pieces, [("a = ", Some(1)), (" AND b = ANY(", Some(12)), (") OR ", Some(1)), ("", None)]);
    }
}
