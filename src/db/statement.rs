//! Statements with a fixed text.
//!
//! diesel prepares `sql_query` and its own `UPDATE` and `ON CONFLICT` each time, at the cost of round trips; a query
//! node with a static id is prepared once per connection. The macro defines such a node: a text in which `$1`, `$2`..
//! stand for its fields in order, each as often as wanted. Each field is sent once.

/// Defines a query node: `statement!(Name -> (Row, Types), "text", { field: SqlType => RustType, .. })`. Further nodes
/// can share its fields, and need not use all of them: `statement!(Other(Name) -> (Row, Types), "text")`.
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

        impl $name {
            /// Writes the text, with each field bound at its first place; later places have the number of that bind.
            fn say<'b>(
                &'b self,
                pieces: &[$crate::db::Piece],
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                for (text, _place) in pieces {
                    out.push_sql(text);
                    let _field = 0;
                    $(
                        let _field = _field + 1;
                        if *_place == Some(_field) {
                            out.push_bind_param::<$sql_type, _>(&self.$field)?;
                        }
                    )*
                }
                Ok(())
            }
        }

        $crate::db::statement!(@node $name, $row, $sql, |node| node);
    };
    ($(#[$doc:meta])* $name:ident($fields:ident) -> $row:ty, $sql:expr) => {
        $(#[$doc])*
        #[derive(Debug, diesel::query_builder::QueryId)]
        pub(super) struct $name(pub(super) $fields);

        $crate::db::statement!(@node $name, $row, $sql, |node| &node.0);
    };
    (@node $name:ident, $row:ty, $sql:expr, |$node:ident| $fields:expr) => {
        impl diesel::query_builder::Query for $name {
            type SqlType = $row;
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name {
            fn walk_ast<'b>(
                &'b self,
                out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                // Cached, because the driver calls this several times per execution.
                static PIECES: std::sync::LazyLock<Vec<$crate::db::Piece>> =
                    std::sync::LazyLock::new(|| $crate::db::pieces($sql));
                let $node = self;
                $fields.say(&PIECES, out)
            }
        }
    };
}

pub(crate) use statement;

/// A part of a statement's text, and the number of the field that follows it.
pub(crate) type Piece = (String, Option<usize>);

/// Splits the text at the first place of each field. diesel numbers the binds itself, so at later places the text gets
/// the number under which the field is sent.
pub(crate) fn pieces(sql: &str) -> Vec<Piece> {
    let (mut pieces, mut sent) = (Vec::new(), Vec::new());
    let mut parts = sql.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, after) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
        let field: Option<usize> = number.parse().ok();
        match sent.iter().position(|before| *before == field) {
            Some(before) => text.push_str(&format!("${}", before + 1)),
            None => {
                pieces.push((std::mem::take(&mut text), field));
                sent.push(field);
            }
        }
        text.push_str(after);
    }
    pieces.push((text, None));
    pieces
}

/// Returns the row, if any, of a statement that commits by itself. It takes all rows because the driver's way to load
/// one returns as soon as that arrives, and PostgreSQL may send it before a commit that is slow or fails.
pub(crate) fn committed<Row>(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_statement_is_cut_where_a_field_is_named_first() {
        let pieces = super::pieces("a = $2 AND b = ANY($12) OR $2 = $1");
        let pieces: Vec<_> = pieces.iter().map(|(text, field)| (text.as_str(), *field)).collect();
        let cut = [("a = ", Some(2)), (" AND b = ANY(", Some(12)), (") OR $1 = ", Some(1)), ("", None)];
        assert_eq!(pieces, cut);
    }
}
