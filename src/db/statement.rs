//! Statements with a fixed text.
//!
//! diesel prepares `sql_query` and its own `UPDATE` and `ON CONFLICT` anew each time, at the price of round trips;
//! a query node with a static id is prepared once per connection. The type that the macro makes is such a node: a
//! text with `$1`, `$2`.. in order of the fields.

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
                // The pieces between the places, each followed by the next field's.
                let mut pieces = $crate::db::pieces($sql);
                out.push_sql(pieces.next().unwrap_or_default());
                $(
                    out.push_bind_param::<$sql_type, _>(&self.$field)?;
                    out.push_sql(pieces.next().unwrap_or_default());
                )*
                Ok(())
            }
        }
    };
}

pub(crate) use statement;

/// The text of a statement, cut at its places: `"a = $1 AND b = $2"` is `a = `, ` AND b = ` and nothing.
pub(crate) fn pieces(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(sql);
    std::iter::from_fn(move || {
        let text = rest?;
        let (piece, after) = match text.split_once('$') {
            Some((piece, after)) => (piece, Some(after.trim_start_matches(|c: char| c.is_ascii_digit()))),
            None => (text, None),
        };
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_statement_is_cut_at_its_places() {
        let pieces: Vec<_> = super::pieces("a = $1 AND b = ANY($12)").collect();
        assert_eq!(pieces, ["a = ", " AND b = ANY(", ")"]);
    }
}
